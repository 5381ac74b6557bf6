//! From a checked model to the `graph` stage: the model's own text, told to MLIR.
//!
//! Every verb of `GraphBuilder` becomes one op. Every value gets a name: a weight its path without
//! the part in front of the layer (`layers.0.mlp.gate_proj.weight`), a product the name of its
//! weight's module (`layers.0.mlp.gate_proj`), anything else the module it stands in and the op
//! (`layers.0.mlp.silu`).

use std::collections::{BTreeMap, BTreeSet};

use melior::Context;
use melior::dialect::func;
use melior::ir::attribute::{StringAttribute, TypeAttribute};
use melior::ir::operation::OperationLike;
use melior::ir::r#type::FunctionType;
use melior::ir::{self as mlir, Block, BlockLike, Location, Region, RegionLike, ValueLike};
use sail_ir::op::{Attribute, Attributes};
use sail_ir::{DType, GraphBuilder, Type, ops};
use sail_models::ModelSpec;
use sail_models::sail_vl2::forward::{self, Prompt};
use sail_models::sail_vl2::names;
use sail_models::spec::{AdapterSpec, VisionSpec};

use crate::dialect::{self, Draft};
use crate::stage::{Graph, Module};

/// The functions of a model: `@vision`, `@prefill`, `@decode`, and the first two with taps.
///
/// | function   | given                                                          | gives           |
/// |------------|----------------------------------------------------------------|-----------------|
/// | `@vision`  | `pixels [n, c, s, s]`                                          | `[n, p/4, d]`   |
/// | `@prefill` | `ids [t]`, `rows [t, 2]`, `image_rows [t]`, `features [n, p/4, d]`, `outputs [o]` | logits `[o, v]` |
/// | `@decode`  | `ids [t]`, `rows [t, 2]`                                       | logits `[t, v]` |
///
/// With taps, `@prefill.taps` has no `outputs` and gives the logits of all rows.
#[must_use]
pub fn graph<'c>(context: &'c Context, spec: &ModelSpec) -> Module<'c, Graph> {
    let tensors = names::tensors(spec).into_iter().map(|it| (it.name.clone(), it.shape()));
    let mut importer = Importer::new(context, tensors.collect());
    importer.vision(spec, "vision", false);
    importer.prefill(spec, "prefill", false);
    importer.decode(spec);
    importer.vision(spec, "vision.taps", true);
    importer.prefill(spec, "prefill.taps", true);
    Module::seal(context, importer.mlir)
        .unwrap_or_else(|errors| panic!("sailc: broken invariant `stage.graph`: {errors}"))
}

impl Importer<'_> {
    fn vision(&mut self, spec: &ModelSpec, name: &str, taps: bool) {
        let VisionSpec { channels, tile_size, .. } = spec.vision;
        let pixels = Type::rows(&[channels, tile_size, tile_size], DType::Bf16);
        self.function(name, taps, &[("pixels", pixels)], |g, given| {
            forward::vision(g, spec, given[0])
        });
    }

    fn prefill(&mut self, spec: &ModelSpec, name: &str, taps: bool) {
        let AdapterSpec { tile_tokens, out_width, .. } = spec.adapter;
        let [ids, rows] = tokens();
        let image_rows = ("image_rows", Type::rows(&[], DType::I32));
        let features = ("features", Type::rows(&[tile_tokens, out_width], DType::Bf16));
        let mut arguments = vec![ids, rows, image_rows, features];
        if !taps {
            arguments.push(("outputs", Type::rows(&[], DType::I32)));
        }
        self.function(name, taps, &arguments, |g, given| {
            let [ids, rows, image_rows, features] = given[..4] else {
                unreachable!("four arguments or five")
            };
            // With taps nothing reads the choice of rows; see `Builder::emit`.
            let outputs = given.get(4).copied().unwrap_or(ids);
            forward::prefill(g, spec, &Prompt { ids, rows, image_rows, features, outputs })
        });
    }

    fn decode(&mut self, spec: &ModelSpec) {
        self.function("decode", false, &tokens(), |g, given| {
            forward::decode(g, spec, given[0], given[1])
        });
    }
}

fn tokens() -> [(&'static str, Type); 2] {
    [("ids", Type::rows(&[], DType::I32)), ("rows", Type::rows(&[2], DType::I32))]
}

/// Shapes of the checkpoint's tensors, by path.
pub type Shapes = BTreeMap<String, Vec<u64>>;

/// Makes a module of the `graph` stage, one function after the other.
pub struct Importer<'c> {
    context: &'c Context,
    shapes: Shapes,
    mlir: mlir::Module<'c>,
}

impl<'c> Importer<'c> {
    #[must_use]
    pub fn new(context: &'c Context, shapes: Shapes) -> Self {
        let mlir = mlir::Module::new(Location::unknown(context));
        Self { context, shapes, mlir }
    }

