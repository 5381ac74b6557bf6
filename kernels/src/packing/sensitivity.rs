//! How much an error of a weight matters: by what the product reads, group by group along K.
//!
//! With `H = E[x xᵀ]` of a group's channels, values that are changed by `e` change an output's
//! square on average by `eᵀ H e`. Rounding one value to its grid leaves an error that the values
//! after it can make up for, as far as their channels go together with its own: that is what
//! [`Group::round`] does (GPTQ, Frantar et al. 2022, inside of one group).

/// Share of the mean square that is added to every channel's own, so that channels that were never
/// seen, or only together, can be solved for.
const DAMPING: f64 = 0.01;

/// What is known of the `k` channels a product reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    groups: Vec<Group>,
}

/// What is known of one group of channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Mean square of each channel.
    squares: Vec<f32>,
    /// Row `j`: for each later value, what it makes up for of an error of 1 at `j`.
    feedback: Vec<f32>,
    /// What an error of 1 at `j` costs when the later values have made up for it.
    costs: Vec<f32>,
}

impl Sensitivity {
    /// `moments`: for each group of channels the square `E[x_i · x_j]`, row-major.
    #[must_use]
    pub fn new(moments: &[Vec<f32>]) -> Self {
        Self { groups: moments.iter().map(|moments| Group::new(moments)).collect() }
    }

    /// Group number `index` of the channels.
    #[must_use]
    pub fn group(&self, index: usize) -> &Group {
        &self.groups[index]
    }
}

impl Group {
    fn new(moments: &[f32]) -> Self {
        let size = moments.len().isqrt();
        let squares: Vec<f32> = (0..size).map(|at| moments[at * size + at]).collect();
        let mean = squares.iter().map(|square| f64::from(*square)).sum::<f64>() / size as f64;
        if mean <= 0.0 {
            // Nothing was ever read here: all errors are alike.
            let (feedback, costs) = (vec![0.0; size * size], vec![1.0; size]);
            return Self { squares: costs.clone(), feedback, costs };
        }
        let mut damping = DAMPING * mean;
        let lower = loop {
            let mut damped: Vec<f64> = moments.iter().map(|moment| f64::from(*moment)).collect();
            (0..size).for_each(|at| damped[at * size + at] += damping);
            let inverse = cholesky(&damped, size).map(|lower| inverse(&lower, size));
            match inverse.and_then(|inverse| cholesky(&inverse, size)) {
                Some(lower) => break lower,
                None => damping *= 10.0,
            }
        };
        let own = |at: usize| lower[at * size + at];
        let mut feedback = vec![0.0; size * size];
        for at in 0..size {
            for later in at + 1..size {
                feedback[at * size + later] = (lower[later * size + at] / own(at)) as f32;
            }
        }
        let costs = (0..size).map(|at| (1.0 / (own(at) * own(at))) as f32).collect();
        Self { squares, feedback, costs }
    }

    /// Mean square of each channel.
    #[must_use]
    pub fn squares(&self) -> &[f32] {
        &self.squares
    }

    /// Round `values` in their place one after another, letting those that follow make up for each
    /// error. What is lost: the mean square of the change of an output.
    pub fn round(&self, values: &mut [f32], nearest: impl Fn(f32) -> f32) -> f32 {
        let size = values.len();
        let mut lost = 0.0;
        for at in 0..size {
            let rounded = nearest(values[at]);
            let error = values[at] - rounded;
            values[at] = rounded;
            lost += error * error * self.costs[at];
            let shares = &self.feedback[at * size + at + 1..(at + 1) * size];
            for (value, share) in values[at + 1..].iter_mut().zip(shares) {
                *value -= error * share;
            }
        }
        lost
    }
}

/// The lower triangle whose product with its transpose is `matrix`; `None` when there is none.
fn cholesky(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..=row {
            let (one, other) = (&lower[row * size..], &lower[column * size..]);
            let known: f64 = one[..column].iter().zip(other).map(|(a, b)| a * b).sum();
            let rest = matrix[row * size + column] - known;
            lower[row * size + column] = match row == column {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / other[column],
            };
        }
    }
    Some(lower)
}

