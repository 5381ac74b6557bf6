//! `cp.async`: what is under way is nobody's.

use super::*;

fn copied(commit: &str, wait: &str, then: &str) -> String {
    format!(
        "shl.b32 %r10, %r0, 4; cvt.u64.u32 %rd10, %r10; add.s64 %rd11, %rd1, %rd10;
         add.s32 %r11, %r5, %r10; cp.async.cg.shared.global [%r11], [%rd11], 16; {commit} {wait} {then}
         xor.b32 %r12, %r0, 37; shl.b32 %r12, %r12, 4; add.s32 %r12, %r12, %r5;
         ld.shared.b32 %r13, [%r12]; \nst.global.b32 [%rd3], %r13;"
    )
}

#[test]
fn copies_are_there_after_the_wait_and_the_barrier() {
    let out = run(64, &copied("cp.async.commit_group;", "cp.async.wait_group 0;", "bar.sync 0;"));
    assert_eq!(out[1], (1 ^ 37) * 4);
    run(64, &copied("", "cp.async.wait_all;", "bar.sync 0;"));
    let commit = "cp.async.commit_group;";
    refused(64, Kind::InFlight, "ld.shared", &copied(commit, "", "bar.sync 0;"));
    refused(
        64,
        Kind::InFlight,
        "ld.shared",
        &copied(commit, "cp.async.wait_group 1;", "bar.sync 0;"),
    );
    refused(64, Kind::InFlight, "ld.shared", &copied("", "cp.async.wait_group 0;", "bar.sync 0;"));
    unordered(64, &copied(commit, "cp.async.wait_group 0;", ""));
}

#[test]
fn short_sources_are_filled_with_zeros() {
    let out = run(
        1,
        "cp.async.cg.shared.global [%r5], [%rd1+16], 16, 4; cp.async.wait_all;
         ld.shared.v4.b32 {%r10, %r11, %r12, %r13}, [%r5]; mad.lo.s32 %r10, %r11, 1000, %r10;
         st.global.b32 [%rd3], %r10;",
    );
    assert_eq!(out, [4]);
    refused(1, Kind::OutOfBounds, "cp.async", "cp.async.ca.shared.global [%r5], [%rd1+4096], 4;");
    refused(1, Kind::InFlight, "ret", "cp.async.ca.shared.global [%r5], [%rd1], 4;\n");
}
