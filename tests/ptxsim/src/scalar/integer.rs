//! Integer arithmetic and comparison of lanes.

use super::{Function, Relation, Scalar, take};

/// A machine integer as the low bits of a word.
pub(super) trait Word: Copy {
    fn word(self) -> u64;
    fn of(word: u64) -> Self;
}

macro_rules! words {
    ($($signed:ty, $unsigned:ty);*) => { $(
        impl Word for $signed {
            fn word(self) -> u64 { u64::from(self as $unsigned) }
            fn of(word: u64) -> Self { word as $signed }
        }
        impl Word for $unsigned {
            fn word(self) -> u64 { u64::from(self) }
            fn of(word: u64) -> Self { word as $unsigned }
        }
    )* };
}
words!(i8, u8; i16, u16; i32, u32; i64, u64);

macro_rules! typed {
    ($ty:expr, $t:ident, $as:ty, $f:expr) => {
        match $ty {
            "s16" => {
                type $t = i16;
                Some($f as $as)
            }
            "u16" | "b16" => {
                type $t = u16;
                Some($f as $as)
            }
            "s32" => {
                type $t = i32;
                Some($f as $as)
            }
            "u32" | "b32" => {
                type $t = u32;
                Some($f as $as)
            }
            "s64" => {
                type $t = i64;
                Some($f as $as)
            }
            "u64" | "b64" => {
                type $t = u64;
                Some($f as $as)
            }
            _ => None,
        }
    };
}

/// Two 16-bit integers in a word.
pub(super) fn pair(verb: &str, ty: &str) -> Option<Scalar> {
    let function: Function = match (verb, ty) {
        ("add", _) => |a, b, _| halves(a, b, u16::wrapping_add),
        ("min", "u16x2") => |a, b, _| halves(a, b, u16::min),
        ("max", "u16x2") => |a, b, _| halves(a, b, u16::max),
        ("min", "s16x2") => |a, b, _| halves(a, b, |a, b| (a as i16).min(b as i16) as u16),
        ("max", "s16x2") => |a, b, _| halves(a, b, |a, b| (a as i16).max(b as i16) as u16),
        _ => return None,
    };
    Some(Scalar { function, sources: 2 })
}

