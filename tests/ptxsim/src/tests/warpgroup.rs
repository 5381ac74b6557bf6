//! `wgmma`: layouts of shared memory, sums under way, fences.

use super::*;

/// Where byte `inner` of row `row` lies, counted from the matrix's start; leading and stride offsets and
/// the mode of its descriptor. Written from the manual's pictures, not from the code under test.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Plain,
    Swizzled(u64),
    TurnedPlain,
    Turned(u64),
    /// A left side in registers: each thread's four words, thread by thread.
    Registers,
}

impl Layout {
    fn place(self, row: u64, inner: u64) -> u64 {
        match self {
            // Pieces of 8 rows by 16 bytes, one after the other along the inner dimension.
            Self::Plain => row / 8 * 256 + inner / 16 * 128 + row % 8 * 16 + inner % 16,
            Self::Swizzled(span) => swizzled(span, row, inner),
            Self::TurnedPlain => {
                let (k, column) = (inner / 2, row * 2 + inner % 2);
                column / 16 * 256 + k / 8 * 128 + k % 8 * 16 + column % 16
            }
            // Rows along `k`, `span` bytes of columns each; the next columns after all of them.
            Self::Turned(span) => {
                let (k, column) = (inner / 2, row * 2 + inner % 2);
                column / span * (16 * span) + swizzled(span, k, column % span)
            }
            // Word 0 holds the first 8 rows of a warp's 16, word 1 the others; words 2 and 3 the same
            // rows 16 bytes further.
            Self::Registers => {
                let thread = row / 16 * 32 + row % 8 * 4 + inner % 16 / 4;
                let word = row % 16 / 8 + inner / 16 * 2;
                16 * thread + 4 * word + inner % 4
            }
        }
    }

    fn descriptor(self) -> u64 {
        let (leading, stride, mode) = match self {
            Self::Plain => (128, 256, 0u64),
            Self::Swizzled(span) => (16, 8 * span, mode(span)),
            Self::TurnedPlain => (128, 256, 0),
            Self::Turned(span) => (16 * span, 8 * span, mode(span)),
            Self::Registers => return 0,
        };
        (leading >> 4) << 16 | (stride >> 4) << 32 | mode << 62
    }
}

fn mode(span: u64) -> u64 {
    8 - u64::from(span.ilog2())
}

fn swizzled(span: u64, row: u64, inner: u64) -> u64 {
    let line = row * span + inner;
    let pieces = span / 16;
    let turn = (line / 128) % pieces;
    line / span * span + ((line % span / 16) ^ turn) * 16 + line % 16
}

/// Values of the matrices: small, different, exact.
fn value(row: u64, k: u64, seed: u64) -> i64 {
    ((row * 7 + k * 13 + seed) % 11) as i64 - 5
}

fn bf16(value: i64) -> [u8; 2] {
    ((value as f32).to_bits() >> 16).to_le_bytes()[..2].try_into().unwrap()
}

fn matrix(out: &mut [u8], start: u64, layout: Layout, rows: u64, element: u64, seed: u64) {
    for row in 0..rows {
        for k in 0..32 / element {
            let value = value(row, k, seed);
            let bytes = if element == 2 { bf16(value).to_vec() } else { vec![value as u8] };
            for (at, byte) in bytes.iter().enumerate() {
                out[(start + layout.place(row, k * element + at as u64)) as usize] = *byte;
            }
        }
    }
}

struct Case {
    left: Layout,
    right: Layout,
    n: u64,
    element: u64,
}

const FENCE: &str = "wgmma.fence.sync.aligned;";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