    /// Add the function `name` with `arguments` (name and type), whose text `body` tells a builder
    /// given the arguments' values, and ends with what the function gives back.
    ///
    /// `taps`: keep what the text taps, under its name; then `select_rows` is left out, so that
    /// all rows can be looked at.
    pub fn function(
        &mut self,
        name: &str,
        taps: bool,
        arguments: &[(&str, Type)],
        body: impl for<'m> FnOnce(&mut Builder<'c, 'm>, &[Handle<'c, 'm>]) -> Handle<'c, 'm>,
    ) {
        let unknown = Location::unknown(self.context);
        let types: Vec<mlir::Type<'c>> =
            arguments.iter().map(|(_, ty)| dialect::type_to_mlir(self.context, ty)).collect();
        let located: Vec<_> = arguments
            .iter()
            .zip(&types)
            .map(|((name, _), ty)| (*ty, dialect::named(self.context, name, unknown)))
            .collect();
        let block = Block::new(&located);
        let given: Vec<Handle<'c, '_>> = (0..arguments.len())
            .map(|index| block.argument(index).expect("just made").into())
            .collect();
        let mut builder = Builder {
            context: self.context,
            shapes: &self.shapes,
            block: &block,
            taps,
            weights: BTreeMap::new(),
            names: arguments.iter().map(|(name, _)| (*name).to_owned()).collect(),
            module: String::new(),
        };
        let result = body(&mut builder, &given);
        let result_type = result.r#type();
        block.append_operation(func::r#return(&[result], unknown));
        let region = Region::new();
        region.append_block(block);
        self.mlir.body().append_operation(func::func(
            self.context,
            StringAttribute::new(self.context, name),
            TypeAttribute::new(FunctionType::new(self.context, &types, &[result_type]).into()),
            region,
            &[],
            unknown,
        ));
    }
}

/// A value while it is built.
pub type Handle<'c, 'm> = mlir::Value<'c, 'm>;

/// Appends an op for every verb.
pub struct Builder<'c, 'm> {
    context: &'c Context,
    shapes: &'m Shapes,
    block: &'m Block<'c>,
    taps: bool,
    /// Weights that were asked for, by their paths: a table that is the head as well is one value.
    weights: BTreeMap<Vec<String>, Handle<'c, 'm>>,
    names: BTreeSet<String>,
    /// Where in the checkpoint's modules the text is: `layers.0.mlp`.
    module: String,
}

impl<'c, 'm> GraphBuilder for Builder<'c, 'm> {
    type Value = Handle<'c, 'm>;

    fn weight(&mut self, path: &str) -> Self::Value {
        self.join(vec![path.to_owned()], "one")
    }

    fn stacked_weights(&mut self, paths: &[String]) -> Self::Value {
        self.join(paths.to_vec(), "stack")
    }

    fn emit(
        &mut self,
        name: &'static str,
        operands: &[Self::Value],
        attributes: Attributes,
    ) -> Vec<Self::Value> {
        if self.taps && name == "select_rows" {
            return vec![operands[0]];
        }
        let value_name = self.value_name(name, operands);
        self.append(name, operands, &attributes, &[], &value_name)
    }

    fn tap(&mut self, name: &str, x: Self::Value) {
        if self.taps {
            let attributes = [("name", Attribute::Text(name.to_owned()))].into_iter().collect();
            self.append("tap", &[x], &attributes, &[], "");
        }
    }
}

impl<'c, 'm> Builder<'c, 'm> {
    fn append(
        &mut self,
        op: &str,
        operands: &[Handle<'c, 'm>],
        attributes: &Attributes,
        written: &[Type],
        name: &str,
    ) -> Vec<Handle<'c, 'm>> {
        let row = ops::lookup(op)
            .unwrap_or_else(|| panic!("sailc: broken invariant `import.ops`: no op `{op}`"));
        let unknown = Location::unknown(self.context);
        let location = match name {
            "" => unknown,
            _ => dialect::named(self.context, &self.unique(name), unknown),
        };
        let draft = Draft { row, operands, attributes, written };
        let made = self.block.append_operation(draft.op(self.context, location));
        (0..made.result_count())
            .map(|at| made.result(at).expect("below the count").into())
            .collect()
    }

    /// The tensors `paths`, all of the shape of the first, as one weight.
    fn join(&mut self, paths: Vec<String>, join: &str) -> Handle<'c, 'm> {
        if let Some(weight) = self.weights.get(&paths) {
            return *weight;
        }
        let shape = self.shapes.get(&paths[0]).unwrap_or_else(|| {
            panic!("sailc: broken invariant `import.weights`: the spec has no `{}`", paths[0])
        });
        let mut sizes = shape.clone();
        if join == "stack" {
            sizes.insert(0, paths.len() as u64);
        }
        let attributes = [
            ("paths", Attribute::Texts(paths.clone())),
            ("join", Attribute::Text(join.to_owned())),
        ];
        let written = [Type::fixed(&sizes, DType::Bf16)];
        let name = weight_name(&paths);
        let weight =
            self.append("weight", &[], &attributes.into_iter().collect(), &written, &name)[0];
        self.weights.insert(paths, weight);
        weight
    }

