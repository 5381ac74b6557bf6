//! f16 and bf16 arithmetic of lanes, alone and in pairs: computed exactly, rounded once.

use super::formats::{BF16, F16, Format, Round, add_to_odd};
use super::{Function, Scalar, take};

trait Half {
    const FORMAT: Format;
}
struct Brain;
struct Ieee;
impl Half for Brain {
    const FORMAT: Format = BF16;
}
impl Half for Ieee {
    const FORMAT: Format = F16;
}

fn value<H: Half>(bits: u64) -> f64 {
    H::FORMAT.value(bits & 0xffff)
}

fn bits<H: Half>(x: f64) -> u64 {
    H::FORMAT.bits(H::FORMAT.round(x, Round::Near))
}

/// One function for one half, and the same for a pair of them.
macro_rules! lanes {
    ($pair:expr, $h:ident, $f:expr) => {
        if $pair {
            (|a, b, c| {
                let f: Function = $f;
                f(a & 0xffff, b & 0xffff, c & 0xffff)
                    | f(a >> 16 & 0xffff, b >> 16 & 0xffff, c >> 16 & 0xffff) << 16
            }) as Function
        } else {
            $f as Function
        }
    };
}

pub(super) fn find(verb: &str, flags: &mut Vec<&str>, ty: &str) -> Option<Scalar> {
    let pair = ty.ends_with("x2");
    if ty.starts_with('b') {
        named::<Brain>(verb, flags, pair)
    } else {
        named::<Ieee>(verb, flags, pair)
    }
}

fn named<H: Half>(verb: &str, flags: &mut Vec<&str>, pair: bool) -> Option<Scalar> {
    take(flags, "rn");
    take(flags, "approx");
    if verb == "ex2" {
        // Of f16 and bf16 the results are too large to be flushed.
        take(flags, "ftz");
    }
    let nan = take(flags, "NaN");
    let relu = take(flags, "relu");
    let (function, sources) = match verb {
        "add" => {
            (lanes!(pair, H, |a, b, _| bits::<H>(add_to_odd(value::<H>(a), value::<H>(b)))), 2)
        }
        "sub" => {
            (lanes!(pair, H, |a, b, _| bits::<H>(add_to_odd(value::<H>(a), -value::<H>(b)))), 2)
        }
        "mul" => (lanes!(pair, H, |a, b, _| bits::<H>(value::<H>(a) * value::<H>(b))), 2),
        "fma" if relu => (
            lanes!(pair, H, |a, b, c| bits::<H>(
                add_to_odd(value::<H>(a) * value::<H>(b), value::<H>(c)).max(0.0)
            )),
            3,
        ),
        "fma" => (
            lanes!(pair, H, |a, b, c| bits::<H>(add_to_odd(
                value::<H>(a) * value::<H>(b),
                value::<H>(c)
            ))),
            3,
        ),
        "min" if !nan => {
            (lanes!(pair, H, |a, b, _| bits::<H>(value::<H>(a).min(value::<H>(b)))), 2)
        }
        "max" if !nan => {
            (lanes!(pair, H, |a, b, _| bits::<H>(value::<H>(a).max(value::<H>(b)))), 2)
        }
        "min" => (
            lanes!(pair, H, |a, b, _| bits::<H>(strict(value::<H>(a), value::<H>(b), f64::min))),
            2,
        ),
        "max" => (
            lanes!(pair, H, |a, b, _| bits::<H>(strict(value::<H>(a), value::<H>(b), f64::max))),
            2,
        ),
        "neg" => (lanes!(pair, H, |a, _, _| a & 0xffff ^ 0x8000), 1),
        "abs" => (lanes!(pair, H, |a, _, _| a & 0x7fff), 1),
        "ex2" => (lanes!(pair, H, |a, _, _| bits::<H>(value::<H>(a).exp2())), 1),
        "tanh" => (lanes!(pair, H, |a, _, _| bits::<H>(value::<H>(a).tanh())), 1),
        "mov" if !pair => (lanes!(false, H, |a, _, _| a & 0xffff), 1),
        _ => return None,
    };
    (!relu || verb == "fma").then_some(Scalar { function, sources })
}

fn strict(a: f64, b: f64, pick: fn(f64, f64) -> f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) }
}
