//! Barriers in shared memory and the copies that complete them.

use super::*;
use crate::{Swizzle, TensorMap};

/// `tile` begins at 0; the barrier is at 16384.
const INIT: &str = "add.s32 %r6, %r5, 16384; setp.eq.u32 %p1, %r0, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r6], 1;";
const FENCE: &str = "fence.mbarrier_init.release.cluster;";
const EXPECT: &str = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 256;";
const WAIT: &str =
    "$wait: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], 0; @!%p2 bra $wait;";

fn copied(fence: &str, sync: &str, expect: &str, wait: &str) -> String {
    format!(
        "{INIT} {fence} {sync} {expect}
         @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd1], 256, [%r6];
         {wait}
         xor.b32 %r12, %r0, 37; shl.b32 %r12, %r12, 2; add.s32 %r12, %r12, %r5;
         ld.shared.b32 %r13, [%r12]; \nst.global.b32 [%rd3], %r13;"
    )
}

#[test]
fn a_copy_is_there_when_its_phase_has_ended() {
    let out = run(64, &copied(FENCE, "bar.sync 0;", EXPECT, WAIT));
    assert_eq!(out[1], 1 ^ 37);
    run(64, &copied("fence.proxy.async;", "bar.sync 0;", EXPECT, WAIT));
}

#[test]
fn nothing_of_it_may_be_missing() {
    refused(64, Kind::Proxy, "cp.async.bulk", &copied("", "bar.sync 0;", EXPECT, WAIT));
    // A fence that comes some time, and of which who asks for the copy knows nothing.
    let copier = "setp.eq.u32 %p1, %r0, 32; @!%p1 fence.proxy.async;";
    let late = format!("bar.sync 0; {copier}");
    refused(64, Kind::Proxy, "cp.async.bulk", &copied("", &late, EXPECT, WAIT));
    run(64, &copied(FENCE, &late, EXPECT, WAIT));
    let known = format!("bar.sync 0; {copier} bar.sync 0;");
    run(64, &copied("", &known, EXPECT, WAIT));
    unordered(64, &copied(FENCE, "bar.sync 0;", EXPECT, ""));
    refused(64, Kind::Deadlock, "", &copied(FENCE, "bar.sync 0;", "", WAIT));
    let arrive = "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r6];";
    unordered(64, &copied(FENCE, "bar.sync 0;", arrive, WAIT));
    let more = EXPECT.replace("256", "272");
    refused(64, Kind::Deadlock, "", &copied(FENCE, "bar.sync 0;", &more, WAIT));
    refused(64, Kind::Barrier, "", &copied(FENCE, "bar.sync 0;", &more, "bar.sync 0; ret;"));
    let twice = format!("{arrive}\n{arrive}");
    refused(
        64,
        Kind::Barrier,
        "",
        &format!("{INIT} {FENCE} bar.sync 0; @%p1 mbarrier.arrive.shared::cta.b64 _, [%r6], 2;"),
    );
    run(64, &format!("{INIT} {FENCE} bar.sync 0; {twice}"));
    let fault = Setting::threads(64).run(&copied(FENCE, "", EXPECT, WAIT)).unwrap_err();
    assert!([Kind::Race, Kind::Uninitialised].contains(&fault.kind), "{fault}");
}

/// A producer thread refills one stage `rounds` times; 64 consumers read it.
fn pipeline(wait_full: &str, wait_empty: &str, arrive: &str) -> String {
    format!(
        "add.s32 %r6, %r5, 16384; setp.eq.u32 %p1, %r0, 0; mov.b32 %r20, 0; mov.b32 %r22, 0;
         @%p1 mbarrier.init.shared::cta.b64 [%r6], 1; @%p1 mbarrier.init.shared::cta.b64 [%r6+8], 64;
         {FENCE} bar.sync 0; setp.lt.u32 %p3, %r0, 64; @%p3 bra $consume;
         setp.ne.u32 %p4, %r0, 64; @%p4 bra $end;
         $produce: xor.b32 %r21, %r20, 1; and.b32 %r21, %r21, 1;
         $empty: {wait_empty} mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 256;
         mul.wide.u32 %rd10, %r20, 256; add.s64 %rd10, %rd10, %rd1;
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd10], 256, [%r6];
         add.s32 %r20, %r20, 1; setp.lt.u32 %p5, %r20, 5; @%p5 bra $produce; bra $end;
         $consume: and.b32 %r21, %r20, 1;
         $full: {wait_full} shl.b32 %r12, %r0, 2; add.s32 %r12, %r12, %r5; ld.shared.b32 %r13, [%r12];
         add.s32 %r22, %r22, %r13; {arrive}
         add.s32 %r20, %r20, 1; setp.lt.u32 %p5, %r20, 5; @%p5 bra $consume;
         st.global.b32 [%rd3], %r22; $end:"
    )
}

