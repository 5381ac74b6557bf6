//! Sums over everything that one product has read.

use sail_ir::Scheme;

/// Channels whose moments with one another are summed.
pub const GROUP: usize = Scheme::GROUP as usize;

/// Greatest magnitudes and second moments of `width` channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    width: usize,
    /// Rows that were summed.
    pub rows: u64,
    /// Greatest magnitude of each channel.
    pub most: Vec<f32>,
    /// For each group of channels a square, row-major: sums of `x_i · x_j`. Only the lower triangle
    /// is summed.
    pub sums: Vec<Vec<f64>>,
}

impl Moments {
    #[must_use]
    pub fn new(width: usize) -> Self {
        let sizes = (0..width).step_by(GROUP).map(|first| GROUP.min(width - first));
        let sums = sizes.map(|size| vec![0.0; size * size]).collect();
        Self { width, rows: 0, most: vec![0.0; width], sums }
    }

    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Add rows; whether all values are finite.
    #[must_use]
    pub fn add(&mut self, values: &[f32]) -> bool {
        for row in values.chunks(self.width) {
            if !row.iter().all(|value| value.is_finite()) {
                return false;
            }
            self.rows += 1;
            for (most, value) in self.most.iter_mut().zip(row) {
                *most = most.max(value.abs());
            }
            for (sums, group) in self.sums.iter_mut().zip(row.chunks(GROUP)) {
                for (at, line) in sums.chunks_mut(group.len()).enumerate() {
                    let one = f64::from(group[at]);
                    for (sum, other) in line.iter_mut().zip(&group[..=at]) {
                        *sum += one * f64::from(*other);
                    }
                }
            }
        }
        true
    }

    /// The means of the squares' sums: `E[x_i · x_j]` of each group.
    #[must_use]
    pub fn means(&self) -> Vec<Vec<f32>> {
        let rows = self.rows.max(1) as f64;
        let square = |sums: &Vec<f64>| {
            let size = sums.len().isqrt();
            let places = (0..size).flat_map(|one| (0..size).map(move |other| (one, other)));
            let sum = |(one, other): (usize, usize)| sums[one.max(other) * size + one.min(other)];
            places.map(|place| (sum(place) / rows) as f32).collect()
        };
        self.sums.iter().map(square).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_what_a_hand_computes() {
        let mut moments = Moments::new(2);
        assert!(moments.add(&[1.0, -2.0, 3.0, 0.5]));
        assert_eq!((moments.rows, moments.most.clone()), (2, vec![3.0, 2.0]));
        // Means of 1 and 9, of -2 and 1.5, of 4 and 0.25.
        assert_eq!(moments.means(), [[5.0, -0.25, -0.25, 2.125]]);
    }

    #[test]
    fn channels_of_two_groups_are_not_multiplied() {
        let mut moments = Moments::new(GROUP + 3);
        assert!(moments.add(&vec![1.0; GROUP + 3]));
        let sizes: Vec<usize> = moments.means().iter().map(Vec::len).collect();
        assert_eq!(sizes, [GROUP * GROUP, 9]);
    }

    #[test]
    fn what_is_not_finite_is_not_taken() {
        assert!(!Moments::new(2).add(&[1.0, f32::NAN]));
        assert!(!Moments::new(1).add(&[f32::NEG_INFINITY]));
    }
}
