//! The op table: one row per op of the dialect, one file per row.
//!
//! `graph` ops say what the model means; `fused` ops hold several of them; `lower` adds tables and
//! groups experts. `ir/sail.irdl.mlir` and the op table of `ir/README.md` are printed from here.

use std::fmt::Write;

use crate::op::Op;

macro_rules! ops {
    ($($file:ident $row:ident),* $(,)?) => {
        $(mod $file; pub use $file::$row;)*

        /// Every op, in reading order: as the model text uses them, then the fused ones.
        pub static OPS: &[&Op] = &[$(&$row),*];
    };
}

ops! {
    // What the model says.
    weight WEIGHT,
    patches PATCHES,
    linear LINEAR,
    linear_bias LINEAR_BIAS,
    rms_norm RMS_NORM,
    head_norm HEAD_NORM,
    layer_norm LAYER_NORM,
    add ADD,
    add_positions ADD_POSITIONS,
    mul MUL,
    silu SILU,
    gelu GELU,
    tile_attention TILE_ATTENTION,
    pixel_shuffle PIXEL_SHUFFLE,
    embed EMBED,
    splice SPLICE,
    rope ROPE,
    cache CACHE,
    cache_write CACHE_WRITE,
    attention ATTENTION,
    route ROUTE,
    experts EXPERTS,
    select_rows SELECT_ROWS,
    tap TAP,
    all_reduce ALL_REDUCE,
    // What the rules of `fuse` make of it.
    columns COLUMNS,
    norm_linear NORM_LINEAR,
    linear_add LINEAR_ADD,
    gate_up_silu GATE_UP_SILU,
    norm_gate_up_silu NORM_GATE_UP_SILU,
    qk_norm_rope_write QK_NORM_ROPE_WRITE,
    patch_embed PATCH_EMBED,
    linear_bias_gelu LINEAR_BIAS_GELU,
    shuffle_norm_linear_gelu SHUFFLE_NORM_LINEAR_GELU,
    linear_route LINEAR_ROUTE,
    group_by_expert GROUP_BY_EXPERT,
    norm_linear_route_group NORM_LINEAR_ROUTE_GROUP,
    grouped_gate_up_silu GROUPED_GATE_UP_SILU,
    grouped_linear GROUPED_LINEAR,
    combine COMBINE,
    combine_add COMBINE_ADD,
    // What `lower` adds.
    table TABLE,
    // What stage `plan` is made of.
    buffer BUFFER,
    launch LAUNCH,
    step STEP,
}

#[cfg(test)]
mod check;

/// The row of `sail.NAME`.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static Op> {
    OPS.iter().copied().find(|op| op.name == name)
}

/// The op table of `ir/README.md`: a row per op, in reading order.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| op | reads → makes | what it is |\n| --- | --- | --- |\n");
    for op in OPS {
        let reads = op.operands.join(", ");
        let table = op.lowered.iter().map(|name| format!(" + {name}")).collect::<String>();
        let makes = op.results.join(", ");
        writeln!(text, "| `{}` | {reads}{table} → {makes} | {} |", op.name, op.summary)
            .expect("writing to a string cannot fail");
    }
    text
}

/// The dialect as IRDL text: what MLIR itself checks of an op. Committed as `ir/sail.irdl.mlir`.
#[must_use]
pub fn irdl() -> String {
    let mut text = String::from(HEAD);
    for op in OPS {
        declare(op, &mut text).expect("writing to a string cannot fail");
    }
    text + "}\n"
}

const HEAD: &str = "\
// The sail dialect, printed from the op rows in `ir/src/ops/`. Do not edit: `cargo bless` rewrites it.
irdl.dialect @sail {
  // A weight in the bit layout of a scheme: sizes as in the checkpoint, then the scheme's name.
  irdl.type @packed {
    %sizes = irdl.any
    %scheme = irdl.any
    irdl.parameters(sizes: %sizes, scheme: %scheme)
  }
  // Keys and values of one decoder layer: kv heads and values per head.
  irdl.type @kv_cache {
    %sizes = irdl.any
    irdl.parameters(sizes: %sizes)
  }
";

fn declare(op: &Op, text: &mut String) -> std::fmt::Result {
    writeln!(text, "  // {}", op.summary)?;
    writeln!(text, "  irdl.operation @{} {{", op.name)?;
    let required = op.attributes.iter().filter(|field| field.required).map(|field| field.name);
    let required: Vec<_> = required.collect();
    let values = op.operands.iter().chain(op.lowered).chain(op.results);
    for value in values {
        writeln!(text, "    %{value} = irdl.any")?;
    }
    for name in &required {
        writeln!(text, "    %attribute_{name} = irdl.any")?;
    }
    let operands = op.operands.iter().map(|name| format!("{name}: %{name}"));
    let lowered = op.lowered.iter().map(|name| format!("{name}: optional %{name}"));
    list(text, "operands", operands.chain(lowered))?;
    if !required.is_empty() {
        let pairs = required.iter().map(|name| format!("\"{name}\" = %attribute_{name}"));
        writeln!(text, "    irdl.attributes {{{}}}", pairs.collect::<Vec<_>>().join(", "))?;
    }
    list(text, "results", op.results.iter().map(|name| format!("{name}: %{name}")))?;
    writeln!(text, "  }}")
}

fn list(text: &mut String, what: &str, names: impl Iterator<Item = String>) -> std::fmt::Result {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    writeln!(text, "    irdl.{what}({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use expect_test::expect_file;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_a_summary_and_sound_operands() {
        let mut names = BTreeSet::new();
        for op in OPS {
            assert!(names.insert(op.name), "`{}` twice", op.name);
            assert!(!op.summary.is_empty(), "`{}` has no summary", op.name);
            assert!(op.rows_of < op.operands.len().max(1), "`{}`: `rows_of`", op.name);
            let unknown = op.packed.iter().find(|name| !op.operands.contains(name));
            assert_eq!(unknown, None, "`{}` packs what it does not read", op.name);
            let unknown = op.moved.iter().find(|name| !op.operands.contains(name));
            assert_eq!(unknown, None, "`{}` moves what it does not read", op.name);
            assert_eq!(lookup(op.name).map(|row| row.name), Some(op.name));
        }
    }

    #[test]
    fn the_op_table_of_the_readme_is_current() {
        const MARK: &str = "<!-- op table -->\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let parts: Vec<&str> = readme.split(MARK).collect();
        let [before, _, after] = parts[..] else { panic!("two marks around the op table") };
        expect_file![path].assert_eq(&[before, &table(), after].join(MARK));
    }

    #[test]
    fn the_committed_dialect_is_current() {
        expect_file!["../sail.irdl.mlir"].assert_eq(&irdl());
    }
}
