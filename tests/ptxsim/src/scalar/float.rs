//! f32 and f64 arithmetic of lanes. `.approx` functions are computed in f64 and rounded once: closer
//! to the true value than hardware, which may be off by 1 or 2 units in the last place.

use super::formats::{BF16, F16};
use super::{Function, Relation, Scalar, take};

fn single(word: u64) -> f32 {
    f32::from_bits(word as u32)
}

/// Bits of a result: every NaN is the one that hardware gives.
fn word(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { u64::from(x.to_bits()) }
}

fn flush<const Z: bool>(x: f32) -> f32 {
    if Z && x.is_subnormal() { 0f32.copysign(x) } else { x }
}

fn of<const Z: bool>(x: u64) -> f32 {
    flush::<Z>(single(x))
}

fn out<const Z: bool>(x: f32) -> u64 {
    word(flush::<Z>(x))
}

fn wide<const Z: bool>(x: u64, f: fn(f64) -> f64) -> u64 {
    out::<Z>(f(f64::from(of::<Z>(x))) as f32)
}

fn smaller(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    }
}

fn larger(a: f32, b: f32) -> f32 {
    -smaller(-a, -b)
}

fn with_nan(a: f32, b: f32, pick: fn(f32, f32) -> f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { pick(a, b) }
}

pub(super) fn find(verb: &str, flags: &mut Vec<&str>, ty: &str) -> Option<Scalar> {
    if ty == "f64" {
        return double(verb, flags);
    }
    let ftz = take(flags, "ftz");
    if take(flags, "sat") {
        let (function, sources) = match (verb, take(flags, "rn")) {
            ("add", _) => ((|a, b, _| saturate(single(a) + single(b))) as Function, 2),
            ("mul", _) => ((|a, b, _| saturate(single(a) * single(b))) as Function, 2),
            ("fma", true) => {
                ((|a, b, c| saturate(single(a).mul_add(single(b), single(c)))) as Function, 3)
            }
            _ => return None,
        };
        return (!ftz).then_some(Scalar { function, sources });
    }
    let approx = take(flags, "approx") | take(flags, "full");
    let nan = take(flags, "NaN");
    let near = take(flags, "rn");
    if approx
        && !matches!(
            verb,
            "div" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh"
        )
        || nan && !matches!(verb, "min" | "max")
        || near && matches!(verb, "min" | "max" | "abs" | "neg" | "mov" | "rsqrt" | "ex2" | "lg2")
        || !near && !approx && matches!(verb, "div" | "rcp" | "sqrt" | "fma")
    {
        return None;
    }
    let (function, sources) =
        if ftz { named::<true>(verb, nan) } else { named::<false>(verb, nan) }?;
    Some(Scalar { function, sources })
}

fn saturate(x: f32) -> u64 {
    if x.is_nan() { 0 } else { word(x.clamp(0.0, 1.0)) }
}

fn named<const Z: bool>(verb: &str, nan: bool) -> Option<(Function, usize)> {
    Some(match verb {
        "add" => (|a, b, _| out::<Z>(of::<Z>(a) + of::<Z>(b)), 2),
        "sub" => (|a, b, _| out::<Z>(of::<Z>(a) - of::<Z>(b)), 2),
        "mul" => (|a, b, _| out::<Z>(of::<Z>(a) * of::<Z>(b)), 2),
        "fma" | "mad" => (|a, b, c| out::<Z>(of::<Z>(a).mul_add(of::<Z>(b), of::<Z>(c))), 3),
        "div" => (|a, b, _| out::<Z>(of::<Z>(a) / of::<Z>(b)), 2),
        "min" if nan => (|a, b, _| out::<Z>(with_nan(of::<Z>(a), of::<Z>(b), smaller)), 2),
        "max" if nan => (|a, b, _| out::<Z>(with_nan(of::<Z>(a), of::<Z>(b), larger)), 2),
        "min" => (|a, b, _| out::<Z>(smaller(of::<Z>(a), of::<Z>(b))), 2),
        "max" => (|a, b, _| out::<Z>(larger(of::<Z>(a), of::<Z>(b))), 2),
        "abs" => (|a, _, _| u64::from(of::<Z>(a).abs().to_bits()), 1),
        "neg" => (|a, _, _| u64::from((-of::<Z>(a)).to_bits()), 1),
        "mov" => (|a, _, _| a & 0xffff_ffff, 1),
        "copysign" => (|a, b, _| u64::from(single(b).copysign(single(a)).to_bits()), 2),
        "rcp" => (|a, _, _| out::<Z>(1.0 / of::<Z>(a)), 1),
        "sqrt" => (|a, _, _| out::<Z>(of::<Z>(a).sqrt()), 1),
        "rsqrt" => (|a, _, _| wide::<Z>(a, |x| 1.0 / x.sqrt()), 1),
        "ex2" => (|a, _, _| wide::<Z>(a, f64::exp2), 1),
        "lg2" => (|a, _, _| wide::<Z>(a, f64::log2), 1),
        "sin" => (|a, _, _| wide::<Z>(a, f64::sin), 1),
        "cos" => (|a, _, _| wide::<Z>(a, f64::cos), 1),
        "tanh" => (|a, _, _| wide::<Z>(a, f64::tanh), 1),
        _ => return None,
    })
}

fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

fn double(verb: &str, flags: &mut Vec<&str>) -> Option<Scalar> {
    take(flags, "rn");
    let (function, sources): (Function, usize) = match verb {
        "add" => (|a, b, _| (d(a) + d(b)).to_bits(), 2),
        "sub" => (|a, b, _| (d(a) - d(b)).to_bits(), 2),
        "mul" => (|a, b, _| (d(a) * d(b)).to_bits(), 2),
        "fma" => (|a, b, c| d(a).mul_add(d(b), d(c)).to_bits(), 3),
        "div" => (|a, b, _| (d(a) / d(b)).to_bits(), 2),
        "rcp" => (|a, _, _| (1.0 / d(a)).to_bits(), 1),
        "sqrt" => (|a, _, _| d(a).sqrt().to_bits(), 1),
        "min" => (|a, b, _| d(a).min(d(b)).to_bits(), 2),
        "max" => (|a, b, _| d(a).max(d(b)).to_bits(), 2),
        "abs" => (|a, _, _| d(a).abs().to_bits(), 1),
        "neg" => (|a, _, _| (-d(a)).to_bits(), 1),
        "mov" => (|a, _, _| a, 1),
        "copysign" => (|a, b, _| d(b).copysign(d(a)).to_bits(), 2),
        _ => return None,
    };
    Some(Scalar { function, sources })
}

macro_rules! compared {
    ($compare:expr, $value:expr) => {
        match $compare {
            "eq" => Some((|a, b| $value(a) == $value(b)) as Relation),
            "ne" => Some(|a, b| $value(a) < $value(b) || $value(a) > $value(b)),
            "lt" => Some(|a, b| $value(a) < $value(b)),
            "le" => Some(|a, b| $value(a) <= $value(b)),
            "gt" => Some(|a, b| $value(a) > $value(b)),
            "ge" => Some(|a, b| $value(a) >= $value(b)),
            "equ" => Some(|a, b| !($value(a) < $value(b) || $value(a) > $value(b))),
            "neu" => Some(|a, b| !($value(a) == $value(b))),
            "ltu" => Some(|a, b| !($value(a) >= $value(b))),
            "leu" => Some(|a, b| !($value(a) > $value(b))),
            "gtu" => Some(|a, b| !($value(a) <= $value(b))),
            "geu" => Some(|a, b| !($value(a) < $value(b))),
            "num" => Some(|a, b| !$value(a).is_nan() && !$value(b).is_nan()),
            "nan" => Some(|a, b| $value(a).is_nan() || $value(b).is_nan()),
            _ => None,
        }
    };
}

#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "unordered comparisons are what is meant")]
pub(super) fn relation(compare: &str, ty: &str) -> Option<Relation> {
    match ty {
        "f32" => compared!(compare, single),
        "f64" => compared!(compare, d),
        "f16" => compared!(compare, half_value),
        "bf16" => compared!(compare, bf16_value),
        _ => None,
    }
}

fn half_value(bits: u64) -> f64 {
    F16.value(bits & 0xffff)
}

fn bf16_value(bits: u64) -> f64 {
    BF16.value(bits & 0xffff)
}
