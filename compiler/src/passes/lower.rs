//! Make every op one launch: tables for RoPE, rows grouped by expert, ranks resolved.
//!
//! Runs on what `fuse` left, which may be everything: a module no rule touched lowers as well.

use std::collections::BTreeMap;

use sail_ir::op::Attribute;

use super::Pass;
use super::fuse::{group_experts, int};
use crate::rewrite::{New, Rewriter};
use crate::view::{Function, Op, Value};

/// `positions`: the longest sequence, rows of RoPE's tables.
pub(super) fn pass(positions: u64) -> Pass<'static> {
    Pass::new("lower", move |function, rewriter| {
        function_to_kernels(function, positions, rewriter);
    })
}

fn function_to_kernels<'c>(
    function: Function<'c, '_>,
    positions: u64,
    rewriter: &mut Rewriter<'c>,
) {
    let mut tables = BTreeMap::new();
    for op in function.ops() {
        match op.name() {
            "rope" | "qk_norm_rope_write" => {
                let key = (op.float("theta").to_bits(), op.size("head_dim"));
                let table = *tables.entry(key).or_insert_with(|| table(op, positions, rewriter));
                let mut operands = op.operands();
                operands.push(table);
                rewriter.rebuild(op, &operands);
            }
            "experts" => {
                // A decline leaves the op where it is, which the seal then refuses by name.
                let _ = group_experts::group(op, rewriter);
            }
            // There is one rank: the sum over ranks is the value.
            "all_reduce" => rewriter.replace(op, &[op.operand("x")]),
            _ => {}
        }
    }
}

/// Cosines and sines for every position, before the first op that reads them.
fn table<'c, 'm>(reader: Op<'c, 'm>, positions: u64, rewriter: &mut Rewriter<'c>) -> Value<'c, 'm> {
    let attributes = [
        ("kind", Attribute::Text("rope".to_owned())),
        ("theta", Attribute::Float(reader.float("theta"))),
        ("head_dim", int(reader.size("head_dim"))),
        ("positions", int(positions)),
    ];
    let attributes = attributes.into_iter().collect();
    let name = format!("rope.{}", reader.size("head_dim"));
    rewriter.insert(reader, New { op: "table", operands: &[], attributes, name }).result()
}

#[cfg(test)]
mod tests {

    use crate::dialect;
    use crate::passes::fuse::RULES;
    use crate::passes::{Passes, Settings};
    use crate::stage::Module;

    /// Graph text straight to `kernels`, no rule in between.
    fn kernels(text: &str) -> String {
        let context = dialect::context();
        let passes = Passes::new(Settings {
            positions: 40,
            disabled_rules: RULES.iter().map(|rule| rule.name.to_owned()).collect(),
            print_after: vec!["quantize".to_owned()],
            ..Settings::default()
        });
        let passes = passes.unwrap();
        let fused = passes.fuse(Module::parse(&context, text, "t.mlir").unwrap());
        let text = passes.lower(passes.quantize(fused).unwrap()).text();
        let names: Vec<_> = passes.watch().times.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["fuse", "erase_dead", "quantize", "lower", "erase_dead"]);
        assert_eq!(passes.watch().printed.len(), 1);
        text
    }

    #[test]
    fn ropes_of_one_kind_share_a_table() {
        let text = kernels(
            r#"
func.func @f(%x: tensor<?x64xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %y = "sail.rope"(%x, %rows) {head_dim = 16 : i64, theta = 1.0e6 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %z = "sail.rope"(%y, %rows) {head_dim = 16 : i64, theta = 1.0e6 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %z : tensor<?x64xbf16>
}"#,
        );
        assert_eq!(text.matches("sail.table").count(), 1, "{text}");
        assert!(text.contains(r#""sail.rope"(%y, %rows, %rope.16)"#), "{text}");
    }

    #[test]
    fn experts_become_grouped_products_and_the_router_keeps_its_product() {
        let text = kernels(EXPERTS);
        for op in ["linear", "route", "group_by_expert", "grouped_gate_up_silu", "combine"] {
            assert_eq!(text.matches(&format!("\"sail.{op}\"")).count(), 1, "{op} in\n{text}");
        }
        assert!(text.contains("!sail.packed<[3, 20, 8], \"bf16\">"), "{text}");
        assert!(!text.contains("sail.experts"), "{text}");
    }

    #[test]
    fn a_weight_that_is_also_a_table_exists_once() {
        let text = kernels(
            r#"
func.func @f(%ids: tensor<?xi32>) -> tensor<?x24xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<24x8xbf16>
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<24x8xbf16>) -> tensor<?x8xbf16>
  %y = "sail.linear"(%x, %table) : (tensor<?x8xbf16>, tensor<24x8xbf16>) -> tensor<?x24xbf16>
  return %y : tensor<?x24xbf16>
}"#,
        );
        assert_eq!(text.matches("sail.weight").count(), 1, "{text}");
        assert!(text.contains(r#""sail.linear"(%x, %table)"#), "{text}");
        assert!(text.contains(r#""sail.embed"(%ids, %table)"#), "{text}");
    }

    const EXPERTS: &str = r#"
func.func @f(%x: tensor<?x8xbf16>) -> tensor<?x8xbf16> {
  %router = "sail.weight"() {join = "one", paths = ["r"]} : () -> tensor<3x8xbf16>
  %gate = "sail.weight"() {join = "stack", paths = ["g.0", "g.1", "g.2"]} : () -> tensor<3x10x8xbf16>
  %up = "sail.weight"() {join = "stack", paths = ["u.0", "u.1", "u.2"]} : () -> tensor<3x10x8xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1", "d.2"]} : () -> tensor<3x8x10xbf16>
  %logits = "sail.linear"(%x, %router) : (tensor<?x8xbf16>, tensor<3x8xbf16>) -> tensor<?x3xbf16>
  %route:2 = "sail.route"(%logits) {top_k = 2 : i64, renormalize = true} : (tensor<?x3xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %mix = "sail.experts"(%x, %route#0, %route#1, %gate, %up, %down) : (tensor<?x8xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>, tensor<3x10x8xbf16>, tensor<3x10x8xbf16>, tensor<3x8x10xbf16>) -> tensor<?x8xbf16>
  return %mix : tensor<?x8xbf16>
}"#;
}
