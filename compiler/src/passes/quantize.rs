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
use crate::recipe::{Asked, Recipe, RecipeError, Rule, layer_of};
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
    /// What reads it as a tensor beside its packed copy.
    beside: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    /// The rule with this number, or the scheme for all.
    Asked(Option<usize>),
    /// It stays `bf16`, whatever a pattern asks.
    Exception(Exception),
    /// No product reads it, but this does.
    NoProduct(&'static str),
}

pub(super) fn pass<'p>(recipe: &'p Recipe, outcome: &'p RefCell<Outcome>) -> Pass<'p> {
    Pass::new("quantize", move |function, rewriter| {
        let weights = function.ops().into_iter().filter(|op| op.is("weight"));
        // Collected at once: packing may erase ops further down.
        for weight in weights.collect::<Vec<_>>() {
            let products = products(weight);
            let mut decision = decide(weight, &products, recipe);
            // Nothing is packed otherwise when the recipe cannot be followed.
            let scheme = decision.as_ref().map_or(Scheme::Bf16, |decision| decision.scheme);
            let beside = pack(weight, &products, scheme, rewriter);
            if let Ok(decision) = &mut decision {
                decision.beside = beside;
            }
            outcome.borrow_mut().note(decision);
        }
    })
}

/// The ops that multiply `weight`.
fn products<'c, 'm>(weight: Op<'c, 'm>) -> Vec<Op<'c, 'm>> {
    let value = weight.result();
    let readers = value.readers().into_iter();
    readers.filter(|reader| reads_as(*reader, value, |row| row.packed)).collect()
}

/// Give `weight` a packed type, or `products` a packed copy where others read it, too: the first of
/// those.
fn pack<'c>(
    weight: Op<'c, '_>,
    products: &[Op<'c, '_>],
    scheme: Scheme,
    rewriter: &mut Rewriter<'c>,
) -> Option<&'static str> {
    let value = weight.result();
    let packed = packed_type(&value.ty(), scheme).filter(|_| !products.is_empty())?;
    let serves = |reader: &Op<'c, '_>| {
        reads_as(*reader, value, |row| row.packed)
            || scheme.keeps_values() && reads_as(*reader, value, |row| row.moved)
    };
    let Some(other) = value.readers().into_iter().find(|reader| !serves(reader)) else {
        rewriter.set_type(value, &packed);
        return None;
    };
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
    Some(other.name())
}

