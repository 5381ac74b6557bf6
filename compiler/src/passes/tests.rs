//! Whole models through all passes, with all rules and with none.

use std::path::Path;

use sail_models::{ModelSpec, WeightSource};

use super::*;
use crate::{dialect, import};

fn spec(golden: &str) -> ModelSpec {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(golden);
    sail_models::open(&dir, WeightSource::Random { seed: 1 }).unwrap().spec
}

/// Every stage's text, and the explanation.
fn stages(golden: &str, disabled_rules: Vec<String>) -> [String; 5] {
    let context = dialect::context();
    let settings = Settings { positions: 64, disabled_rules, ..Settings::default() };
    let passes = Passes::new(settings).unwrap();
    let graph = import::graph(&context, &spec(golden));
    let graph_text = graph.text();
    let fused = passes.fuse(graph);
    let fused_text = fused.text();
    let packed = passes.quantize(fused).unwrap();
    let packed_text = packed.text();
    let kernels = passes.lower(packed);
    [graph_text, fused_text, packed_text, kernels.text(), passes.explain_fuse()]
}

fn all_rules() -> Vec<String> {
    fuse::RULES.iter().map(|rule| rule.name.to_owned()).collect()
}

fn count(text: &str, op: &str) -> usize {
    text.matches(&format!("\"sail.{op}\"")).count()
}

#[test]
fn every_stage_of_every_model_is_read_back_from_its_text() {
    for golden in ["odd-dense", "odd-moe"] {
        for disabled in [Vec::new(), all_rules()] {
            let [graph, fused, packed, kernels, _] = stages(golden, disabled);
            let context = dialect::context();
            let again = |text: &str| dialect::print(&dialect::parse(&context, text, "t").unwrap());
            for text in [&graph, &fused, &packed, &kernels] {
                assert_eq!(again(text), *text);
            }
            assert_eq!(Module::<Graph>::parse(&context, &graph, "t").unwrap().text(), graph);
            assert_eq!(Module::<Fused>::parse(&context, &fused, "t").unwrap().text(), fused);
            assert_eq!(Module::<Packed>::parse(&context, &packed, "t").unwrap().text(), packed);
            assert_eq!(Module::<Kernels>::parse(&context, &kernels, "t").unwrap().text(), kernels);
        }
    }
}

#[test]
fn without_rules_every_op_of_the_graph_still_lowers() {
    let [graph, _, _, kernels, _] = stages("odd-moe", all_rules());
    for op in ["linear", "rms_norm", "head_norm", "rope", "silu", "attention", "select_rows"] {
        assert_eq!(count(&kernels, op), count(&graph, op), "{op}");
    }
    assert_eq!(count(&kernels, "experts"), 0);
    assert_eq!(
        count(&kernels, "combine") + count(&kernels, "combine_add"),
        count(&graph, "experts")
    );
}

#[test]
fn names_are_unique_within_a_function() {
    for text in stages("odd-moe", Vec::new()) {
        for function in text.split("func.func").skip(1) {
            let names = function.lines().filter_map(|line| line.trim().split_once(" = "));
            let mut names: Vec<_> = names.map(|(name, _)| name.split(':').next()).collect();
            let before = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), before);
        }
    }
}
