//! Give the weights of products a scheme: their types change, no byte is touched.
//!
//! Which operands are weights of products is said by the op rows (`Op::packed`). Norms, biases and
//! positions stay tensors, and so does the embedding table, unless it is the head as well: a scheme
//! that keeps the values has rows to look up (`Op::moved`), and one copy serves both. In another
//! scheme, and for readers of any other kind, a weight stays a tensor beside its packed copy.
//!
//! The scheme is the one that the [`Recipe`] asks for. Products that decide much and weigh little
//! keep `bf16` unless they are asked for by their very name, see [`exception`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

use sail_ir::op::{Attribute, Op as Row};
use sail_ir::{Scheme, Type};

use super::Pass;
use crate::recipe::{Asked, Recipe, RecipeError, layer_of};
use crate::rewrite::Rewriter;
use crate::view::{Op, Value};

/// What became of the weights, and what the recipe asked in vain.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order of the first function that reads each.
    decisions: Vec<Decision>,
    /// The first thing that cannot be done.
    error: Option<RecipeError>,
}

/// What one weight is stored as.
#[derive(Debug, Clone, PartialEq)]
struct Decision {
    weight: String,
    layers: Vec<String>,
    scheme: Scheme,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    /// The rule with this number, or the scheme for all.
    Asked(Option<usize>),
    /// It stays `bf16` for this reason, whatever a pattern asks.
    Exception(&'static str),
    /// No product reads it, but this does.
    NoProduct(&'static str),
}

pub(super) fn pass<'p>(recipe: &'p Recipe, outcome: &'p RefCell<Outcome>) -> Pass<'p> {
    Pass::new("quantize", move |function, rewriter| {
        let weights = function.ops().into_iter().filter(|op| op.is("weight"));
        // Collected at once: packing may erase ops further down.
        for weight in weights.collect::<Vec<_>>() {
            let products = products(weight);
            let scheme = outcome.borrow_mut().note(decide(weight, &products, recipe));
            pack(weight, &products, scheme, rewriter);
        }
    })
}

/// The ops that multiply `weight`.
fn products<'c, 'm>(weight: Op<'c, 'm>) -> Vec<Op<'c, 'm>> {
    let value = weight.result();
    let readers = value.readers().into_iter();
    readers.filter(|reader| reads_as(*reader, value, |row| row.packed)).collect()
}

fn pack<'c>(
    weight: Op<'c, '_>,
    products: &[Op<'c, '_>],
    scheme: Scheme,
    rewriter: &mut Rewriter<'c>,
) {
    let value = weight.result();
    let Some(packed) = packed_type(&value.ty(), scheme).filter(|_| !products.is_empty()) else {
        return;
    };
    let serves = |reader: &Op<'c, '_>| {
        reads_as(*reader, value, |row| row.packed)
            || scheme.keeps_values() && reads_as(*reader, value, |row| row.moved)
    };
    if value.readers().iter().all(serves) {
        rewriter.set_type(value, &packed);
        return;
    }
    let name = format!("{}.packed", weight.label());
    let own = rewriter.insert_weight(weight, name, weight.attributes(), packed);
    for reader in products {
        let row = reader.row().expect("products are ops of the dialect");
        let mut operands = reader.operands();
        for (index, operand) in operands.iter_mut().enumerate() {
            let is_weight = row.operand_name(index).is_some_and(|name| row.packed.contains(&name));
            if is_weight && *operand == value {
                *operand = own;
            }
        }
        rewriter.rebuild(*reader, &operands);
    }
}

/// What `weight`, read by `products`, is stored as.
fn decide(
    weight: Op<'_, '_>,
    products: &[Op<'_, '_>],
    recipe: &Recipe,
) -> Result<Decision, RecipeError> {
    let layers = layers(weight);
    let decision =
        |scheme, why| Decision { weight: weight.label(), layers: layers.clone(), scheme, why };
    if products.is_empty() {
        let reader = weight.result().readers().first().map_or("nothing", |reader| reader.name());
        return Ok(decision(Scheme::Bf16, Why::NoProduct(reader)));
    }
    let asked: Vec<Asked> = layers.iter().map(|layer| recipe.asked(layer)).collect();
    let first = asked.first().copied().unwrap_or(Asked { scheme: recipe.scheme, rule: None });
    if let Some(at) = asked.iter().position(|other| other.scheme != first.scheme) {
        return Err(RecipeError::Mixed {
            weight: weight.label(),
            layers: [layers[0].clone(), layers[at].clone()],
            schemes: [first.scheme, asked[at].scheme],
        });
    }
    let by_name = first.rule.is_some_and(|rule| recipe.rules[rule].is_exact());
    match products.iter().find_map(|product| exception(*product)) {
        Some(Exception { always: true, because }) if by_name && first.scheme != Scheme::Bf16 => {
            Err(RecipeError::NoFit { layer: layers[0].clone(), scheme: first.scheme, because })
        }
        Some(Exception { always, because }) if always || !by_name => {
            Ok(decision(Scheme::Bf16, Why::Exception(because)))
        }
        _ => Ok(decision(first.scheme, Why::Asked(first.rule))),
    }
}

/// The layers whose weights are joined in `weight`.
fn layers(weight: Op<'_, '_>) -> Vec<String> {
    match weight.attributes().get("paths") {
        Some(Attribute::Texts(paths)) => {
            paths.iter().map(|path| layer_of(path).to_owned()).collect()
        }
        other => panic!("`sail.weight`: `paths` is {other:?}, not texts"),
    }
}

/// A product whose weight stays `bf16`.
struct Exception {
    because: &'static str,
    /// Also when a recipe names the layer: its kernel has no other scheme.
    always: bool,
}

/// Why the weight of a product stays `bf16`, if it does.
fn exception(product: Op<'_, '_>) -> Option<Exception> {
    const ROUTER: Exception = Exception {
        because: "a small error in a router's logits sends a token to other experts",
        always: true,
    };
    const PIXELS: Exception = Exception {
        because: "everything that is seen passes through the product of pixels",
        always: false,
    };
    let routes = |value: Value<'_, '_>| value.readers().iter().any(|reader| reader.is("route"));
    match product.name() {
        "linear_route" | "norm_linear_route_group" => Some(ROUTER),
        "linear" if routes(product.result()) => Some(ROUTER),
        "patch_embed" => Some(PIXELS),
        "linear_bias" if product.operand("x").made_by("patches").is_some() => Some(PIXELS),
        _ => None,
    }
}

/// Does `reader` read `value` as one of the operands that `names` gives of its row?
fn reads_as<'c, 'm>(
    reader: Op<'c, 'm>,
    value: Value<'c, 'm>,
    names: impl Fn(&Row) -> &'static [&'static str],
) -> bool {
    let names = reader.row().map_or(&[][..], names);
    names.iter().any(|name| reader.operand(name) == value)
}

