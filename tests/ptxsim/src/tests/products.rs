//! Matrices in shared memory and the tensor cores.

use super::*;

#[test]
fn matrices_load_and_turn() {
    // Row r of the matrix holds halves 64·r + 0..8 of the input, which are 2·word's halves.
    let body = |turn: &str| {
        format!(
            "shl.b32 %r10, %r0, 4; cvt.u64.u32 %rd10, %r10; add.s64 %rd11, %rd1, %rd10;
             ld.global.v4.b32 {{%r20, %r21, %r22, %r23}}, [%rd11]; add.s32 %r11, %r5, %r10;
             st.shared.v4.b32 [%r11], {{%r20, %r21, %r22, %r23}}; bar.warp.sync -1;
             ldmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 {{%r30, %r31, %r32, %r33}}, [%r11];
             bar.warp.sync -1;
             stmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 [%r11], {{%r30, %r31, %r32, %r33}};
             bar.warp.sync -1; ld.shared.b32 %r24, [%r11+4]; sub.s32 %r25, %r24, %r21;
             add.s32 %r25, %r25, %r31; st.global.b32 [%rd3], %r25;"
        )
    };
    let unmet = body("").replace("bar.warp.sync -1; ld.shared", "ld.shared");
    refused(32, Kind::Race, "ld.shared", &unmet);
    let out = run(32, &body(""));
    let expected: Vec<u32> = (0..32).map(|lane| 32 + lane).collect();
    assert_eq!(out, expected, "matrix 1 begins at word 32, and storing undoes loading");
    let out = run(32, &body(".trans"));
    let half = |row: u32, column: u32| {
        if column.is_multiple_of(2) { 32 + 4 * row + column / 2 } else { 0 }
    };
    let expected: Vec<u32> = (0..32)
        .map(|lane| half(2 * (lane % 4), lane / 4) | half(2 * (lane % 4) + 1, lane / 4) << 16)
        .collect();
    assert_eq!(out, expected);
}

#[test]
fn a_product_of_small_integers_is_exact() {
    // A[i][k] = i, B[k][j] = 1: every sum is 16·i.
    let out = run(
        32,
        "shr.u32 %r10, %r1, 2; cvt.rn.f32.u32 %f1, %r10; add.f32 %f2, %f1, 0f41000000;
         cvt.rn.bf16x2.f32 %r11, %f1, %f1; cvt.rn.bf16x2.f32 %r12, %f2, %f2; mov.b32 %r13, 0x3f803f80;
         mov.f32 %f3, 0f00000000;
         mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f4, %f5, %f6, %f7},
           {%r11, %r12, %r11, %r12}, {%r13, %r13}, {%f3, %f3, %f3, %f3};
         sub.f32 %f6, %f6, %f5; mul.f32 %f6, %f6, 0f3f000000; add.f32 %f4, %f4, %f6;
         cvt.rzi.u32.f32 %r14, %f4; st.global.b32 [%rd3], %r14;",
    );
    let expected: Vec<u32> = (0..32).map(|lane| 16 * (lane / 4) + 64).collect();
    assert_eq!(out, expected);
}

#[test]
fn a_product_of_bytes_wraps_nowhere() {
    let out = run(
        32,
        "mov.b32 %r10, 0x80808080; mov.b32 %r11, 0x7f7f7f7f; mov.b32 %r12, 5;
         mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r20, %r21, %r22, %r23},
           {%r10, %r10, %r10, %r10}, {%r11, %r11}, {%r12, %r12, %r12, %r12};
         st.global.b32 [%rd3], %r23;",
    );
    assert_eq!(out, [(-128 * 127 * 32 + 5i32) as u32; 32]);
    refused(
        16,
        Kind::Divergence,
        "mma",
        "mov.b32 %r10, 0;\nmma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%r20, %r21, %r22, %r23}, \
         {%r10, %r10}, {%r10}, {%r10, %r10, %r10, %r10};",
    );
}