/// The inverse of the matrix that `lower` is the triangle of.
fn inverse(lower: &[f64], size: usize) -> Vec<f64> {
    // Rows of the triangle's own inverse.
    let mut own = vec![0.0; size * size];
    for column in 0..size {
        own[column * size + column] = 1.0 / lower[column * size + column];
        for row in column + 1..size {
            let known: f64 =
                (column..row).map(|at| lower[row * size + at] * own[at * size + column]).sum();
            own[row * size + column] = -known / lower[row * size + row];
        }
    }
    let mut inverse = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..=row {
            let sum: f64 =
                (row..size).map(|at| own[at * size + row] * own[at * size + column]).sum();
            inverse[row * size + column] = sum;
            inverse[column * size + row] = sum;
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::run::random;

    const GROUP: usize = sail_ir::scheme::Scheme::GROUP as usize;

    /// Moments of `rows` rows in which neighbours go together.
    fn moments(size: usize, rows: usize) -> Vec<f32> {
        let mut sums = vec![0.0; size * size];
        for row in 0..rows {
            let noise = random(row as u64 + 1, size + 1);
            let x: Vec<f32> = noise.windows(2).map(|pair| pair[0] + pair[1]).collect();
            for (i, one) in x.iter().enumerate() {
                for (j, other) in x.iter().enumerate() {
                    sums[i * size + j] += one * other / rows as f32;
                }
            }
        }
        sums
    }

    fn quadratic(moments: &[f32], error: &[f32]) -> f32 {
        let size = error.len();
        let line = |i: usize| (0..size).map(move |j| moments[i * size + j] * error[j]).sum::<f32>();
        (0..size).map(|i| error[i] * line(i)).sum()
    }

    #[test]
    fn errors_are_made_up_for_by_channels_that_go_together() {
        let size = 24;
        let moments = moments(size, 300);
        let group = Group::new(&moments);
        let values = random(77, size);
        let nearest = |value: f32| (value * 3.0).round() / 3.0;
        let mut rounded = values.clone();
        let lost = group.round(&mut rounded, nearest);
        assert!(rounded.iter().all(|value| (nearest(*value) - value).abs() < 1e-6));
        let error = |rounded: &[f32]| -> Vec<f32> {
            rounded.iter().zip(&values).map(|(one, other)| one - other).collect()
        };
        let plain: Vec<f32> = values.iter().map(|value| nearest(*value)).collect();
        let (with, without) =
            (quadratic(&moments, &error(&rounded)), quadratic(&moments, &error(&plain)));
        assert!(with < 0.8 * without, "{with} of {without}");
        // The damping is in what is said to be lost, and not in the moments.
        assert!((lost - with).abs() < 0.2 * with, "{lost}, not {with}");
    }

    #[test]
    fn channels_apart_are_rounded_each_to_its_nearest() {
        let mut moments = vec![0.0; 9];
        (0..3).for_each(|at| moments[at * 4] = 2.0);
        let mut values = [0.4, 1.6, -0.7];
        Group::new(&moments).round(&mut values, f32::round);
        assert_eq!(values, [0.0, 2.0, -1.0]);
    }

    #[test]
    fn channels_never_seen_or_seen_only_together_can_be_solved_for() {
        for moments in [vec![0.0; 16], vec![1.0; 16]] {
            let group = Group::new(&moments);
            let mut values = [0.3, 0.3, 0.3, 0.3];
            let lost = group.round(&mut values, f32::round);
            assert!(lost.is_finite() && values.iter().all(|value| value.is_finite()));
        }
        // Four channels that are one: together they are worth 1.2, so one of them becomes 1.
        let mut values = [0.3, 0.3, 0.3, 0.3];
        Group::new(&[1.0; 16]).round(&mut values, f32::round);
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{values:?}");
    }

    #[test]
    fn a_width_of_one_and_a_half_groups_has_two() {
        let moments = [vec![1.0; GROUP * GROUP], vec![1.0; 64 * 64]];
        let sensitivity = Sensitivity::new(&moments);
        assert_eq!(sensitivity.group(1).squares().len(), 64);
    }
}