/// What `weight`, read by `products`, is stored as.
fn decide(
    weight: Op<'_, '_>,
    products: &[Op<'_, '_>],
    recipe: &Recipe,
) -> Result<Decision, RecipeError> {
    let layers = layers(weight);
    let decision = |scheme, why| {
        let layers = layers.clone();
        Decision { weight: weight.label(), layers, scheme, why, beside: None }
    };
    if products.is_empty() {
        let reader = weight.result().readers().first().map_or("nothing", |reader| reader.name());
        return Ok(decision(Scheme::Bf16, Why::NoProduct(reader)));
    }
    let alike: Vec<String> = layers.iter().cloned().chain(siblings(weight, products)).collect();
    let asked: Vec<Asked> = alike.iter().map(|layer| recipe.asked(layer)).collect();
    let first = asked.first().copied().unwrap_or(Asked { scheme: recipe.scheme, rule: None });
    if let Some(at) = asked.iter().position(|other| other.scheme != first.scheme) {
        return Err(RecipeError::Mixed {
            weight: weight.label(),
            layers: [alike[0].clone(), alike[at].clone()],
            schemes: [first.scheme, asked[at].scheme],
            experts: is_stack(weight),
        });
    }
    let by_name = first.rule.is_some_and(|rule| recipe.rules[rule].is_exact());
    match products.iter().find_map(|product| exception(*product)) {
        Some(Exception { always: true, because }) if by_name && first.scheme != Scheme::Bf16 => {
            Err(RecipeError::NoFit { layer: layers[0].clone(), scheme: first.scheme, because })
        }
        Some(exception) if exception.always || !by_name => {
            Ok(decision(Scheme::Bf16, Why::Exception(exception)))
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

/// The layers of another weight that needs the scheme of this one: gate and up of experts that are not
/// joined.
fn siblings(weight: Op<'_, '_>, products: &[Op<'_, '_>]) -> Vec<String> {
    let value = weight.result();
    let experts = products.iter().find(|product| product.is("experts"));
    let pair = experts.map(|experts| ["gate", "up"].map(|name| experts.operand(name)));
    match pair.filter(|pair| pair.contains(&value)) {
        Some(pair) => {
            let other = pair.into_iter().filter(|other| *other != value);
            other.filter_map(|other| other.made_by("weight")).flat_map(layers).collect()
        }
        None => Vec::new(),
    }
}

/// Are the parts of `weight` those of all experts of a layer?
fn is_stack(weight: Op<'_, '_>) -> bool {
    matches!(
        weight.attributes().get("join"),
        Some(Attribute::Text(join)) if join == "stack" || join == "stack_interleave"
    )
}

/// A product whose weight stays `bf16`.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Keep a decision, or the first error.
    fn note(&mut self, decision: Result<Decision, RecipeError>) {
        match decision {
            // A weight that several functions read is one weight, and all of them decide alike.
            Ok(decision) => {
                if self.decisions.iter().all(|known| known.weight != decision.weight) {
                    self.decisions.push(decision);
                }
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    /// Refuses what the recipe asks in vain. `tied`: the table of tokens, and the head that it is, too.
    pub(super) fn check(
        &mut self,
        recipe: &Recipe,
        tied: Option<[&str; 2]>,
    ) -> Result<(), RecipeError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        for (index, rule) in recipe.rules.iter().enumerate() {
            let multiplied = || {
                let of_products = |d: &&Decision| !matches!(d.why, Why::NoProduct(_));
                let decisions = self.decisions.iter().filter(of_products);
                decisions.flat_map(|d| d.layers.iter().map(move |layer| (layer.as_str(), d.why)))
            };
            let matched = || multiplied().filter(|(layer, _)| rule.matches(layer));
            let Some((one, _)) = matched().next() else {
                let all: Vec<_> = multiplied().map(|(layer, _)| layer).collect();
                return Err(unmatched(rule, &all, tied));
            };
            let taker = recipe.asked(one).rule;
            let mut left = matched().filter(|(layer, _)| recipe.asked(layer).rule == Some(index));
            let Some((layer, why)) = left.next() else {
                let by = &recipe.rules[taker.expect("a rule matches this layer")];
                let [rule, by] = [rule, by].map(|rule| rule.layers().to_owned());
                return Err(RecipeError::Shadowed { rule, by });
            };
            let stays = |why| matches!(why, Why::Exception(_)) && rule.scheme != Scheme::Bf16;
            if let Why::Exception(Exception { because, always }) = why
                && stays(why)
                && left.all(|(_, why)| stays(why))
            {
                let (rule, layer) = (rule.clone(), layer.to_owned());
                return Err(RecipeError::Vain { rule, layer, because, always });
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
        let beside = self.decisions.iter().filter(|decision| decision.beside.is_some()).count();
        let others = self.decisions.len() - counts.values().sum::<usize>() + beside;
        let counts = counts.iter().map(|(scheme, count)| format!("{count} {scheme}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        writeln!(text, "weights of products: {counts}; tensors as in the checkpoint: {others}")
            .expect(all);
        for Decision { weight, scheme, why, beside, .. } in &self.decisions {
            let why = Reason { why: *why, recipe };
            writeln!(text, "  %{weight}: {scheme}, {why}").expect(all);
            if let Some(reader) = beside {
                writeln!(
                    text,
                    "  %{weight}: a tensor in bf16 as well, because `{reader}` reads it, too, and is no product"
                )
                .expect(all);
            }
        }
        text
    }
}

/// A rule that none of `layers` answers to.
fn unmatched(rule: &Rule, layers: &[&str], tied: Option<[&str; 2]>) -> RecipeError {
    let name = rule.layers().to_owned();
    match tied.map(|pair| pair.map(layer_of)) {
        Some([table, head]) if rule.matches(head) => {
            RecipeError::Tied { rule: name, head: head.to_owned(), table: table.to_owned() }
        }
        _ => {
            let near = layers.iter().step_by(layers.len().div_ceil(3).max(1));
            RecipeError::Unmatched { rule: name, near: near.map(|&it| it.to_owned()).collect() }
        }
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
            Why::Exception(exception) => write!(f, "because {}", exception.because),
            Why::NoProduct(reader) => write!(f, "because no product reads it but `{reader}`"),
        }
    }
}