#[test]
fn a_ring_of_one_stage() {
    let full = "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], %r21; @!%p2 bra $full;";
    let empty = "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6+8], %r21; @!%p2 bra $empty;";
    let arrive = "mbarrier.arrive.shared::cta.b64 _, [%r6+8];";
    let out = run(96, &pipeline(full, empty, arrive));
    assert_eq!(out[3], (0..5).map(|round| 64 * round + 3).sum::<u32>());
    unordered(96, &pipeline("", empty, arrive));
    let fault = Setting::threads(96).run(&pipeline(full, "", arrive)).unwrap_err();
    assert!([Kind::Race, Kind::InFlight, Kind::Barrier].contains(&fault.kind), "{fault}");
    refused(96, Kind::Deadlock, "", &pipeline(full, empty, ""));
}

fn map(input: u64, swizzle: Swizzle, box_dims: [u32; 2]) -> [u8; 128] {
    let map = TensorMap {
        base: input,
        element: 4,
        dims: vec![40, 20],
        strides: vec![160],
        box_dims: box_dims.to_vec(),
        swizzle,
    };
    map.encode().unwrap()
}

/// The first allocation of a device: what `Setting::run` gives the input.
fn first() -> u64 {
    Device::new().alloc(1)
}

#[test]
fn boxes_swizzle_and_are_zero_outside() {
    let body = format!(
        "{INIT} {FENCE} bar.sync 0; @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], BYTES;
         mov.b64 %rd10, k_map; cvta.param.u64 %rd11, %rd10; mov.b32 %r20, 16; mov.b32 %r21, -1;
         @%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
           [%r5], [%rd11, {{%r20, %r21}}], [%r6];
         {WAIT} shl.b32 %r12, %r0, 2; add.s32 %r12, %r12, %r5; ld.shared.b32 %r13, [%r12];
         \nst.global.b32 [%rd3], %r13;"
    );
    let setting = |swizzle, width: u32| Setting {
        map: map(first(), swizzle, [width, 8]),
        ..Setting::threads(8 * width)
    };
    // Bits of the row that a piece's number is turned by, and lines of 128 bytes that turn alike.
    let ways = [
        (Swizzle::None, 16, 0, 1),
        (Swizzle::Bytes32, 8, 1, 4),
        (Swizzle::Bytes64, 16, 3, 2),
        (Swizzle::Bytes128, 32, 7, 1),
    ];
    for (swizzle, width, bits, alike) in ways {
        let body = body.replace("BYTES", &(8 * width * 4).to_string());
        let out = setting(swizzle, width).run(&body).unwrap();
        for (at, word) in out.iter().enumerate() {
            let (row, inside) = (at / width as usize, at % 4);
            let piece = at % width as usize / 4;
            let column = 16 + 4 * (piece ^ ((row / alike) & bits)) + inside;
            let value = if row == 0 || column >= 40 { 0 } else { 40 * (row - 1) + column };
            assert_eq!(*word, value as u32, "word {at} of {swizzle:?}");
        }
    }
    let setting = setting(Swizzle::Bytes128, 32);
    let small = body.replace("BYTES", "512");
    assert_eq!(setting.run(&small).unwrap_err().kind, Kind::Deadlock);
    let map = TensorMap::decode(&setting.map).unwrap();
    let wide = TensorMap { dims: vec![40, 30], ..map };
    let beyond = Setting { map: wide.encode().unwrap(), ..Setting::threads(256) };
    let body = body.replace("BYTES", "1024").replace("%r21, -1", "%r21, 25");
    assert_eq!(beyond.run(&body).unwrap_err().kind, Kind::OutOfBounds, "the map promises too much");
}

fn stored(fence: &str, sync: &str, commit: &str, wait: &str) -> String {
    format!(
        "setp.eq.u32 %p1, %r0, 0; shl.b32 %r12, %r0, 2; add.s32 %r12, %r12, %r5;
         st.shared.b32 [%r12], %r0; {fence} {sync}
         @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r5], 256; {commit} {wait}
         \nret;"
    )
}