    /// What to call the result of `op`, and where in the checkpoint's modules the text is now.
    fn value_name(&mut self, op: &str, operands: &[Handle<'c, 'm>]) -> String {
        let weights = operands.iter().filter_map(|value| dialect::name_of(value.location()));
        let modules = weights.filter_map(|name| Some(name.strip_suffix(".weight")?.to_owned()));
        let modules: Vec<String> = modules.collect();
        if let Some((parent, _)) = modules.first().and_then(|module| module.rsplit_once('.')) {
            self.module = parent.to_owned();
        }
        match (modules.as_slice(), self.module.as_str()) {
            ([only], _) => only.clone(),
            (_, "") => op.to_owned(),
            (_, module) if module.ends_with(op) => module.to_owned(),
            (_, module) => format!("{module}.{op}"),
        }
    }

    fn unique(&mut self, name: &str) -> String {
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
        let free = candidates.find(|name| !self.names.contains(name)).expect("numbers do not end");
        self.names.insert(free.clone());
        free
    }
}

/// A weight's path from the part before its first number on (`layers.0.mlp…`), or its last three
/// parts; of stacked weights without the number that differs.
fn weight_name(paths: &[String]) -> String {
    let mut parts: Vec<&str> = paths[0].split('.').collect();
    if let Some(other) = paths.get(1) {
        let differs = parts.iter().zip(other.split('.')).position(|(one, other)| *one != other);
        parts.remove(differs.expect("paths differ"));
    }
    let number = parts.iter().position(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let first = match number {
        Some(at) => at.saturating_sub(1),
        None => parts.len().saturating_sub(3),
    };
    parts[first..].join(".")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dialect::print;

    fn shapes() -> Shapes {
        [("a.m.0.norm.weight", vec![8]), ("a.m.0.up.weight", vec![24, 8])]
            .map(|(path, shape)| (path.to_owned(), shape))
            .into()
    }

    fn text(taps: bool) -> String {
        let context = dialect::context();
        let mut importer = Importer::new(&context, shapes());
        let tokens = Type::rows(&[8], DType::Bf16);
        let index = Type::rows(&[], DType::I32);
        importer.function("f", taps, &[("x", tokens), ("index", index)], |g, arguments| {
            let norm = g.weight("a.m.0.norm.weight");
            let h = g.rms_norm(arguments[0], norm, 0.5);
            g.tap("h", h);
            let up = g.weight("a.m.0.up.weight");
            let y = g.linear(h, up);
            let y = g.silu(y);
            let y = g.silu(y);
            g.select_rows(y, arguments[1])
        });
        print(&importer.mlir)
    }

    #[test]
    fn every_verb_is_an_op_and_every_value_has_a_name() {
        expect![[r#"
            func.func @f(%x: tensor<?x8xbf16>, %index: tensor<?xi32>) -> tensor<?x24xbf16> {
              %m.0.norm.weight = "sail.weight"() {join = "one", paths = ["a.m.0.norm.weight"]} : () -> tensor<8xbf16>
              %m.0.norm = "sail.rms_norm"(%x, %m.0.norm.weight) {eps = 5.000000e-01 : f64} : (tensor<?x8xbf16>, tensor<8xbf16>) -> tensor<?x8xbf16>
              %m.0.up.weight = "sail.weight"() {join = "one", paths = ["a.m.0.up.weight"]} : () -> tensor<24x8xbf16>
              %m.0.up = "sail.linear"(%m.0.norm, %m.0.up.weight) : (tensor<?x8xbf16>, tensor<24x8xbf16>) -> tensor<?x24xbf16>
              %m.0.silu = "sail.silu"(%m.0.up) : (tensor<?x24xbf16>) -> tensor<?x24xbf16>
              %m.0.silu_2 = "sail.silu"(%m.0.silu) : (tensor<?x24xbf16>) -> tensor<?x24xbf16>
              %m.0.select_rows = "sail.select_rows"(%m.0.silu_2, %index) : (tensor<?x24xbf16>, tensor<?xi32>) -> tensor<?x24xbf16>
              return %m.0.select_rows : tensor<?x24xbf16>
            }
        "#]].assert_eq(&text(false));
    }

    #[test]
    fn a_tapped_function_keeps_what_is_tapped_and_all_rows() {
        let text = text(true);
        assert!(text.contains(r#""sail.tap"(%m.0.norm) {name = "h"}"#), "{text}");
        assert!(!text.contains("select_rows"), "{text}");
    }

    #[test]
    fn stacked_weights_lose_the_number_that_differs() {
        let paths = ["a.layers.3.mlp.experts.0.up.weight", "a.layers.3.mlp.experts.1.up.weight"];
        assert_eq!(weight_name(&paths.map(str::to_owned)), "layers.3.mlp.experts.up.weight");
    }
}