fn halves(a: u64, b: u64, f: fn(u16, u16) -> u16) -> u64 {
    u64::from(f(a as u16, b as u16)) | u64::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// `cvt.pack`: two words as bytes, clamped, before the lower half of a third.
pub(crate) fn pack_bytes(signed: bool) -> Function {
    if signed {
        |a, b, c| {
            let byte = |word: u64| u64::from((word as i32).clamp(-128, 127) as u8);
            byte(a) << 8 | byte(b) | (c & 0xffff) << 16
        }
    } else {
        |a, b, c| {
            let byte = |word: u64| u64::from((word as i32).clamp(0, 255) as u8);
            byte(a) << 8 | byte(b) | (c & 0xffff) << 16
        }
    }
}

pub(super) fn find(verb: &str, flags: &mut Vec<&str>, ty: &str) -> Option<Scalar> {
    let wide = take(flags, "wide");
    let high = take(flags, "hi");
    let low = take(flags, "lo");
    let saturating = take(flags, "sat");
    if saturating && !matches!((verb, ty), ("add" | "sub", "s32")) {
        return None;
    }
    let (function, sources) = match verb {
        "mul" | "mad" if wide => (widening(ty)?, 2 + usize::from(verb == "mad")),
        "mul" | "mad" if high => (upper(ty)?, 2 + usize::from(verb == "mad")),
        "mul" if low => {
            (typed!(ty, T, Function, |a, b, _| T::of(a).wrapping_mul(T::of(b)).word())?, 2)
        }
        "mad" if low => (
            typed!(ty, T, Function, |a, b, c| {
                T::of(a).wrapping_mul(T::of(b)).wrapping_add(T::of(c)).word()
            })?,
            3,
        ),
        _ if wide || high || low => return None,
        "add" if saturating => {
            ((|a, b, _| i32::of(a).saturating_add(i32::of(b)).word()) as Function, 2)
        }
        "sub" if saturating => {
            ((|a, b, _| i32::of(a).saturating_sub(i32::of(b)).word()) as Function, 2)
        }
        "div" | "rem" => (quotient(verb, ty)?, 2),
        _ => simple(verb, ty)?,
    };
    Some(Scalar { function, sources })
}

fn simple(verb: &str, ty: &str) -> Option<(Function, usize)> {
    Some(match verb {
        "add" => (typed!(ty, T, Function, |a, b, _| T::of(a).wrapping_add(T::of(b)).word())?, 2),
        "sub" => (typed!(ty, T, Function, |a, b, _| T::of(a).wrapping_sub(T::of(b)).word())?, 2),
        "min" => (typed!(ty, T, Function, |a, b, _| T::of(a).min(T::of(b)).word())?, 2),
        "max" => (typed!(ty, T, Function, |a, b, _| T::of(a).max(T::of(b)).word())?, 2),
        "neg" => (typed!(ty, T, Function, |a, _, _| T::of(0).wrapping_sub(T::of(a)).word())?, 1),
        "abs" => match ty {
            "s16" => ((|a, _, _| i16::of(a).wrapping_abs().word()) as Function, 1),
            "s32" => ((|a, _, _| i32::of(a).wrapping_abs().word()) as Function, 1),
            "s64" => ((|a, _, _| i64::of(a).wrapping_abs().word()) as Function, 1),
            _ => return None,
        },
        "sad" => (
            typed!(ty, T, Function, |a, b, c| {
                let (a, b) = (T::of(a), T::of(b));
                T::of(c).wrapping_add(a.max(b).wrapping_sub(a.min(b))).word()
            })?,
            3,
        ),
        "and" => (typed!(ty, T, Function, |a, b, _| (T::of(a) & T::of(b)).word())?, 2),
        "or" => (typed!(ty, T, Function, |a, b, _| (T::of(a) | T::of(b)).word())?, 2),
        "xor" => (typed!(ty, T, Function, |a, b, _| (T::of(a) ^ T::of(b)).word())?, 2),
        "not" => (typed!(ty, T, Function, |a, _, _| (!T::of(a)).word())?, 1),
        "cnot" => (typed!(ty, T, Function, |a, _, _| u64::from(T::of(a) == 0))?, 1),
        "shl" => (
            typed!(ty, T, Function, |a, b, _| {
                T::of(a).checked_shl(b as u32).unwrap_or(0).word()
            })?,
            2,
        ),
        "shr" => (
            typed!(ty, T, Function, |a, b, _| {
                // Beyond the width a sign fills everything, as it does after two halves.
                let (by, bits) = (b as u32, T::BITS);
                let by = if by >= bits { bits - 1 } else { by };
                let once = T::of(a) >> by;
                (if b as u32 >= bits { once >> 1u32 } else { once }).word()
            })?,
            2,
        ),
        "mov" => (typed!(ty, T, Function, |a, _, _| T::of(a).word())?, 1),
        _ => return None,
    })
}

fn quotient(verb: &str, ty: &str) -> Option<Function> {
    // Division by zero has no value in PTX; all ones is what hardware gives.
    if verb == "div" {
        typed!(ty, T, Function, |a, b, _| {
            let zero = T::of(b) == 0;
            if zero { T::of(u64::MAX).word() } else { T::of(a).wrapping_div(T::of(b)).word() }
        })
    } else {
        typed!(ty, T, Function, |a, b, _| {
            if T::of(b) == 0 { T::of(a).word() } else { T::of(a).wrapping_rem(T::of(b)).word() }
        })
    }
}

/// The addend comes third; `mul` has none, and its third source is zero.
fn widening(ty: &str) -> Option<Function> {
    Some(match ty {
        "s16" => {
            |a, b, c| (i32::from(a as i16) * i32::from(b as i16)).wrapping_add(c as i32).word()
        }
        "u16" => {
            |a, b, c| (u32::from(a as u16) * u32::from(b as u16)).wrapping_add(c as u32).word()
        }
        "s32" => {
            |a, b, c| (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64).word()
        }
        "u32" => |a, b, c| (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c),
        _ => return None,
    })
}

fn upper(ty: &str) -> Option<Function> {
    Some(match ty {
        "s32" => |a, b, c| {
            let high = (i64::from(a as i32) * i64::from(b as i32)) >> 32;
            (high as i32).wrapping_add(c as i32).word()
        },
        "u32" => |a, b, c| {
            let high = (u64::from(a as u32) * u64::from(b as u32)) >> 32;
            (high as u32).wrapping_add(c as u32).word()
        },
        "s64" => |a, b, c| {
            let high = (i128::from(a as i64) * i128::from(b as i64)) >> 64;
            (high as i64).wrapping_add(c as i64).word()
        },
        "u64" => |a, b, c| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c),
        "u16" => |a, b, c| {
            let high = (u32::from(a as u16) * u32::from(b as u16)) >> 16;
            (high as u16).wrapping_add(c as u16).word()
        },
        "s16" => |a, b, c| {
            let high = (i32::from(a as i16) * i32::from(b as i16)) >> 16;
            (high as i16).wrapping_add(c as i16).word()
        },
        _ => return None,
    })
}

pub(super) fn relation(compare: &str, ty: &str) -> Option<Relation> {
    let ordered = match compare {
        "lo" => "lt",
        "ls" => "le",
        "hi" => "gt",
        "hs" => "ge",
        other => other,
    };
    match ordered {
        "eq" => typed!(ty, T, Relation, |a, b| T::of(a) == T::of(b)),
        "ne" => typed!(ty, T, Relation, |a, b| T::of(a) != T::of(b)),
        "lt" => typed!(ty, T, Relation, |a, b| T::of(a) < T::of(b)),
        "le" => typed!(ty, T, Relation, |a, b| T::of(a) <= T::of(b)),
        "gt" => typed!(ty, T, Relation, |a, b| T::of(a) > T::of(b)),
        "ge" => typed!(ty, T, Relation, |a, b| T::of(a) >= T::of(b)),
        _ => None,
    }
}
