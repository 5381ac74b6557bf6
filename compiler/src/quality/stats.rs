//! Numbers that say how alike two runs are. Sums are taken in the order of the values, so equal
//! runs give equal bytes.

use sail_ir::artifact::{Decibels, Divergence, LayerQuality};

/// Layers that an error names.
const NAMED: usize = 3;

/// Distributions of the next token, position by position.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    kl: Vec<f64>,
    agreed: u64,
}

/// One position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    pub kl: f64,
    /// The most probable token is the same.
    pub agreed: bool,
}

impl Tokens {
    /// Compare two rows of logits; `None` where they are no numbers.
    pub fn add(&mut self, wanted: &[f32], got: &[f32]) -> Option<Found> {
        let found = Found { kl: kl(wanted, got)?, agreed: greatest(wanted) == greatest(got) };
        self.take(found);
        Some(found)
    }

    pub fn take(&mut self, found: Found) {
        self.kl.push(found.kl);
        self.agreed += u64::from(found.agreed);
    }

    /// All zero, and agreed, without positions.
    #[must_use]
    pub fn divergence(&self) -> Divergence {
        let count = self.kl.len();
        if count == 0 {
            return Divergence { positions: 0, kl_mean: 0.0, kl_p99: 0.0, kl_max: 0.0, top1: 1.0 };
        }
        let mut sorted = self.kl.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        Divergence {
            positions: count as u64,
            kl_mean: self.kl.iter().sum::<f64>() / count as f64,
            kl_p99: sorted[(count * 99).div_ceil(100) - 1],
            kl_max: sorted[count - 1],
            top1: self.agreed as f64 / count as f64,
        }
    }
}

/// Kullback-Leibler divergence in nats from the distribution of `wanted` to that of `got`, both
/// logits; `None` where one is not finite.
fn kl(wanted: &[f32], got: &[f32]) -> Option<f64> {
    if !wanted.iter().chain(got).all(|logit| logit.is_finite()) {
        return None;
    }
    let (total, other) = (log_sum(wanted), log_sum(got));
    let term = |(wanted, got): (&f32, &f32)| {
        let log = f64::from(*wanted) - total;
        libm::exp(log) * (log - (f64::from(*got) - other))
    };
    let sum: f64 = wanted.iter().zip(got).map(term).sum();
    Some(sum.max(0.0)) // what is below is rounding
}

/// The logarithm of the sum of exponentials.
fn log_sum(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| libm::exp(f64::from(*logit) - most)).sum();
    most + libm::log(sum)
}

/// The first place of the greatest value.
fn greatest(values: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = at;
        }
    }
    best
}

/// Hidden states of one layer against those of another run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Likeness {
    signal: f64,
    noise: f64,
    cosines: f64,
    rows: u64,
}

impl Likeness {
    /// Compare rows of `width` values.
    pub fn add(&mut self, wanted: &[f32], got: &[f32], width: usize) {
        for (wanted, got) in wanted.chunks(width).zip(got.chunks(width)) {
            let [mut signal, mut noise, mut other, mut product] = [0.0; 4];
            for (wanted, got) in wanted.iter().zip(got) {
                let (wanted, got) = (f64::from(*wanted), f64::from(*got));
                signal += wanted * wanted;
                other += got * got;
                product += wanted * got;
                noise += (got - wanted) * (got - wanted);
            }
            self.signal += signal;
            self.noise += noise;
            self.rows += 1;
            // Two rows of zeros are alike.
            let length = (signal * other).sqrt();
            self.cosines += match length > 0.0 {
                true => (product / length).clamp(-1.0, 1.0),
                false => f64::from(u8::from(noise == 0.0)),
            };
        }
    }

    #[must_use]
    pub fn snr_db(&self) -> Option<f64> {
        decibels(self.signal, self.noise)
    }

    #[must_use]
    pub fn cosine(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.cosines / self.rows as f64 }
    }
}

/// `None` without noise; without signal, as far below as can be said.
#[must_use]
pub fn decibels(signal: f64, noise: f64) -> Option<f64> {
    (noise > 0.0).then(|| 10.0 * libm::log10((signal / noise).max(f64::MIN_POSITIVE)))
}

