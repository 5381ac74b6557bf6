//! Blocks beside each other: races between them, and the words through which they talk.

use super::*;

fn grid(blocks: u32, out_words: usize) -> Setting {
    Setting { grid: blocks, out_words, ..Setting::threads(32) }
}

#[test]
fn blocks_that_share_nothing() {
    let out = grid(200, 6400).run("st.global.b32 [%rd3], %r4;").unwrap();
    assert_eq!(out, (0..6400).collect::<Vec<u32>>());
}

#[test]
fn blocks_that_meet_in_a_word() {
    refused_in(&grid(2, 64), Kind::Race, "st.global", "st.global.b32 [%rd2], 1;");
    // Every block reads what block 0 writes.
    let body = "setp.ne.u32 %p1, %r2, 0; @%p1 bra $read; st.global.b32 [%rd3], 1; ret;
                $read: ld.global.b32 %r10, [%rd2];";
    let fault = grid(2, 64).run(body).unwrap_err();
    assert!([Kind::Race, Kind::Uninitialised].contains(&fault.kind), "{fault}");
}

/// The last block to count itself adds what all wrote.
fn last_adds(fence: &str, second_fence: &str) -> String {
    format!(
        "setp.ne.u32 %p1, %r0, 0; @%p1 bra $end; mul.wide.u32 %rd10, %r2, 4; add.s64 %rd10, %rd2, %rd10;
         add.s32 %r10, %r2, 5; st.global.b32 [%rd10+4], %r10; {fence}
         atom.global.add.u32 %r11, [%rd1], 1; {second_fence}
         setp.ne.u32 %p2, %r11, 2; @%p2 bra $end;
         ld.global.b32 %r12, [%rd2+4]; \nld.global.b32 %r13, [%rd2+8]; ld.global.b32 %r14, [%rd2+12];
         add.s32 %r12, %r12, %r13; add.s32 %r12, %r12, %r14; st.global.b32 [%rd2], %r12; $end:"
    )
}

#[test]
fn the_last_block_may_read_what_all_have_published() {
    let out = grid(3, 4).run(&last_adds("fence.acq_rel.gpu;", "fence.acq_rel.gpu;")).unwrap();
    assert_eq!(out[0], 18);
    refused_in(&grid(3, 4), Kind::Race, "ld.global", &last_adds("", "fence.acq_rel.gpu;"));
    refused_in(&grid(3, 4), Kind::Race, "ld.global", &last_adds("fence.acq_rel.gpu;", ""));
}

#[test]
fn a_block_may_wait_for_a_later_one() {
    let body = |release: &str| {
        format!(
            "setp.ne.u32 %p1, %r0, 0; @%p1 bra $end; setp.eq.u32 %p2, %r2, 0; @%p2 bra $wait;
             st.global.b32 [%rd2+4], 9; red.{release}.gpu.global.add.u32 [%rd1], 1; bra $end;
             $wait: ld.acquire.gpu.global.u32 %r10, [%rd1]; setp.eq.u32 %p3, %r10, 0; @%p3 bra $wait;
             ld.global.b32 %r11, [%rd2+4]; \nst.global.b32 [%rd2], %r11; $end:"
        )
    };
    assert_eq!(grid(2, 2).run(&body("release")).unwrap()[0], 9);
    refused_in(&grid(2, 2), Kind::Race, "ld.global", &body("relaxed"));
    let alone =
        "$wait: ld.acquire.gpu.global.u32 %r10, [%rd1]; setp.eq.u32 %p3, %r10, 0; @%p3 bra $wait;";
    assert_eq!(grid(2, 2).run(alone).unwrap_err().kind, Kind::Deadlock);
}