/// Load both matrices, multiply, and store all sums of the group.
fn body(case: &Case, proxy: &str, fence: &str, commit: &str, wait: &str) -> String {
    let sums = case.n / 2;
    let float = case.element == 2;
    let names: Vec<String> = (0..sums).map(|at| format!("%s{at}")).collect();
    let list = names.join(", ");
    let in_registers = matches!(case.left, Layout::Registers);
    let (kind, turns) = if float {
        let turned = |layout| u32::from(matches!(layout, Layout::Turned(_) | Layout::TurnedPlain));
        let right = turned(case.right);
        let turns = match in_registers {
            true => format!(", 1, 1, {right}"),
            false => format!(", 1, 1, {}, {right}", turned(case.left)),
        };
        ("k16.f32.bf16.bf16", turns)
    } else {
        ("k32.s32.s8.s8", String::new())
    };
    let clear: String = names.iter().map(|name| format!("mov.b32 {name}, 0; ")).collect();
    let store: String = names
        .iter()
        .enumerate()
        .map(|(at, name)| format!("st.global.b32 [%rd20+{}], {name};\n", 512 * at))
        .collect();
    format!(
        ".reg .b32 %s<{sums}>; {clear} mov.b32 %r10, 0;
         $fill: shl.b32 %r11, %r0, 4; add.s32 %r11, %r11, %r10; cvt.u64.u32 %rd10, %r11;
         add.s64 %rd11, %rd1, %rd10; ld.global.v4.b32 {{%r20, %r21, %r22, %r23}}, [%rd11];
         add.s32 %r12, %r11, %r5; st.shared.v4.b32 [%r12], {{%r20, %r21, %r22, %r23}};
         add.s32 %r10, %r10, 2048; setp.lt.u32 %p1, %r10, 32768; @%p1 bra $fill;
         {proxy} bar.sync 0; shr.u32 %r13, %r5, 4; cvt.u64.u32 %rd12, %r13;
         or.b64 %rd13, %rd12, {left}; or.b64 %rd14, %rd12, {right}; add.s64 %rd14, %rd14, 1024;
         mul.wide.u32 %rd15, %r0, 16; add.s64 %rd15, %rd1, %rd15;
         ld.global.v4.b32 {{%r30, %r31, %r32, %r33}}, [%rd15];
         setp.eq.u32 %p2, %r10, 0; {fence}
         wgmma.mma_async.sync.aligned.m64n{n}{kind} {{{list}}}, {a}, %rd14, %p2{turns};
         {commit} {wait}
         mul.wide.u32 %rd20, %r0, 4; add.s64 %rd20, %rd20, %rd2;\n{store}",
        a = if in_registers { "{%r30, %r31, %r32, %r33}" } else { "%rd13" },
        left = case.left.descriptor(),
        right = case.right.descriptor(),
        n = case.n,
    )
}

fn setting(case: &Case) -> Setting {
    let mut input = vec![0; 32768];
    matrix(&mut input, 0, case.left, 64, case.element, 1);
    matrix(&mut input, 16384, case.right, case.n, case.element, 4);
    Setting { input, out_words: 128 * case.n as usize / 2, ..Setting::threads(128) }
}

fn check(case: &Case) {
    let proxy = "fence.proxy.async.shared::cta;";
    let out = setting(case).run(&body(case, proxy, FENCE, COMMIT, WAIT));
    let out = out.unwrap_or_else(|fault| panic!("{fault}"));
    for thread in 0..128 {
        for sum in 0..case.n / 2 {
            let row = thread / 32 * 16 + thread % 32 / 4 + 8 * (sum / 2 % 2);
            let column = sum / 4 * 8 + 2 * (thread % 4) + sum % 2;
            let inner = 32 / case.element;
            let exact: i64 = (0..inner).map(|k| value(row, k, 1) * value(column, k, 4)).sum();
            let bits = out[(sum * 128 + thread) as usize];
            let found = if case.element == 2 {
                f32::from_bits(bits) as i64
            } else {
                i64::from(bits as i32)
            };
            assert_eq!(
                found, exact,
                "row {row}, column {column} of {:?} {:?}",
                case.left, case.right
            );
        }
    }
}

