//! `cvt`: between integers and floating-point formats, with its roundings and saturations.

use super::formats::{BF16, E4M3, E5M2, F16, F32, Format, Round};

/// A type that `cvt` reads or writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Type {
    Int { bits: u32, signed: bool },
    Float(Format),
    Double,
}

/// One conversion. `pair` makes two narrow values of two sources, the first in the upper half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversion {
    to: Type,
    from: Type,
    round: Round,
    /// To a whole number, whatever the type.
    whole: bool,
    saturate: bool,
    ftz: bool,
    relu: bool,
    /// Two values in one word, of two sources or of the halves of one.
    pub pair: Option<Pair>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pair {
    TwoSources,
    OneSource,
}

fn type_of(name: &str) -> Option<(Type, bool)> {
    let (single, pair) = match name.strip_suffix("x2") {
        Some(single) => (single, true),
        None => (name, false),
    };
    let ty = match single {
        "f16" => Type::Float(F16),
        "bf16" => Type::Float(BF16),
        "f32" => Type::Float(F32),
        "f64" => Type::Double,
        "e4m3" => Type::Float(E4M3),
        "e5m2" => Type::Float(E5M2),
        _ => {
            let signed = single.starts_with('s');
            if !signed && !single.starts_with('u') {
                return None;
            }
            Type::Int { bits: single[1..].parse().ok()?, signed }
        }
    };
    Some((ty, pair))
}

impl Conversion {
    /// The conversion that `opcode` names.
    pub(crate) fn parse(opcode: &str) -> Option<Self> {
        let mut words: Vec<&str> = opcode.split('.').skip(1).collect();
        let (from, from_pair) = type_of(words.pop()?)?;
        let (to, to_pair) = type_of(words.pop()?)?;
        let float = |ty: Type| !matches!(ty, Type::Int { .. });
        let mut conversion = Self {
            to,
            from,
            // A float becomes an integer only with a rounding word; widening needs none.
            round: Round::Near,
            whole: false,
            saturate: false,
            ftz: false,
            relu: false,
            pair: match (to_pair, from_pair) {
                (true, true) => Some(Pair::OneSource),
                (true, false) => Some(Pair::TwoSources),
                (false, _) => None,
            },
        };
        if from_pair && !to_pair {
            return None;
        }
        let mut rounded = false;
        for word in words {
            match word {
                "rn" | "rz" | "rm" | "rp" | "rni" | "rzi" | "rmi" | "rpi" => {
                    conversion.round = match &word[1..2] {
                        "n" => Round::Near,
                        "z" => Round::Zero,
                        "m" => Round::Down,
                        _ => Round::Up,
                    };
                    conversion.whole = word.ends_with('i');
                    rounded = true;
                }
                "sat" | "satfinite" => conversion.saturate = true,
                "ftz" => conversion.ftz = true,
                "relu" => conversion.relu = true,
                _ => return None,
            }
        }
        (rounded || !float(from) || float(to)).then_some(conversion)
    }

    /// Convert a word; `b` is the second source of a pair.
    pub(crate) fn apply(&self, a: u64, b: u64) -> u64 {
        let width = match self.to {
            Type::Float(format) => 1 + format.exponent_bits + format.mantissa_bits,
            _ => return self.one(a),
        };
        match self.pair {
            None => self.one(a),
            Some(Pair::TwoSources) => self.one(a) << width | self.one(b),
            Some(Pair::OneSource) => {
                let from = match self.from {
                    Type::Float(format) => 1 + format.exponent_bits + format.mantissa_bits,
                    _ => 32,
                };
                let low = a & ((1 << from) - 1);
                self.one(a >> from & ((1 << from) - 1)) << width | self.one(low)
            }
        }
    }

    fn one(&self, a: u64) -> u64 {
        let value = match self.from {
            Type::Int { bits, signed } => {
                let shift = 64 - bits;
                let value = if signed {
                    i128::from((a << shift) as i64 >> shift)
                } else {
                    i128::from(a << shift >> shift)
                };
                return self.of_integer(value);
            }
            Type::Float(format) => {
                let all = if format == F32 { 0xffff_ffff } else { a };
                let width = 1 + format.exponent_bits + format.mantissa_bits;
                format.value(a & all & ((1 << width) - 1))
            }
            Type::Double => f64::from_bits(a),
        };
        let tiny = f64::from(f32::MIN_POSITIVE);
        let value = if self.ftz && value.abs() < tiny { 0f64.copysign(value) } else { value };
        self.of_float(value)
    }

