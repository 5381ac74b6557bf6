//! Rows that were sorted by expert, given back to their experts.

use sail_runtime::Program;
use sail_runtime::taps::Tensor;

use super::Calibration;
use crate::passes::tap_inputs::expert_key;

/// Add what each expert's last product read; whether all values are finite.
///
/// `read` is `[t, k, f]`, sorted by expert in every call; `logits`, `[t, x]`, chose the experts.
pub fn add(calibration: &mut Calibration, program: &Program, [read, logits]: [&Tensor; 2]) -> bool {
    let top_k = read.shape[1] as usize;
    let (row, experts) = (read.width(), logits.width());
    let call = tokens_of_call(program);
    let calls = read.values.chunks(call * top_k * row).zip(logits.values.chunks(call * experts));
    for (read, chosen) in calls {
        for (expert, values) in owners(chosen, experts, top_k).into_iter().zip(read.chunks(row)) {
            let name = expert_key(&logits.name, expert);
            if !calibration.of_input(&name, row).add(values) {
                return false;
            }
        }
    }
    true
}

/// Tokens that the tapped twin takes at once.
fn tokens_of_call(program: &Program) -> usize {
    let functions = &program.manifest().plan.functions;
    let twin = functions.iter().find(|function| function.name == "prefill.taps");
    let class = twin.and_then(|twin| twin.classes.last());
    *class.expect("broken invariant `calibrate.taps`: it was opened with taps") as usize
}

/// The experts that the sorted rows belong to: of each token the `top_k` with the greatest logits,
/// the lower number first where two are equal.
fn owners(logits: &[f32], experts: usize, top_k: usize) -> Vec<usize> {
    let mut owners = Vec::new();
    for row in logits.chunks(experts) {
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|one, other| row[*other].total_cmp(&row[*one]).then(one.cmp(other)));
        owners.extend(&order[..top_k]);
    }
    owners.sort_unstable();
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_sorted_by_the_experts_that_lead() {
        let logits = [0.5, 2.0, 1.0, 0.0, 3.0, 3.0];
        assert_eq!(owners(&logits, 3, 1), [1, 1]);
        assert_eq!(owners(&logits, 3, 2), [1, 1, 2, 2]);
        assert_eq!(owners(&[1.0, 1.0, 1.0], 3, 2), [0, 1]);
    }
}
