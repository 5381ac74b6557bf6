//! Kernels that lack one ordering instruction are noticed.

use super::*;
use crate::mutants;

/// Run `body` as it is, then each mutant of it: all must stop with a fault or store something else.
fn all_noticed(setting: &Setting, body: &str) -> usize {
    let right = setting.run(body).unwrap_or_else(|fault| panic!("{fault}"));
    let found = mutants(&text(body)).unwrap();
    for mutant in &found {
        let result = setting.run_text(&mutant.text);
        assert!(
            result.as_ref() != Ok(&right),
            "nobody misses `{}` of line {}",
            mutant.instruction,
            mutant.line
        );
    }
    found.len()
}

#[test]
fn of_a_double_buffer_of_copies() {
    let body = "shl.b32 %r10, %r0, 4; cvt.u64.u32 %rd10, %r10; add.s64 %rd11, %rd1, %rd10;
        add.s32 %r11, %r5, %r10; xor.b32 %r12, %r10, 528; add.s32 %r12, %r12, %r5; mov.b32 %r20, 0;
        mov.b32 %r21, 0; cp.async.cg.shared.global [%r11], [%rd11], 16; cp.async.commit_group;
        $loop: add.s64 %rd11, %rd11, 1024; xor.b32 %r13, %r20, 1; and.b32 %r13, %r13, 1;
        shl.b32 %r13, %r13, 10; add.s32 %r14, %r13, %r11; setp.lt.u32 %p1, %r20, 3;
        @%p1 cp.async.cg.shared.global [%r14], [%rd11], 16; cp.async.commit_group;
        cp.async.wait_group 1; bar.sync 0; and.b32 %r15, %r20, 1; shl.b32 %r15, %r15, 10;
        add.s32 %r15, %r15, %r12; ld.shared.b32 %r16, [%r15]; add.s32 %r21, %r21, %r16;
        bar.sync 0; add.s32 %r20, %r20, 1; setp.lt.u32 %p2, %r20, 4; @%p2 bra $loop;
        st.global.b32 [%rd3], %r21;";
    assert_eq!(all_noticed(&Setting::threads(64), body), 5);
}

#[test]
fn of_a_pipeline_with_barriers_in_shared_memory() {
    let body = "add.s32 %r6, %r5, 16384; setp.eq.u32 %p1, %r0, 0; mov.b32 %r20, 0; mov.b32 %r22, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r6], 1; @%p1 mbarrier.init.shared::cta.b64 [%r6+8], 2;
        @%p1 fence.mbarrier_init.release.cluster; bar.sync 0; setp.lt.u32 %p3, %r0, 64; @%p3 bra $consume;
        setp.ne.u32 %p4, %r0, 64; @%p4 bra $end;
        $produce: xor.b32 %r21, %r20, 1; and.b32 %r21, %r21, 1;
        $empty: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6+8], %r21; @!%p2 bra $empty;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 256;
        mul.wide.u32 %rd10, %r20, 256; add.s64 %rd10, %rd10, %rd1;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd10], 256, [%r6];
        add.s32 %r20, %r20, 1; setp.lt.u32 %p5, %r20, 5; @%p5 bra $produce; bra $end;
        $consume: and.b32 %r21, %r20, 1; setp.eq.u32 %p6, %r1, 0;
        $full: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], %r21; @!%p2 bra $full;
        shl.b32 %r12, %r0, 2; add.s32 %r12, %r12, %r5; ld.shared.b32 %r13, [%r12];
        add.s32 %r22, %r22, %r13; bar.warp.sync -1; @%p6 mbarrier.arrive.shared::cta.b64 _, [%r6+8];
        add.s32 %r20, %r20, 1; setp.lt.u32 %p5, %r20, 5; @%p5 bra $consume;
        st.global.b32 [%rd3], %r22; $end:";
    assert_eq!(all_noticed(&Setting::threads(96), body), 8);
}

#[test]
fn of_a_kernel_that_starts_early() {
    let setting = Setting { programmatic: true, ..Setting::threads(32) };
    let body = "griddepcontrol.launch_dependents; ld.global.b32 %r10, [%rd1]; griddepcontrol.wait;
                st.global.b32 [%rd3], %r10;";
    setting.run(body).unwrap();
    let late = body.replace("griddepcontrol.wait;", "");
    refused_in(&setting, Kind::Race, "st.global", &late);
}

#[test]
fn of_kernels_that_follow_each_other_early() {
    let text = text(
        "griddepcontrol.launch_dependents; ld.global.b32 %r10, [%rd2]; griddepcontrol.wait;
                     add.s32 %r10, %r10, 1; st.global.b32 [%rd2], %r10;",
    );
    let module = Module::parse(&text).unwrap();
    let mut device = Device::new();
    let word = device.alloc(4);
    device.write(word, &[0; 4]).unwrap();
    let mut params = [word, word].map(u64::to_le_bytes).concat();
    params.resize(64 + 128, 0);
    let options = Options { programmatic: true, ..Options::default() };
    let launch =
        Launch { grid: [1; 3], block: [1; 3], dynamic_shared: 0, params: &params, options };
    module.launch(&device, "k", &launch).unwrap();
    let fault = module.launch(&device, "k", &launch).expect_err("the first may not have ended");
    assert_eq!(fault.kind, Kind::Race, "{fault}");
    // A copy between the two, or a kernel that starts after the first has ended.
    device.settle();
    module.launch(&device, "k", &launch).unwrap();
    let late = Launch { options: Options::default(), ..launch.clone() };
    module.launch(&device, "k", &late).unwrap();
    assert!(module.launch(&device, "k", &launch).is_err(), "the one before it may not have ended");
}

#[test]
fn of_a_kernel_that_never_waits_for_those_before() {
    let setting = Setting { programmatic: true, ..Setting::threads(32) };
    let body = "griddepcontrol.launch_dependents; setp.lt.u32 %p1, %r0, 99; @%p1 bra $end;
                griddepcontrol.wait; $end:";
    refused_in(&setting, Kind::Race, "", body);
}