#[test]
fn what_threads_wrote_is_stored_in_bulk() {
    let commit = "cp.async.bulk.commit_group;";
    let wait = "cp.async.bulk.wait_group.read 0;";
    let out = run(64, &stored("fence.proxy.async.shared::cta;", "bar.sync 0;", commit, wait));
    assert_eq!(out, (0..64).collect::<Vec<u32>>());
    refused(64, Kind::Proxy, "cp.async.bulk", &stored("", "bar.sync 0;", commit, wait));
    unordered(64, &stored("fence.proxy.async.shared::cta;", "", commit, wait));
    let fence = "fence.proxy.async.shared::cta;";
    refused(64, Kind::InFlight, "ret", &stored(fence, "bar.sync 0;", commit, ""));
    refused(64, Kind::InFlight, "ret", &stored(fence, "bar.sync 0;", "", wait));
    let again = format!("{wait} @%p1 st.shared.b32 [%r5], 7;");
    run(64, &stored(fence, "bar.sync 0;", commit, &again));
    let again = format!("\n@%p1 st.shared.b32 [%r5], 7; {wait}");
    refused(64, Kind::Race, "st.shared", &stored(fence, "bar.sync 0;", commit, &again));
}

#[test]
fn one_thread_may_wait_for_all() {
    let body = |sync: &str| {
        format!(
            "{INIT} {FENCE} bar.sync 0; {EXPECT}
             @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd1], 256, [%r6];
             @!%p1 bra $read; {WAIT} $read: {sync} shl.b32 %r12, %r0, 2; add.s32 %r12, %r12, %r5;
             ld.shared.b32 %r13, [%r12]; st.global.b32 [%rd3], %r13;"
        )
    };
    assert_eq!(run(64, &body("bar.sync 0;"))[63], 63);
    assert_eq!(run(32, &body("bar.warp.sync -1;"))[31], 31);
    unordered(32, &body(""));
    unordered(64, &body("bar.warp.sync -1;"));
}

#[test]
fn clusters_read_each_other_and_share_copies() {
    let setting = Setting { grid: 2, cluster: 2, out_words: 128, ..Setting::threads(64) };
    let barrier = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";
    let body_until = |sync: &str, last: &str| {
        format!(
            "mov.u32 %r20, %cluster_ctarank; xor.b32 %r21, %r20, 1; shl.b32 %r12, %r0, 2;
             add.s32 %r12, %r12, %r5; st.shared.b32 [%r12], %r4; {sync}
             mapa.shared::cluster.u32 %r13, %r12, %r21; ld.shared::cluster.b32 %r14, [%r13];
             \nst.global.b32 [%rd3], %r14; {last}"
        )
    };
    let body = |sync: &str| body_until(sync, barrier);
    let out = setting.run(&body(barrier)).unwrap();
    assert_eq!((out[0], out[64]), (64, 0));
    let fault = setting.run(&body("")).unwrap_err();
    assert!([Kind::Race, Kind::Uninitialised].contains(&fault.kind), "{fault}");
    // Who leaves takes its memory along, whether others come too late or nothing says when they were there.
    let arrive = barrier.split_once(' ').expect("it arrives and waits").0;
    for last in ["", arrive] {
        refused_in(&setting, Kind::Race, "", &body_until(barrier, last));
    }
    let wait = barrier.split_once(' ').expect("it arrives and waits").1;
    refused_in(&setting, Kind::Barrier, "cluster.arrive", &body(&format!("{arrive}\n{barrier}")));
    refused_in(&setting, Kind::Barrier, "cluster.wait", &body(&format!("{barrier}\n{wait}")));
    let shared = format!(
        "{INIT} {FENCE} {barrier} {EXPECT} mov.u32 %r20, %cluster_ctarank; setp.eq.and.u32 %p4, %r20, 0, %p1;
         mov.b16 %rs1, 3; @%p4 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
           [%r5], [%rd1], 256, [%r6], %rs1;
         {WAIT} shl.b32 %r12, %r0, 2; add.s32 %r12, %r12, %r5; ld.shared.b32 %r13, [%r12];
         st.global.b32 [%rd3], %r13; {barrier}"
    );
    let out = setting.run(&shared).unwrap();
    assert_eq!((out[5], out[64 + 5]), (5, 5));
    let remote = format!(
        "add.s32 %r6, %r5, 16384; setp.eq.u32 %p1, %r0, 0; @%p1 mbarrier.init.shared::cta.b64 [%r6], 2;
         {FENCE} {barrier} mov.b32 %r20, 0; mapa.shared::cluster.u32 %r21, %r6, %r20;
         @%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r21]; mov.u32 %r22, %cluster_ctarank;
         setp.ne.u32 %p3, %r22, 0; @%p3 bra $done; {WAIT} $done: {barrier} st.global.b32 [%rd3], 1;"
    );
    assert_eq!(setting.run(&remote).unwrap()[127], 1);
}
