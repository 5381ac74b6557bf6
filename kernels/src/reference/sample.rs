//! Meaning of the choice of a token.

/// The id of the largest of a row of logits, the lowest of equal ones, and the lowest id whose logit is
/// not a number or positively infinite; `i32::MAX` for either when there is none.
///
/// What is not a number is never the largest.
#[must_use]
pub fn choose_token(logits: &[f64]) -> [i32; 2] {
    let (mut best, mut most, mut bad) = (i32::MAX, f64::NEG_INFINITY, i32::MAX);
    for (id, &logit) in (0..).zip(logits) {
        if logit > most {
            (best, most) = (id, logit);
        }
        if (logit.is_nan() || logit == f64::INFINITY) && bad == i32::MAX {
            bad = id;
        }
    }
    [best, bad]
}
