//! Registers, arithmetic, memory accesses, text.

use super::*;

#[test]
fn vectors_and_packs() {
    let out = run(
        4,
        "ld.global.v4.b32 {%r10, %r11, %r12, %r13}, [%rd1+16];
         mov.b32 {%rs1, %rs2}, %r12; mov.b32 %r14, {%rs2, %rs1};
         add.s32 %r10, %r10, %r14; st.global.b32 [%rd3], %r10;",
    );
    assert_eq!(out, [4 + (6 << 16); 4]);
}

#[test]
fn selects_and_logic() {
    let out = run(
        4,
        "setp.gt.u32 %p1, %r0, 1; setp.eq.and.s32 %p2, %r0, 3, %p1; selp.b32 %r10, 7, 9, %p1;
         @%p2 mov.b32 %r10, -1; lop3.b32 %r11, %r10, 15, 0, 0xC0; st.global.u32 [%rd3], %r11;",
    );
    assert_eq!(out, [9, 9, 7, 15]);
}

#[test]
fn local_memory_is_each_thread_s_own() {
    let out = run(
        32,
        ".local .align 8 .b8 depot[8]; mov.b64 %rd10, depot; cvta.local.u64 %rd11, %rd10;
         st.b32 [%rd11+4], %r0; ld.local.b32 %r10, [%rd10+4]; st.global.b32 [%rd3], %r10;",
    );
    assert_eq!(out, (0..32).collect::<Vec<u32>>());
}

#[test]
fn inner_scopes_have_registers_of_their_own() {
    let out =
        run(1, "mov.b32 %r10, 5; { .reg .b32 %r10; mov.b32 %r10, 6; } st.global.b32 [%rd3], %r10;");
    assert_eq!(out, [5]);
}

#[test]
fn signed_bytes_fill_their_register() {
    let out = run(
        1,
        "ld.global.s8 %r10, [%rd1+1020]; cvt.s32.s8 %r11, %r10; st.global.b32 [%rd3], %r11;",
    );
    assert_eq!(out, [0xffff_ffff], "the byte is 255");
}

#[test]
fn unknown_instructions_are_named() {
    let fault = refused(1, Kind::Text, "frob", "mov.b32 %r10, 1;\nfrob.b32 %r10, %r10;");
    assert!(fault.sentence.contains("`frob.b32`"), "{fault}");
    assert_eq!((fault.kernel.as_str(), fault.line), ("k", 13));
    refused(1, Kind::Text, "add.odd", "add.odd.s32 %r10, %r10, 1;");
    refused(1, Kind::Text, "mov.b33", "mov.b33 %r10, 1;");
    refused(1, Kind::Text, "selp.b33", "setp.eq.u32 %p1, %r0, 1;\nselp.b33 %r10, 1, 2, %p1;");
    refused(1, Kind::Text, "%q", "mov.b32 %r10, %q;");
    refused(1, Kind::Text, "bra", "bra $nowhere;");
}

#[test]
fn reads_of_what_was_never_written() {
    refused(1, Kind::Uninitialised, "add", "add.s32 %r10, %r11, 1;");
    refused(1, Kind::Uninitialised, "bra", "@%p1 bra $L;\n$L:");
    refused(1, Kind::Uninitialised, "ld.shared", "ld.shared.b32 %r10, [%r5];");
    refused(1, Kind::Uninitialised, "ld.global", "ld.global.b32 %r10, [%rd3];");
    refused(
        32,
        Kind::Uninitialised,
        "st.global",
        "setp.lt.u32 %p1, %r0, 9; @%p1 mov.b32 %r10, 1; \nst.global.b32 [%rd3], %r10;",
    );
}

#[test]
fn addresses_outside_and_between() {
    refused(1, Kind::OutOfBounds, "ld", "ld.global.b32 %r10, [%rd1+4096];");
    refused(1, Kind::OutOfBounds, "ld", "ld.global.b32 %r10, [%rd1+-4];");
    refused(1, Kind::Misaligned, "ld", "ld.global.v4.b32 {%r10, %r11, %r12, %r13}, [%rd1+8];");
    refused(1, Kind::OutOfBounds, "st", "st.shared.b32 [%r5+32768], %r0;");
    refused(1, Kind::Misaligned, "st", "st.shared.b64 [%r5+4], %rd1;");
}

#[test]
fn what_a_target_lacks_is_refused() {
    let old = |body: &str| Module::parse(&text(body).replace("sm_90a", "sm_80")).err();
    let kind = |body: &str| old(body).map(|fault| fault.kind);
    assert_eq!(kind("elect.sync %r10|%p1, -1;"), Some(Kind::Text));
    assert_eq!(kind("griddepcontrol.wait;"), Some(Kind::Text));
    assert_eq!(kind("wgmma.fence.sync.aligned;"), Some(Kind::Text));
    assert_eq!(kind("mbarrier.init.shared.b64 [%r5], 1;"), None);
}

#[test]
fn bytes_are_packed() {
    let out = run(
        1,
        "mov.b32 %r10, 300; mov.b32 %r11, -5; cvt.pack.sat.s8.s32.b32 %r12, %r10, %r11, 0;
         cvt.pack.sat.s8.s32.b32 %r12, %r11, %r10, %r12; st.global.b32 [%rd3], %r12;",
    );
    assert_eq!(out, [0x7ffb_fb7f]);
}

#[test]
fn tables_of_a_module_are_read() {
    let body = "and.b32 %r10, %r0, 3; mul.wide.u32 %rd10, %r10, 4; mov.b64 %rd11, table;
                add.s64 %rd10, %rd10, %rd11; ld.const.b32 %r11, [%rd10]; st.global.b32 [%rd3], %r11;";
    let with = |body: &str| {
        text(body)
            .replace(".visible", ".const .align 4 .b8 table[16] = {7, 0, 0, 0, 8, 1};\n.visible")
    };
    let setting = Setting::threads(4);
    assert_eq!(setting.run_text(&with(body)).unwrap(), [7, 264, 0, 0]);
    let beyond = with(&body.replace("and.b32 %r10, %r0, 3", "add.s32 %r10, %r0, 1"));
    assert_eq!(setting.run_text(&beyond).unwrap_err().kind, Kind::OutOfBounds);
}

#[test]
fn traps_stop() {
    refused(1, Kind::Trap, "trap", "trap;");
}