    fn of_integer(&self, value: i128) -> u64 {
        match self.to {
            Type::Int { bits, signed } => {
                let value = if self.saturate { clamp(value, bits, signed) } else { value };
                // A signed result narrower than its register fills it with its sign.
                let narrow = if signed && bits < 32 {
                    return sign_extended(value, bits);
                } else {
                    value as u64
                };
                narrow & mask(bits)
            }
            // 64-bit integers can have more bits than f64: let the odd bit stand for the rest.
            Type::Float(format) => {
                let near = value as f64;
                let exact = near as i128 == value;
                let odd = if exact || near.to_bits() & 1 == 1 {
                    near
                } else {
                    let away = (near as i128).abs() < value.abs();
                    f64::from_bits(near.to_bits() + u64::from(away) - u64::from(!away))
                };
                format.bits(format.round(odd, self.round))
            }
            Type::Double => (value as f64).to_bits(),
        }
    }

    fn of_float(&self, value: f64) -> u64 {
        let value = if self.relu && (value < 0.0) { 0.0 } else { value };
        let rounded = match self.round {
            Round::Near => value.round_ties_even(),
            Round::Zero => value.trunc(),
            Round::Down => value.floor(),
            Round::Up => value.ceil(),
        };
        let value = if self.whole { rounded } else { value };
        match self.to {
            Type::Int { bits, signed } => {
                // Out of range and NaN go to the ends and to zero whether `.sat` stands there or not.
                let whole = if rounded.is_nan() { 0 } else { clamp(rounded as i128, bits, signed) };
                if signed && bits < 32 {
                    sign_extended(whole, bits)
                } else {
                    whole as u64 & mask(bits)
                }
            }
            Type::Float(format) => {
                let narrow = format.mantissa_bits < 8 && format.exponent_bits < 8;
                let rounded = format.round(value, self.round);
                let rounded = match (self.saturate, narrow) {
                    (true, true) if !rounded.is_nan() => rounded.clamp(-format.max, format.max),
                    (true, false) if rounded.is_nan() => 0.0,
                    (true, false) => rounded.clamp(0.0, 1.0),
                    _ => rounded,
                };
                format.bits(rounded)
            }
            Type::Double => value.to_bits(),
        }
    }
}

fn mask(bits: u32) -> u64 {
    if bits == 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn sign_extended(value: i128, bits: u32) -> u64 {
    let shift = 32 - bits;
    u64::from((((value as i32) << shift) >> shift) as u32)
}

fn clamp(value: i128, bits: u32, signed: bool) -> i128 {
    if signed {
        value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        value.clamp(0, (1 << bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Conversion;

    fn run(opcode: &str, a: u64, b: u64) -> u64 {
        Conversion::parse(opcode).unwrap_or_else(|| panic!("{opcode} is not known")).apply(a, b)
    }

    #[test]
    fn conversions() {
        let f = |x: f32| u64::from(x.to_bits());
        assert_eq!(run("cvt.rn.bf16x2.f32", f(1.0), f(2.0)), 0x3f80_4000);
        assert_eq!(run("cvt.rn.bf16.f32", f(1.003_906_3), 0), 0x3f80);
        assert_eq!(run("cvt.f32.bf16", 0x4000, 0), f(2.0));
        assert_eq!(run("cvt.rni.sat.s8.f32", f(-300.0), 0), 0xffff_ff80);
        assert_eq!(run("cvt.rzi.s32.f32", f(-1.5), 0), 0xffff_ffff);
        assert_eq!(run("cvt.rni.s32.f32", f(2.5), 0), 2);
        assert_eq!(run("cvt.rni.f32.f32", f(3.5), 0), f(4.0));
        assert_eq!(run("cvt.rzi.f32.f32", f(-2.75), 0), f(-2.0));
        assert_eq!(run("cvt.s32.s8", 0xff, 0), 0xffff_ffff);
        assert_eq!(run("cvt.u32.u16", 0xffff, 0), 0xffff);
        assert_eq!(run("cvt.s64.s32", 0x8000_0000, 0), 0xffff_ffff_8000_0000);
        assert_eq!(run("cvt.rn.f32.s32", 0xffff_ffff, 0), f(-1.0));
        assert_eq!(run("cvt.rn.f32.u64", u64::MAX, 0), f(18_446_744_073_709_551_615.0));
        assert_eq!(run("cvt.rn.satfinite.e4m3x2.f32", f(1000.0), f(1.0)), 0x7e38);
        assert_eq!(run("cvt.rn.f16x2.e4m3x2", 0x7e38, 0), 0x5f00_3c00);
        assert!(Conversion::parse("cvt.s32.f32").is_none());
    }
}
