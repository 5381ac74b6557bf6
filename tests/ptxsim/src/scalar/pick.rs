//! Lanes' bit instructions: fields, counts, permutations, funnel shifts, dot products of bytes.

use super::integer::Word;
use super::{Function, Scalar, take};

pub(super) fn find(verb: &str, flags: &mut Vec<&str>, ty: &str) -> Option<Scalar> {
    let bits64 = ty.ends_with("64");
    if !ty.ends_with("32") && !bits64 {
        return None;
    }
    let signed = ty.starts_with('s');
    let (function, sources): (Function, usize) = match verb {
        "popc" => ((|a, _, _| u64::from(a.count_ones())), 1),
        "clz" if bits64 => ((|a, _, _| u64::from(a.leading_zeros())), 1),
        "clz" => ((|a, _, _| u64::from((a as u32).leading_zeros())), 1),
        "brev" if bits64 => ((|a, _, _| a.reverse_bits()), 1),
        "brev" => ((|a, _, _| u64::from((a as u32).reverse_bits())), 1),
        "bfind" if !bits64 && !signed => {
            if take(flags, "shiftamt") {
                (
                    (|a, _, _| {
                        if a == 0 { 0xffff_ffff } else { u64::from((a as u32).leading_zeros()) }
                    }),
                    1,
                )
            } else {
                (
                    (|a, _, _| {
                        if a == 0 {
                            0xffff_ffff
                        } else {
                            u64::from(31 - (a as u32).leading_zeros())
                        }
                    }),
                    1,
                )
            }
        }
        "bfe" => (
            match (bits64, signed) {
                (false, false) => |a, b, c| field::<32, false>(a, b, c),
                (false, true) => |a, b, c| field::<32, true>(a, b, c),
                (true, false) => |a, b, c| field::<64, false>(a, b, c),
                (true, true) => |a, b, c| field::<64, true>(a, b, c),
            },
            3,
        ),
        "prmt" if !bits64 => (permute_by(flags), 3),
        "shf" if !bits64 => {
            let left = take(flags, "l");
            if !left && !take(flags, "r") {
                return None;
            }
            let wrap = take(flags, "wrap");
            if !wrap && !take(flags, "clamp") {
                return None;
            }
            let function: Function = match (left, wrap) {
                (true, true) => |a, b, c| funnel(a, b, c & 31, true),
                (true, false) => |a, b, c| funnel(a, b, (c & 0xffff_ffff).min(32), true),
                (false, true) => |a, b, c| funnel(a, b, c & 31, false),
                (false, false) => |a, b, c| funnel(a, b, (c & 0xffff_ffff).min(32), false),
            };
            (function, 3)
        }
        "dp4a" => {
            let first = take(flags, "s32");
            if !first && !take(flags, "u32") {
                return None;
            }
            let function: Function = match (first, signed) {
                (true, true) => |a, b, c| dot(a, b, c, true, true),
                (true, false) => |a, b, c| dot(a, b, c, true, false),
                (false, true) => |a, b, c| dot(a, b, c, false, true),
                (false, false) => |a, b, c| dot(a, b, c, false, false),
            };
            (function, 3)
        }
        "mul24" if take(flags, "lo") => (
            if signed {
                |a, b, _| low24(a, true).wrapping_mul(low24(b, true)).word()
            } else {
                |a, b, _| low24(a, false).wrapping_mul(low24(b, false)).word()
            },
            2,
        ),
        _ => return None,
    };
    Some(Scalar { function, sources })
}

fn low24(word: u64, signed: bool) -> i32 {
    let up = (word as i32) << 8;
    if signed { up >> 8 } else { ((up as u32) >> 8) as i32 }
}

/// `c` bits of `a` from bit `b` on; the sign of a signed field is its last bit inside the word.
fn field<const BITS: u32, const SIGNED: bool>(a: u64, b: u64, c: u64) -> u64 {
    let (from, len) = ((b & 255) as u32, (c & 255) as u32);
    let msb = BITS - 1;
    let sign_at = (from + len).saturating_sub(1).min(msb);
    let sign = SIGNED && len > 0 && (a >> sign_at) & 1 == 1;
    let mut out = 0;
    for bit in 0..BITS {
        let inside = bit < len && from + bit <= msb;
        let set = if inside { (a >> (from + bit)) & 1 == 1 } else { sign };
        out |= u64::from(set) << bit;
    }
    out
}

/// `len` low bits of `a` put into `b` from bit `from` on.
pub(crate) fn insert(a: u64, b: u64, from: u64, len: u64, bits: u32) -> u64 {
    let (from, len) = (from & 255, len & 255);
    let mut out = b;
    for bit in 0..len.min(u64::from(bits)) {
        if from + bit < u64::from(bits) {
            out = out & !(1 << (from + bit)) | ((a >> bit) & 1) << (from + bit);
        }
    }
    out
}

/// `lop3` with its table: bit by bit, the inputs choose a bit of `table`.
pub(crate) fn three_way(a: u64, b: u64, c: u64, table: u64) -> u64 {
    let mut out = 0;
    for row in 0..8 {
        if table >> row & 1 == 1 {
            let a = if row & 4 != 0 { a } else { !a };
            let b = if row & 2 != 0 { b } else { !b };
            let c = if row & 1 != 0 { c } else { !c };
            out |= a & b & c;
        }
    }
    out & 0xffff_ffff
}

fn permute_by(flags: &mut Vec<&str>) -> Function {
    for (mode, function) in MODES {
        if take(flags, mode) {
            return function;
        }
    }
    permute
}

fn permute(a: u64, b: u64, c: u64) -> u64 {
    let bytes = (a & 0xffff_ffff) | b << 32;
    let mut out = 0;
    for at in 0..4 {
        let pick = c >> (4 * at) & 15;
        let byte = (bytes >> (8 * (pick & 7))) as u8;
        let byte = if pick & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out |= u64::from(byte) << (8 * at);
    }
    out
}

const MODES: [(&str, Function); 6] = [
    ("f4e", |a, b, c| permute(a, b, [0x3210, 0x4321, 0x5432, 0x6543][c as usize & 3])),
    ("b4e", |a, b, c| permute(a, b, [0x5670, 0x6701, 0x7012, 0x0123][c as usize & 3])),
    ("rc8", |a, b, c| permute(a, b, [0x0000, 0x1111, 0x2222, 0x3333][c as usize & 3])),
    ("ecl", |a, b, c| permute(a, b, [0x3210, 0x3211, 0x3222, 0x3333][c as usize & 3])),
    ("ecr", |a, b, c| permute(a, b, [0x0000, 0x1110, 0x2210, 0x3210][c as usize & 3])),
    ("rc16", |a, b, c| permute(a, b, [0x1010, 0x3232, 0x1010, 0x3232][c as usize & 3])),
];

fn funnel(a: u64, b: u64, by: u64, left: bool) -> u64 {
    let both = (a & 0xffff_ffff) | b << 32;
    let shifted = if left { (u128::from(both) << by) >> 32 } else { u128::from(both) >> by };
    shifted as u64 & 0xffff_ffff
}

fn dot(a: u64, b: u64, c: u64, a_signed: bool, b_signed: bool) -> u64 {
    let byte = |word: u64, at: u32, signed: bool| {
        let byte = (word >> (8 * at)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    let products = (0..4).map(|at| byte(a, at, a_signed) * byte(b, at, b_signed));
    products.fold(c as i32, i32::wrapping_add).word()
}
