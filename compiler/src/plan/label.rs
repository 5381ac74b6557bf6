//! Names of steps for people: the checkpoint path of what a step computes.

use sail_ir::op::Attribute;

use super::flat::{FunctionView, OpView, ValueId};

/// Prefixes that say nothing once the function is known.
const KNOWN: [&str; 3] = ["language_model.model.", "language_model.", "vision_model."];

/// Remembers the last layer seen, for steps that read no weight.
#[derive(Debug, Default)]
pub struct Namer {
    layer: String,
}

impl Namer {
    /// `layers.0.self_attn.q_proj` from the weights the op reads; without weights, the layer of the
    /// op before and the op's name: `layers.0.attention`.
    pub fn label(&mut self, view: &FunctionView, op: &OpView) -> String {
        let paths: Vec<String> =
            op.operands.iter().flat_map(|operand| weight_paths(view, *operand)).collect();
        let Some(common) = common_path(&paths) else {
            return if self.layer.is_empty() {
                op.op.name.to_owned()
            } else {
                format!("{}.{}", self.layer, op.op.name)
            };
        };
        self.layer = layer_of(&common);
        if common == self.layer { format!("{common}.{}", op.op.name) } else { common }
    }
}

fn weight_paths(view: &FunctionView, value: ValueId) -> Vec<String> {
    match view.producer(value) {
        Some(op) if op.op.name == "weight" => match op.attributes.get("paths") {
            Some(Attribute::Texts(paths)) => paths.clone(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The longest run of dotted words that all paths start with, without the words everybody knows.
fn common_path(paths: &[String]) -> Option<String> {
    let first = paths.first()?;
    let mut words: Vec<&str> = first.split('.').collect();
    for path in &paths[1..] {
        let same = words.iter().zip(path.split('.')).take_while(|(a, b)| **a == *b).count();
        words.truncate(same);
    }
    if matches!(words.last(), Some(&("weight" | "bias"))) {
        words.pop();
    }
    let path = words.join(".");
    let known = KNOWN.iter().find_map(|prefix| path.strip_prefix(prefix));
    let path = known.map_or(path.clone(), str::to_owned);
    (!path.is_empty()).then_some(path)
}

/// The decoder layer that a label names.
#[must_use]
pub fn layer_number(label: &str) -> Option<u32> {
    label.split('.').find_map(|word| word.parse().ok())
}

/// Up to and with the first number: `layers.0` of `layers.0.self_attn.q_proj`; else the first word.
fn layer_of(path: &str) -> String {
    let words: Vec<&str> = path.split('.').collect();
    let end = words.iter().position(|word| word.parse::<u32>().is_ok()).map_or(1, |at| at + 1);
    words[..end.min(words.len())].join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(paths: &[&str]) -> Option<String> {
        common_path(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn several_weights_are_named_by_what_they_share() {
        let q = "language_model.model.layers.3.self_attn.q_proj.weight";
        let k = "language_model.model.layers.3.self_attn.k_proj.weight";
        assert_eq!(common(&[q]).unwrap(), "layers.3.self_attn.q_proj");
        assert_eq!(common(&[q, k]).unwrap(), "layers.3.self_attn");
        assert_eq!(common(&[]), None);
    }

    #[test]
    fn a_layer_ends_with_its_number() {
        assert_eq!(layer_of("layers.3.self_attn.q_proj"), "layers.3");
        assert_eq!(layer_of("trunk.blocks.11.attn"), "trunk.blocks.11");
        assert_eq!(layer_of("mlp1.0"), "mlp1.0");
        assert_eq!(layer_of("norm"), "norm");
        assert_eq!(layer_number("layers.11.mlp.gate"), Some(11));
        assert_eq!(layer_number("route"), None);
    }
}