fn packed_type(ty: &Type, scheme: Scheme) -> Option<Type> {
    let Type::Tensor { dims, .. } = ty else { return None };
    let dims = dims.iter().map(|dim| sail_ir::op::fixed("weight", *dim).ok());
    Some(Type::Packed { dims: dims.collect::<Option<_>>()?, scheme })
}

impl Outcome {
    /// Keep a decision; gives its scheme, `bf16` where there is none.
    fn note(&mut self, decision: Result<Decision, RecipeError>) -> Scheme {
        let decision = match decision {
            Ok(decision) => decision,
            Err(error) => {
                self.error.get_or_insert(error);
                return Scheme::Bf16;
            }
        };
        let scheme = decision.scheme;
        // A weight that several functions read is one weight, and all of them decide alike.
        if self.decisions.iter().all(|known| known.weight != decision.weight) {
            self.decisions.push(decision);
        }
        scheme
    }

    /// Refuses what the recipe asks in vain.
    pub(super) fn check(&mut self, recipe: &Recipe) -> Result<(), RecipeError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        for (index, rule) in recipe.rules.iter().enumerate() {
            let multiplied = || {
                let of_products = |d: &&Decision| !matches!(d.why, Why::NoProduct(_));
                let decisions = self.decisions.iter().filter(of_products);
                decisions.flat_map(|decision| decision.layers.iter())
            };
            let mut matched = multiplied().filter(|layer| rule.matches(layer)).peekable();
            let Some(one) = matched.peek().copied() else {
                let near = multiplied().step_by(multiplied().count().div_ceil(3).max(1));
                let near = near.cloned().collect();
                return Err(RecipeError::Unmatched { rule: rule.layers().to_owned(), near });
            };
            let taker = recipe.asked(one).rule;
            if matched.all(|layer| recipe.asked(layer).rule != Some(index)) {
                let by = &recipe.rules[taker.expect("a rule matches this layer")];
                let [rule, by] = [rule, by].map(|rule| rule.layers().to_owned());
                return Err(RecipeError::Shadowed { rule, by });
            }
        }
        Ok(())
    }

    /// What `--explain quantize` prints: how many weights have each scheme, then each and why.
    pub(super) fn explain(&self, recipe: &Recipe) -> String {
        let mut text = String::new();
        let mut counts: BTreeMap<Scheme, usize> = BTreeMap::new();
        let products = self.decisions.iter().filter(|d| !matches!(d.why, Why::NoProduct(_)));
        products.for_each(|decision| *counts.entry(decision.scheme).or_default() += 1);
        let all = "writing to a string cannot fail";
        let others = self.decisions.len() - counts.values().sum::<usize>();
        let counts = counts.iter().map(|(scheme, count)| format!("{count} {scheme}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        writeln!(text, "weights of products: {counts}; tensors as in the checkpoint: {others}")
            .expect(all);
        for Decision { weight, scheme, why, .. } in &self.decisions {
            let why = Reason { why: *why, recipe };
            writeln!(text, "  %{weight}: {scheme}, {why}").expect(all);
        }
        text
    }
}

/// Why a weight has its scheme, in words.
struct Reason<'r> {
    why: Why,
    recipe: &'r Recipe,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::Asked(None) => f.write_str("as asked for all"),
            Why::Asked(Some(rule)) => {
                write!(f, "as rule `{}` asks", self.recipe.rules[rule].layers())
            }
            Why::Exception(because) => write!(f, "because {because}"),
            Why::NoProduct(reader) => write!(f, "because no product reads it but `{reader}`"),
        }
    }
}