#[test]
fn every_layout_gives_the_product() {
    let straight =
        [Layout::Plain, Layout::Swizzled(32), Layout::Swizzled(64), Layout::Swizzled(128)];
    let turned = [Layout::TurnedPlain, Layout::Turned(32), Layout::Turned(64), Layout::Turned(128)];
    for (left, right) in straight.into_iter().zip(turned) {
        check(&Case { left, right, n: 64, element: 2 });
        check(&Case { left: right, right: left, n: 64, element: 2 });
        check(&Case { left, right: left, n: 48, element: 1 });
    }
    check(&Case { left: Layout::Swizzled(128), right: Layout::Swizzled(128), n: 8, element: 2 });
    check(&Case { left: Layout::Swizzled(128), right: Layout::Swizzled(128), n: 128, element: 2 });
}

/// A product of bytes as one of `e4m3`, and its sums.
fn eights(case: &Case, input: Vec<u8>) -> Vec<f32> {
    let body = body(case, "fence.proxy.async.shared::cta;", FENCE, COMMIT, WAIT);
    let body = body.replace("k32.s32.s8.s8", "k32.f32.e4m3.e4m3").replace(", %p2;", ", %p2, 1, 1;");
    let setting = Setting { input, ..setting(case) };
    let out = setting.run(&body).unwrap_or_else(|fault| panic!("{fault}"));
    out.into_iter().map(f32::from_bits).collect()
}

#[test]
fn eight_bits_with_a_point_give_the_product() {
    let case = Case { left: Layout::Swizzled(128), right: Layout::Swizzled(64), n: 48, element: 1 };
    let Setting { mut input, .. } = setting(&case);
    for byte in &mut input {
        let value = (*byte).cast_signed();
        let size = [0, 0x38, 0x40, 0x44, 0x48, 0x4a][usize::from(value.unsigned_abs())];
        *byte = size | (*byte & 0x80);
    }
    let out = eights(&case, input);
    for (at, found) in out.iter().enumerate() {
        let (sum, thread) = (at as u64 / 128, at as u64 % 128);
        let row = thread / 32 * 16 + thread % 32 / 4 + 8 * (sum / 2 % 2);
        let column = sum / 4 * 8 + 2 * (thread % 4) + sum % 2;
        let exact: i64 = (0..32).map(|k| value(row, k, 1) * value(column, k, 4)).sum();
        assert_eq!(*found as i64, exact, "row {row}, column {column}");
    }
}

#[test]
fn sums_of_eight_bits_with_a_point_keep_thirteen_below_the_largest() {
    let case = Case { left: Layout::Plain, right: Layout::Plain, n: 8, element: 1 };
    // 448 x 448 begins at 2^17; beside it the product of `small` by 1 is kept or lost.
    let sum = |small: u8| {
        let mut input = vec![0; 32768];
        for (start, rows, second) in [(0, 64, small), (16384, 8, 0x38)] {
            for row in 0..rows {
                input[start + Layout::Plain.place(row, 0) as usize] = 0x7e;
                input[start + Layout::Plain.place(row, 1) as usize] = second;
            }
        }
        let out = eights(&case, input);
        assert!(out.iter().all(|sum| *sum == out[0]));
        out[0]
    };
    let [four, sixteen] = [0x48, 0x58];
    assert_eq!(sum(four), 200_704.0);
    assert_eq!(sum(sixteen), 200_720.0);
}

#[test]
fn a_left_side_in_registers_gives_the_product() {
    for right in [Layout::Swizzled(128), Layout::Turned(128), Layout::TurnedPlain] {
        check(&Case { left: Layout::Registers, right, n: 128, element: 2 });
    }
    check(&Case { left: Layout::Registers, right: Layout::Swizzled(128), n: 64, element: 1 });
}

