//! `sail.step`

use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// One kernel over named buffers: the unit that is executed, waited for and timed.
///
/// `arguments` are buffer names in the kernel's order. `grid` says what is counted, rows of a block
/// and columns: `tokens*1/512 x 48`. `waits` are earlier steps of the launch whose counters must be
/// full. Rounding: the kernel's. Source: `plan::Step`.
pub const STEP: Op = Op {
    name: "step",
    summary: "one kernel over named buffers",
    attributes: &[
        Field::required("index", Kind::Int),
        Field::required("label", Kind::Text),
        Field::required("kernel", Kind::Text),
        Field::required("arguments", Kind::Texts),
        Field::required("grid", Kind::Text),
        Field::required("waits", Kind::Texts),
    ],
    results: &[],
    legal_in: Stages::PLAN,
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let index = operands.size("index")?;
    for wait in operands.texts("waits") {
        let earlier = wait.parse::<u64>().is_ok_and(|wait| wait < index);
        if !earlier {
            return Err(ShapeError::new(format!("step {index} waits for `{wait}`"))
                .hint("a step waits for the numbers of earlier steps only"));
        }
    }
    Ok(vec![])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn waits_for_earlier_steps() {
        check_infer(
            &STEP,
            r#" {index = 1, label = "a", kernel = "k", arguments = ["x", "y"], grid = "tokens*1/16 x 1", waits = ["0"]}"#,
            expect![],
        );
    }

    #[test]
    fn refuses_to_wait_for_itself() {
        check_infer(
            &STEP,
            r#" {index = 1, label = "a", kernel = "k", arguments = ["x"], grid = "tokens*1/16 x 1", waits = ["1"]}"#,
            expect![[r#"
                error: step 1 waits for `1`
                hint: a step waits for the numbers of earlier steps only"#]],
        );
    }
}
