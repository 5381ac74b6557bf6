//! `sail.weight`

use crate::dtype::DType;
use crate::op::{Field, Kind, Op, Operands, ShapeError, fixed};
use crate::shape::Type;

/// Tensors of the checkpoint as one value; no byte is read before the artifact is written.
///
/// | value | shape                | type                        |
/// |-------|----------------------|-----------------------------|
/// | `w`   | as written on the op | bf16; packed once quantized |
///
/// `join` says how `paths` become one weight (`n` rows of `k` each):
///
/// | join               | shape       | meaning                                                    |
/// |--------------------|-------------|------------------------------------------------------------|
/// | `one`              | the path's  | the single path                                            |
/// | `stack`            | `[x, n, k]` | `x` paths of one shape, a new leading axis                 |
/// | `concat`           | `[Σn, k]`   | rows of the paths one after the other: q, k, v             |
/// | `interleave`       | `[2n, k]`   | two paths, gate and up, for `sail.gate_up_silu`            |
/// | `stack_interleave` | `[x, 2n, k]`| `x` gates, then `x` ups; every expert interleaved as above |
///
/// Interleaved rows alternate in runs of half a panel of the target: gate rows `0..w/2`, up rows
/// `0..w/2`, gate rows `w/2..w`, … Each half is padded with zero rows to a multiple of `w/2`; the
/// shape here does not count the padding.
///
/// `shard` of `shards` is the part one rank holds; absent while there is one rank. Rounding: none.
/// Refuses a shape that the number of paths contradicts. Source: the checkpoint's tensor names.
pub const WEIGHT: Op = Op {
    name: "weight",
    summary: "tensors of the checkpoint, joined to one value",
    attributes: &[
        Field::required("paths", Kind::Texts),
        Field::required("join", Kind::Text),
        Field::optional("shard", Kind::Int),
        Field::optional("shards", Kind::Int),
    ],
    results: &["w"],
    infer,
    ..Op::ROW
};

fn infer(operands: &Operands<'_>) -> Result<Vec<Type>, ShapeError> {
    let [ty] = operands.written else {
        return Err(ShapeError::new("the type of a weight is written on the op, not inferred"));
    };
    let paths = operands.texts("paths").len() as u64;
    let dims: Vec<u64> = match ty {
        Type::Packed { dims, .. } => dims.clone(),
        Type::Tensor { dims, dtype: DType::Bf16 } => {
            dims.iter().map(|dim| fixed("w", *dim)).collect::<Result<_, _>>()?
        }
        _ => return Err(ShapeError::new(format!("a weight cannot be `{ty}`"))),
    };
    let join = operands.text("join")?;
    let fits = match (join, dims.as_slice()) {
        ("one", _) => paths == 1,
        ("stack", [x, _, ..]) => paths == *x,
        ("concat", [rows, _]) => paths > 0 && *rows >= paths,
        ("interleave", [rows, _]) => paths == 2 && rows.is_multiple_of(2),
        ("stack_interleave", [x, rows, _]) => {
            x.checked_mul(2) == Some(paths) && rows.is_multiple_of(2)
        }
        ("stack" | "concat" | "interleave" | "stack_interleave", _) => false,
        _ => return Err(ShapeError::new(format!("`join` is `{join}`")).hint(JOINS)),
    };
    if !fits {
        return Err(ShapeError::new(format!("{paths} paths joined by `{join}` are not `{ty}`")));
    }
    Ok(vec![ty.clone()])
}

const JOINS: &str = "one of `one`, `stack`, `concat`, `interleave`, `stack_interleave`";

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::ops::check::check_infer;

    #[test]
    fn takes_the_type_written_on_it() {
        check_infer(
            &WEIGHT,
            r#"{paths = ["a", "b"], join = "stack"} -> tensor<2x96x64xbf16>"#,
            expect!["tensor<2x96x64xbf16>"],
        );
    }

    #[test]
    fn refuses_a_shape_that_the_paths_contradict() {
        check_infer(
            &WEIGHT,
            r#"{paths = ["a", "b", "c"], join = "interleave"} -> tensor<192x64xbf16>"#,
            expect!["error: 3 paths joined by `interleave` are not `tensor<192x64xbf16>`"],
        );
    }

    #[test]
    fn refuses_an_unknown_join() {
        check_infer(
            &WEIGHT,
            r#"{paths = ["a"], join = "sum"} -> tensor<192x64xbf16>"#,
            expect![[r#"
                error: `join` is `sum`
                hint: one of `one`, `stack`, `concat`, `interleave`, `stack_interleave`"#]],
        );
    }
}
