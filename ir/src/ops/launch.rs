//! `sail.launch`

use crate::op::{Field, Kind, Op, Operands, ShapeError, Stages};
use crate::shape::Type;

/// A run of steps handed to the device at once: `first` up to, not with, `end`.
///
/// Rounding: none. Source: `plan::Launch`.
pub const LAUNCH: Op = Op {
    name: "launch",
    summary: "a run of steps handed to the device at once",
    attributes: &[
        Field::required("rank", Kind::Int),
        Field::required("first", Kind::Int),
        Field::required("end", Kind::Int),
    ],
    results: &[],
    legal_in: Stages::PLAN,
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let (first, end) = (operands.size("first")?, operands.size("end")?);
    if first >= end {
        return Err(ShapeError::new(format!("a launch of steps {first} to {end} is empty")));
    }
    Ok(vec![])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn holds_at_least_one_step() {
        check_infer(&LAUNCH, " {rank = 0, first = 0, end = 3}", expect![]);
    }

    #[test]
    fn refuses_to_be_empty() {
        check_infer(
            &LAUNCH,
            " {rank = 0, first = 3, end = 3}",
            expect!["error: a launch of steps 3 to 3 is empty"],
        );
    }
}