/// The layers that add most noise, with the ratio behind them: what a layer adds is what the noise
/// has grown by, as a share of the signal, since the layer before. `layers.0` is what is given to
/// the decoder, of which no layer of its own is guilty.
pub fn worst(layers: &[LayerQuality]) -> Vec<String> {
    let share = |layer: &LayerQuality| layer.snr_db.map_or(0.0, |db| libm::pow(10.0, -db / 10.0));
    let chain = |layer: &LayerQuality| layer.name.starts_with("layers.");
    let mut added: Vec<(f64, &LayerQuality)> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| &layers[at]);
        let before = before.filter(|before| chain(before) == chain(layer)).map_or(0.0, share);
        added.push((share(layer) - before, layer));
    }
    added.retain(|(added, layer)| *added > 0.0 && layer.name != "layers.0");
    added.sort_by(|one, other| other.0.total_cmp(&one.0));
    let named = added.iter().take(NAMED);
    named
        .map(|(_, layer)| format!("`{}` ({} dB behind it)", layer.name, Decibels(layer.snr_db)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-6, "{got}, not {want}");
    }

    #[test]
    fn divergence_is_what_a_hand_computes() {
        // (3/4, 1/4) against (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2; logits may have any offset.
        let (third, half) = ([3.0_f32.ln() + 5.0, 5.0], [-2.0, -2.0]);
        near(kl(&third, &half).unwrap(), 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln());
        // The other way: 1/2 ln 2/3 + 1/2 ln 2.
        near(kl(&half, &third).unwrap(), 0.5 * (2.0_f64 / 3.0).ln() + 0.5 * 2.0_f64.ln());
        assert_eq!(kl(&third, &third), Some(0.0));
        assert_eq!(kl(&third, &[f32::NAN, 0.0]), None);
        assert_eq!(kl(&[f32::INFINITY, 0.0], &half), None);
    }

    #[test]
    fn the_99th_percentile_leaves_one_in_a_hundred_above() {
        let mut tokens = Tokens::default();
        for step in (1..=200).rev() {
            tokens.take(Found { kl: f64::from(step), agreed: step % 4 != 0 });
        }
        let Divergence { positions, kl_mean, kl_p99, kl_max, top1 } = tokens.divergence();
        assert_eq!((positions, kl_mean, kl_p99, kl_max, top1), (200, 100.5, 198.0, 200.0, 0.75));
        assert_eq!(Tokens::default().divergence().positions, 0);
    }

    #[test]
    fn ties_agree_on_the_first_token() {
        let mut tokens = Tokens::default();
        assert!(tokens.add(&[1.0, 1.0, 0.0], &[2.0, 1.0, 0.0]).unwrap().agreed);
        assert!(!tokens.add(&[1.0, 1.0, 0.0], &[0.0, 1.0, 0.0]).unwrap().agreed);
        near(tokens.divergence().top1, 0.5);
    }

    #[test]
    fn likeness_is_what_a_hand_computes() {
        let mut likeness = Likeness::default();
        // Noise 1 + 0 of a signal of 25 + 4; cosines of 4/5 and 1.
        likeness.add(&[3.0, 4.0, 2.0, 0.0], &[0.0, 1.0, 2.0, 0.0], 2);
        near(likeness.cosine(), 0.9);
        near(likeness.snr_db().unwrap(), 10.0 * (29.0_f64 / 18.0).log10());
        let mut equal = Likeness::default();
        equal.add(&[0.0, 0.0, 1.0, 2.0], &[0.0, 0.0, 1.0, 2.0], 2);
        assert_eq!((equal.cosine(), equal.snr_db()), (1.0, None));
    }

    #[test]
    fn decibels_are_ten_times_the_logarithm() {
        near(decibels(1000.0, 1.0).unwrap(), 30.0);
        assert_eq!(decibels(1.0, 0.0), None);
        assert!(decibels(0.0, 1.0).unwrap().is_finite());
    }
}
