//! Sums over everything that one product has read.

use sail_ir::Scheme;

/// Channels whose moments with one another are summed.
pub const GROUP: usize = Scheme::GROUP as usize;

/// What rounding to f32 may add to a moment, as a share of it.
const ROUNDED: f64 = 1e-3;

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

    /// Why no rows can have given these finite numbers, or none that could be rounded by: the name
    /// of the numbers, `max` or `moments.GROUP`, and a clause.
    #[must_use]
    pub fn flaw(&self) -> Option<(String, String)> {
        if let Some(channel) = self.most.iter().position(|most| *most < 0.0) {
            let because = format!("the greatest magnitude of channel {channel} is negative");
            return Some(("max".to_owned(), because));
        }
        let groups = self.most.chunks(GROUP).zip(self.means());
        let mut flaws = groups.map(|(most, means)| flaw_of_group(most, &means)).enumerate();
        flaws.find_map(|(group, flaw)| Some((format!("moments.{group}"), flaw?)))
    }
}

/// Why rows whose greatest magnitudes are `most` cannot have these moments with one another.
fn flaw_of_group(most: &[f32], means: &[f32]) -> Option<String> {
    let lines = means.chunks(most.len()).enumerate();
    for (one, other, mean) in lines.flat_map(|(one, line)| {
        line.iter().enumerate().map(move |(other, mean)| (one, other, mean))
    }) {
        let allowed = f64::from(most[one]) * f64::from(most[other]) * (1.0 + ROUNDED);
        if one == other && *mean < 0.0 {
            return Some(format!("the mean square of channel {one} of the group is negative"));
        }
        // Squares of the least channels are zero in f32, so that moments have no bound of their own.
        if f64::from(mean.abs()) > allowed + f64::from(f32::MIN_POSITIVE) || mean.is_nan() {
            return Some(format!(
                "the moment of channels {one} and {other} of the group is {mean:e}, and their greatest magnitudes are {:e} and {:e}",
                most[one], most[other]
            ));
        }
    }
    let squares: f32 = means.iter().step_by(most.len() + 1).sum();
    let because = "the mean squares of the group add up to more than a float holds";
    (!squares.is_finite()).then(|| because.to_owned())
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
    fn numbers_that_no_rows_give_are_found() {
        let mut rows: Vec<f32> = (0..5 * (GROUP + 2)).map(|at| (at as f32).sin()).collect();
        rows[7] = 1e-25; // its square is nothing in f32, its moments with others are not
        let mut real = Moments::new(GROUP + 2);
        assert!(real.add(&rows));
        assert_eq!(real.flaw(), None);
        assert_eq!(Moments::new(3).flaw(), None);

        let flawed = |change: fn(&mut Moments)| {
            let mut moments = real.clone();
            change(&mut moments);
            moments.flaw().expect("no rows give these").0
        };
        assert_eq!(flawed(|it| it.most[GROUP] = -1.0), "max");
        assert_eq!(flawed(|it| it.sums[1].fill(-1.0)), "moments.1");
        assert_eq!(flawed(|it| it.sums[1][2] = -9.0), "moments.1");
        assert_eq!(flawed(|it| it.sums[0].fill(3e38)), "moments.0");
        let huge = |it: &mut Moments| {
            it.most.fill(1.8e19);
            it.sums.iter_mut().for_each(|sums| sums.fill(5.0 * 3.2e38));
        };
        let mut moments = real.clone();
        huge(&mut moments);
        let (place, because) = moments.flaw().expect("its sums overflow");
        assert!(place == "moments.0" && because.contains("add up"), "{place} {because}");
    }

    #[test]
    fn what_is_not_finite_is_not_taken() {
        assert!(!Moments::new(2).add(&[1.0, f32::NAN]));
        assert!(!Moments::new(1).add(&[f32::NEG_INFINITY]));
    }
}
