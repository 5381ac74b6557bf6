//! Functions of real numbers on f32 lanes, the same on every target: polynomials and exact
//! division, never a library call.

use super::{Builder, F32, Value};

/// `(exp(r) - 1 - r) / r²` for |r| ≤ ln 2 / 2, Chebyshev fit; relative error of `exp` 1.0e-8.
const EXP: [f32; 5] = [0.5, 0.166_665_77, 0.041_666_556, 0.008_363_179, 0.001_392_618_6];

/// `Φ(-z) · exp(z² / 2)` in `t = 1 / (1 + 0.3 z)` for 0 ≤ z ≤ 14, where Φ is the normal
/// distribution; Chebyshev fit, relative error 1.1e-7.
const NORMAL_TAIL: [f32; 9] = [
    4.377_244_7e-6,
    0.119_541_63,
    0.121_487_25,
    0.096_570_864,
    0.137_646_14,
    -0.068_775_66,
    0.221_350_4,
    -0.165_373_76,
    0.037_548_766,
];

/// Slope of the change of variable of [`NORMAL_TAIL`].
const NORMAL_TAIL_SLOPE: f32 = 0.3;

impl<'c> Builder<'c> {
    /// `coefficients[0] + x · (coefficients[1] + …)`, by fused multiply-adds.
    pub fn polynomial(&mut self, x: F32<'c>, coefficients: &[f32]) -> F32<'c> {
        let (last, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
        let mut sum = self.f32s(*last, x.width());
        for coefficient in rest.iter().rev() {
            let coefficient = self.f32(*coefficient);
            sum = self.fma(sum, x, coefficient);
        }
        sum
    }

    /// `e^x` within 1 ulp or 2: 0 for `-inf`, `inf` above 88.73, NaN for NaN, denormals kept.
    pub fn exp(&mut self, x: F32<'c>) -> F32<'c> {
        let low = self.f32(-104.0);
        let high = self.f32(89.0);
        // `max(x, low)` gives its second operand for a NaN, so the NaN comes second.
        let inside = self.max(low, x);
        let inside = self.min(high, inside);
        let log2_e = self.f32(std::f32::consts::LOG2_E);
        let scaled = self.mul(inside, log2_e);
        let whole = self.round_even(scaled);
        // ln 2 in two parts: the first has 15 trailing zero bits, so its product is exact.
        let minus_high = self.f32(-0.693_359_4);
        let minus_low = self.f32(2.121_944_4e-4);
        let r = self.fma(whole, minus_high, inside);
        let r = self.fma(whole, minus_low, r);
        let tail = self.polynomial(r, &EXP);
        let square = self.mul(r, r);
        let near = self.fma(square, tail, r);
        let one = self.f32(1.0);
        let near = self.add(near, one);
        self.scale_by_power(near, whole)
    }

    /// `a · 2^power` for a whole `power` from -151 to 130 and `a` near 1, rounded once. A NaN in
    /// `a` stays one; a NaN in `power` only comes with it.
    fn scale_by_power(&mut self, a: F32<'c>, power: F32<'c>) -> F32<'c> {
        if let Some(scaled) = self.scale_natively(a, power) {
            return scaled;
        }
        let nan = self.is_nan(power);
        let zero = self.f32(0.0);
        let power = self.select(nan, zero, power);
        let power = self.truncate(power);
        let half = self.shift_right_signed(power, 1);
        let rest = self.sub(power, half);
        let first = self.power_of_two(half);
        let second = self.power_of_two(rest);
        let scaled = self.mul(a, first);
        self.mul(scaled, second)
    }

    /// `2^power` for -126 ≤ power ≤ 127.
    fn power_of_two(&mut self, power: super::I32<'c>) -> F32<'c> {
        let bias = self.i32(127);
        let biased = self.add(power, bias);
        let bits = self.shift_left(biased, 23);
        self.of_bits(bits)
    }

    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(&mut self, x: F32<'c>) -> F32<'c> {
        let one = self.f32s(1.0, x.width());
        let below = self.one_plus_exp_neg(x);
        self.div(one, below)
    }

    /// `x · sigmoid(x)`.
    pub fn silu(&mut self, x: F32<'c>) -> F32<'c> {
        let below = self.one_plus_exp_neg(x);
        self.div(x, below)
    }

    fn one_plus_exp_neg(&mut self, x: F32<'c>) -> F32<'c> {
        let minus = self.neg(x);
        let small = self.exp(minus);
        let one = self.f32(1.0);
        self.add(small, one)
    }

    /// `x · Φ(x)` with the normal distribution Φ, that is `x/2 · (1 + erf(x / √2))`.
    ///
    /// The tail of Φ is computed as such, so small results for negative `x` keep their digits.
    pub fn gelu(&mut self, x: F32<'c>) -> F32<'c> {
        let phi = self.normal_cdf(x);
        self.mul(x, phi)
    }

    /// `erf(x)`; near 0 good to an absolute 2e-7, not a relative one.
    pub fn erf(&mut self, x: F32<'c>) -> F32<'c> {
        let root = self.f32(std::f32::consts::SQRT_2);
        let x = self.mul(x, root);
        let phi = self.normal_cdf(x);
        let (two, minus_one) = (self.f32(2.0), self.f32(-1.0));
        self.fma(phi, two, minus_one)
    }

    /// Φ(x), the probability of a standard normal value below `x`.
    fn normal_cdf(&mut self, x: F32<'c>) -> F32<'c> {
        let far = self.f32(14.0);
        let z = self.abs(x);
        let z = self.min(far, z);
        let slope = self.f32(NORMAL_TAIL_SLOPE);
        let one = self.f32s(1.0, x.width());
        let below = self.fma(z, slope, one);
        let t = self.div(one, below);
        let ratio = self.polynomial(t, &NORMAL_TAIL);
        let minus_half = self.f32(-0.5);
        let exponent = self.mul(z, minus_half);
        let exponent = self.mul(exponent, z);
        let bell = self.exp(exponent);
        let tail = self.mul(bell, ratio);
        let head = self.sub(one, tail);
        let zero = self.f32(0.0);
        let negative = self.less(x, zero);
        self.select(negative, tail, head)
    }

    /// `1 / sqrt(x)` by exact square root and division.
    pub fn rsqrt(&mut self, x: F32<'c>) -> F32<'c> {
        let root = self.sqrt(x);
        let one = self.f32s(1.0, x.width());
        self.div(one, root)
    }
}
