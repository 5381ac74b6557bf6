//! Branches: threads come apart and meet again.

use super::*;

#[test]
fn ways_join_and_loops_end_each_at_its_time() {
    let out = run(
        32,
        "mov.b32 %r10, 0; mov.b32 %r11, 0;
         $loop: add.s32 %r10, %r10, %r11; add.s32 %r11, %r11, 1;
         setp.le.u32 %p1, %r11, %r0; @%p1 bra $loop;
         shfl.sync.bfly.b32 %r12|%p2, %r10, 1, 31, -1;
         st.global.b32 [%rd3], %r12;",
    );
    let expected: Vec<u32> = (0..32u32)
        .map(|t| {
            let t = t ^ 1;
            t * (t + 1) / 2
        })
        .collect();
    assert_eq!(out, expected);
}

#[test]
fn a_way_placed_after_the_join_still_comes_first() {
    let out = run(
        32,
        "setp.lt.u32 %p1, %r0, 5; mov.b32 %r10, 1; @%p1 bra $away;
         $join: vote.sync.ballot.b32 %r11, %p1, -1; add.s32 %r11, %r11, %r10;
         st.global.b32 [%rd3], %r11; ret;
         $away: mov.b32 %r10, 100; bra $join;",
    );
    assert_eq!(out[0], 31 + 100);
    assert_eq!(out[6], 31 + 1);
}

#[test]
fn branches_by_table_join_too() {
    let body = |last: u32| {
        format!(
            "and.b32 %r10, %r0, {last}; $table: .branchtargets $a, $b, $c; mov.b32 %r11, 0;
             brx.idx %r10, $table; $a: mov.b32 %r11, 10; bra.uni $end; $b: mov.b32 %r11, 20;
             bra.uni $end; $c: mov.b32 %r11, 30; $end: vote.sync.ballot.b32 %r12, %p1, -1;
             st.global.b32 [%rd3], %r11;"
        )
    };
    let vote = "setp.eq.u32 %p1, %r0, 0; ";
    assert_eq!(run(32, &format!("{vote}{}", body(2)))[..4], [10, 10, 30, 30]);
    refused(32, Kind::Operand, "brx", &format!("{vote}{}", body(3)));
}

#[test]
fn threads_that_left_are_not_waited_for() {
    let out = Setting { out_words: 64, ..Setting::threads(64) }.run(
        "setp.ge.u32 %p1, %r0, 40; @%p1 bra $end; mov.b32 %r10, 1;
         st.global.b32 [%rd3], %r10; $end: ret;",
    );
    assert_eq!(out.unwrap().iter().sum::<u32>(), 40);
}

#[test]
fn apart_where_all_must_be_together() {
    refused(
        32,
        Kind::Divergence,
        "bar.sync",
        "setp.lt.u32 %p1, %r0, 5; @%p1 bra $end;\nbar.sync 0;\n$end:",
    );
    refused(
        32,
        Kind::Divergence,
        "shfl",
        "setp.lt.u32 %p1, %r0, 5; @%p1 bra $end;\nshfl.sync.idx.b32 %r10, %r0, 0, 31, -1;\n$end:",
    );
    refused(
        32,
        Kind::Divergence,
        "shfl",
        "setp.lt.u32 %p1, %r0, 5; @%p1 bra $end;\nshfl.sync.idx.b32 %r10, %r0, 0, 31, 0xffffffe0;\n$end:",
    );
}

#[test]
fn a_kernel_without_end_is_stopped() {
    refused(1, Kind::Budget, "", "$again: bra $again;");
}

#[test]
fn exchanges_between_lanes() {
    let out = run(
        32,
        "shfl.sync.down.b32 %r10, %r0, 4, 31, -1; shfl.sync.up.b32 %r11, %r0, 1, 0, -1;
         redux.sync.max.u32 %r12, %r0, -1; mad.lo.s32 %r10, %r11, 100, %r10;
         mad.lo.s32 %r10, %r12, 10000, %r10; st.global.b32 [%rd3], %r10;",
    );
    assert_eq!(out[0], 310_000 + 4);
    assert_eq!(out[31], 310_000 + 3000 + 31);
    let out = run(
        32,
        "shr.u32 %r10, %r0, 3; match.any.sync.b32 %r11, %r10, -1; elect.sync %r12|%p1, -1;
         selp.b32 %r13, 1, 0, %p1; xor.b32 %r11, %r11, %r13; st.global.b32 [%rd3], %r11;",
    );
    assert_eq!((out[0], out[9]), (0xfe, 0xff00));
}
