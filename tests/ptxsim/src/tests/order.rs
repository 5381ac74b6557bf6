//! Barriers, and the races that come of their absence.

use super::*;

/// Each thread writes its word of shared memory and reads its mirror image's.
fn mirrored(between: &str) -> String {
    format!(
        "shl.b32 %r10, %r0, 2; add.s32 %r11, %r5, %r10; st.shared.b32 [%r11], %r0;
         {between}
         sub.s32 %r12, %r3, %r0; shl.b32 %r12, %r12, 2; add.s32 %r12, %r12, %r5;
         ld.shared.b32 %r13, [%r12+-4]; \nst.global.b32 [%rd3], %r13;"
    )
}

#[test]
fn a_barrier_orders_a_block_and_its_absence_is_a_race() {
    let out = run(128, &mirrored("bar.sync 0;"));
    assert_eq!(out, (0..128).rev().collect::<Vec<u32>>());
    unordered(128, &mirrored(""));
}

#[test]
fn a_meeting_of_the_warp_orders_one_warp_only() {
    assert_eq!(run(32, &mirrored("bar.warp.sync -1;"))[0], 31);
    unordered(32, &mirrored(""));
    unordered(64, &mirrored("bar.warp.sync -1;"));
}

#[test]
fn writing_what_others_still_read_is_a_race() {
    let body = |between: &str| {
        format!("{}\n{between}\nst.shared.b32 [%r11], %r13;", mirrored("bar.sync 0;"))
    };
    run(64, &body("bar.sync 0;"));
    refused(64, Kind::Race, "", &body(""));
}

#[test]
fn two_writers_of_a_byte() {
    refused(64, Kind::Race, "st.shared", "st.shared.b32 [%r5], %r0;");
    refused(64, Kind::Race, "st.global", "st.global.b32 [%rd2], %r0;");
    // Neighbouring halves of a word are no race.
    run(
        64,
        "shl.b32 %r10, %r0, 1; add.s32 %r10, %r10, %r5; st.shared.b16 [%r10], 1;
             st.global.b32 [%rd3], 0;",
    );
    // But a byte of them is.
    refused(
        64,
        Kind::Race,
        "st.shared",
        "shl.b32 %r10, %r0, 1; and.b32 %r10, %r10, -4;
             add.s32 %r10, %r10, %r5;\nst.shared.b16 [%r10+2], 1;",
    );
}

#[test]
fn named_barriers_order_those_who_come() {
    // Warp 0 produces, warps 1 and 2 consume; warp 3 has nothing to do with it.
    let body = |arrive: &str, sync: &str| {
        format!(
            "shr.u32 %r20, %r0, 5; setp.eq.u32 %p1, %r20, 3; @%p1 bra $end;
             setp.ne.u32 %p2, %r20, 0; shl.b32 %r10, %r1, 2; add.s32 %r10, %r10, %r5;
             @%p2 bra $consume; st.shared.b32 [%r10], %r0; {arrive} bra $end;
             $consume: {sync}
             ld.shared.b32 %r13, [%r10]; \nst.global.b32 [%rd3], %r13; $end:"
        )
    };
    let out = Setting::threads(128).run(&body("bar.arrive 1, 96;", "bar.sync 1, 96;"));
    assert_eq!(out.unwrap()[63], 31);
    refused(128, Kind::Deadlock, "ld.shared", &body("", "bar.sync 1, 96;"));
    refused(128, Kind::Barrier, "bar.", &body("bar.arrive 1, 64;", "bar.sync 1, 96;"));
    refused(128, Kind::Barrier, "bar.sync", &body("bar.arrive 1, 96;", "bar.sync 1, 100;"));
    let unread = "bar.arrive 2, 64; st.global.b32 [%rd3], 0;";
    assert_eq!(Setting::threads(96).run(unread).unwrap_err().kind, Kind::Barrier);
}

#[test]
fn a_barrier_that_not_all_reach() {
    let fault = refused(
        64,
        Kind::Deadlock,
        "",
        "setp.ge.u32 %p1, %r0, 32; @%p1 bra $end; bar.sync 0; $end:",
    );
    assert!(fault.sentence.contains("32 of 64"), "{fault}");
}

#[test]
fn global_words_are_ordered_by_barriers_too() {
    let body = |between: &str| {
        format!(
            "st.global.b32 [%rd3], %r0; {between} xor.b32 %r10, %r0, 33; mul.wide.u32 %rd10, %r10, 4;
             add.s64 %rd10, %rd2, %rd10; ld.global.b32 %r11, [%rd10]; bar.sync 0;
             \nst.global.b32 [%rd3], %r11;"
        )
    };
    assert_eq!(run(64, &body("bar.sync 0;"))[0], 33);
    unordered(64, &body(""));
}

#[test]
fn one_who_reads_what_all_have_read_may_write_it_behind_a_barrier() {
    let body = |between: &str| {
        format!(
            "st.global.b32 [%rd3], %r0; bar.sync 0; ld.global.b32 %r11, [%rd2]; {between}
             setp.ne.u32 %p1, %r0, 0; @%p1 bra $end; ld.global.b32 %r12, [%rd2];
             add.s32 %r12, %r12, 7; \nst.global.b32 [%rd2], %r12; $end:"
        )
    };
    assert_eq!(run(96, &body("bar.sync 0;"))[..2], [7, 1]);
    refused(96, Kind::Race, "st.global", &body(""));
}

#[test]
fn atomics_in_shared_memory() {
    let out = run(
        64,
        "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [%r5], 0; bar.sync 0;
         atom.shared.add.u32 %r10, [%r5], 2; bar.sync 0; ld.shared.b32 %r11, [%r5];
         st.global.b32 [%rd3], %r11;",
    );
    assert_eq!(out, [128; 64]);
    refused(
        64,
        Kind::Race,
        "atom",
        "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [%r5], 0;\natom.shared.add.u32 %r10, [%r5], 2;",
    );
}