#[test]
fn a_left_side_in_registers_is_fenced_and_left_alone() {
    let case = Case { left: Layout::Registers, right: Layout::Turned(128), n: 64, element: 2 };
    let proxy = "fence.proxy.async.shared::cta;";
    let refuse = |kind, at: &str, body: String| {
        refused_in(&setting(&case), kind, at, &body);
    };
    refuse(Kind::Proxy, "wgmma.mma", body(&case, proxy, "", COMMIT, WAIT));
    refuse(Kind::InFlight, "mov.b32", body(&case, proxy, FENCE, "mov.b32 %r30, 0;", WAIT));
    let early = format!("{COMMIT} mov.b32 %r33, 0;");
    refuse(Kind::InFlight, "mov.b32", body(&case, proxy, FENCE, &early, WAIT));
    // One number too many: which side is turned is said of the right one alone.
    let odd = body(&case, proxy, FENCE, COMMIT, WAIT).replace("%p2, 1, 1, 1", "%p2, 1, 1, 0, 1");
    refuse(Kind::Text, "wgmma.mma", odd);
}

#[test]
fn the_places_of_a_turned_matrix_are_those_of_its_descriptor() {
    // What is along the columns follows the leading offset, what is along `k` the stride: a matrix laid
    // out for one is not read with the other's.
    let right = Layout::Turned(128);
    let case = Case { left: Layout::Registers, right, n: 128, element: 2 };
    let proxy = "fence.proxy.async.shared::cta;";
    let bits = right.descriptor();
    let (leading, stride) = (bits >> 16 & 0x3fff, bits >> 32 & 0x3fff);
    let swapped = bits & !(0x3fff << 16 | 0x3fff << 32) | stride << 16 | leading << 32;
    let right_body = body(&case, proxy, FENCE, COMMIT, WAIT);
    let swapped = right_body.replace(&bits.to_string(), &swapped.to_string());
    assert_ne!(right_body, swapped);
    let run = |body: &str| setting(&case).run(body).unwrap_or_else(|fault| panic!("{fault}"));
    assert_ne!(run(&right_body), run(&swapped));
}

#[test]
fn fences_and_waits_are_needed() {
    let layout = Layout::Swizzled(128);
    let case = Case { left: layout, right: layout, n: 16, element: 2 };
    let proxy = "fence.proxy.async.shared::cta;";
    let refuse = |kind, at: &str, body: String| {
        refused_in(&setting(&case), kind, at, &body);
    };
    refuse(Kind::Proxy, "wgmma.mma", body(&case, "", FENCE, COMMIT, WAIT));
    refuse(Kind::InFlight, "st.global", body(&case, proxy, FENCE, COMMIT, ""));
    refuse(Kind::InFlight, "st.global", body(&case, proxy, FENCE, "", WAIT));
    // Sums that are added to must be fenced; `%p2` is false only in the first kernel.
    refuse(Kind::Proxy, "wgmma.mma", body(&case, proxy, "", COMMIT, WAIT));
    // So must the first product, though nobody wrote a register that it uses.
    let unused = |fence| {
        let body = body(&case, proxy, fence, COMMIT, WAIT);
        let (before, rest) = body.split_once("mov.b32 %s0").expect("sums are cleared first");
        let (_, rest) = rest.split_once("mov.b32 %r10, 0;").expect("then a counter is");
        format!("{before} mov.b32 %r10, 0;{rest}")
    };
    refuse(Kind::Proxy, "wgmma.mma", unused(""));
    assert!(setting(&case).run(&unused(FENCE)).is_ok());
    // A warp writes to the left matrix, where nobody says that others read, as soon as its own has been.
    let early =
        format!("{WAIT} shl.b32 %r50, %r0, 4; add.s32 %r50, %r50, %r5; st.shared.b32 [%r50], 0;");
    refuse(Kind::Race, "", body(&case, proxy, FENCE, COMMIT, &early));
    let met = early.replace(WAIT, &format!("{WAIT} bar.sync 0;"));
    assert!(setting(&case).run(&body(&case, proxy, FENCE, COMMIT, &met)).is_ok());
    let odd = body(&case, proxy, FENCE, COMMIT, WAIT).replace("m64n16", "m64n12");
    refuse(Kind::Text, "wgmma.mma", odd);
}
