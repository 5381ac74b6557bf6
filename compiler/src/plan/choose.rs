//! Which kernel carries out an op, with which config, over which pointers.
//!
//! The only file of the compiler that knows kernel templates by name. Sizes come from the types of
//! the op's values, counts from what the plan builder propagated.

mod experts;
mod product;
mod rows;
mod sizes;

use sail_ir::op::Attribute;
use sail_ir::plan::Count;
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;
use sail_kernels::kernel::Kernel;
use sail_kernels::sample::ChooseToken;

use super::flat::{FunctionView, OpView};
use super::label::layer_number;
use super::weights::Source;
use crate::error::CompileError;
use crate::lock::Lock;
use crate::placement::Placement;

/// An op in its surroundings.
pub struct Scope<'a> {
    pub view: &'a FunctionView,
    pub op: &'a OpView,
    /// What the leading size of each value counts, as far as known.
    pub counts: &'a [Option<Count>],
    pub target: &'a Target,
    /// How keys and values are kept.
    pub cache: CacheScheme,
    /// Most counted rows of a call, and most rows of logits.
    pub most: [u32; 2],
    /// Where experts stand, if that is not their own order.
    pub placement: Option<&'a Placement>,
    /// Configs that take the place of the rules' choice.
    pub lock: Option<&'a Lock>,
}

/// What an op becomes.
pub enum Chosen {
    /// Bytes of the artifact.
    Weight(Source),
    /// The pool of a layer.
    Cache { layer: u32 },
    Step {
        kernel: Box<dyn Kernel>,
        arguments: Vec<Argument>,
        /// Whether its config comes from the lock.
        pinned: bool,
    },
}

/// Where a kernel's pointer points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// The buffer of the op's operand; a cache that is written is the result instead.
    Operand(usize),
    Result(usize),
    PageTable,
    /// The f32 copy for the person who asked.
    Tap,
    /// The buffer of the op's first result: which of so many experts each row goes through.
    Choice {
        of: u32,
    },
    /// The experts of a layer as they are stored.
    Order {
        layer: u32,
    },
    /// What the kernel works in.
    Scratch,
    /// Counters of the kernel.
    Counters,
}

/// Choose for one op.
///
/// Refuses an op that has no template on the target, and a pinned config that does not fit.
pub fn choose(scope: &Scope<'_>) -> Result<Chosen, CompileError> {
    let name = scope.op.op.name;
    let found = match name {
        "weight" => return Ok(Chosen::Weight(product::weight(scope))),
        "table" => return Ok(Chosen::Weight(rows::table(scope))),
        "cache" => return Ok(Chosen::Cache { layer: layer_of(scope.op) }),
        "linear"
        | "linear_bias"
        | "linear_add"
        | "linear_bias_gelu"
        | "norm_linear"
        | "shuffle_norm_linear_gelu"
        | "gate_up_silu"
        | "norm_gate_up_silu"
        | "patch_embed" => product::choose(scope),
        "route"
        | "linear_route"
        | "group_by_expert"
        | "norm_linear_route_group"
        | "grouped_gate_up_silu"
        | "grouped_linear"
        | "combine"
        | "combine_add" => experts::choose(scope),
        _ => rows::choose(scope),
    };
    let found = match scope.target.gpu() {
        Some(_) => found.and_then(|(kernel, arguments)| Some((on_gpu(scope, kernel)?, arguments))),
        None => found,
    };
    let (kernel, mut arguments) = found.ok_or_else(|| CompileError::NoTemplate {
        target: scope.target.name.clone(),
        ops: vec![format!("sail.{name}")],
    })?;
    let pinned = scope.lock.map(|lock| lock.pinned(kernel.as_ref(), scope.target)).transpose();
    let pinned = pinned.map_err(CompileError::Lock)?.flatten();
    let (kernel, pinned) = pinned.map_or((kernel, false), |kernel| (kernel, true));
    if kernel.scratch().is_some() {
        arguments.extend([Argument::Scratch, Argument::Counters]);
    }
    assert_eq!(
        kernel.arguments().len(),
        arguments.len(),
        "broken invariant `choose.arguments`: `{}`",
        kernel.symbol()
    );
    Ok(Chosen::Step { kernel, arguments, pinned })
}

/// The kernel of the same problem for a GPU.
fn on_gpu(scope: &Scope<'_>, kernel: Box<dyn Kernel>) -> Option<Box<dyn Kernel>> {
    let [rows, outputs] = scope.most;
    match kernel.thread_block() {
        Some(_) => Some(kernel),
        None => {
            let most = if kernel.grid().count == Count::Outputs { outputs } else { rows };
            kernel.on_gpu_for(scope.target, most)
        }
    }
}

/// What chooses the next token, where the device does: elsewhere the caller has the logits anyway.
#[must_use]
pub fn choose_token(target: &Target, vocabulary: u64, goes_on: bool) -> Option<Box<dyn Kernel>> {
    target.gpu()?;
    let vocabulary = u32::try_from(vocabulary).ok()?;
    Some(Box::new(ChooseToken { vocabulary, goes_on }))
}

/// Rules that make ops for which `target` has no kernel, by name: what they would fuse has kernels
/// there.
#[must_use]
pub fn unfused_on(target: &Target) -> &'static [&'static str] {
    match target.gpu() {
        Some(_) => &["linear_route", "patch_embed", "shuffle_norm_linear_gelu"],
        None => &["norm_linear_route_group"],
    }
}

/// A kernel and its pointers.
type Found = Option<(Box<dyn Kernel>, Vec<Argument>)>;

fn step(kernel: impl Kernel + 'static, arguments: &[Argument]) -> Found {
    Some((Box::new(kernel), arguments.to_vec()))
}

impl Scope<'_> {
    /// The layer whose expert has the tensor `path`, and the order in which its experts are stored,
    /// if that is not their own.
    fn order_of(&self, path: &str) -> Option<(u32, &[u32])> {
        let placement = self.placement?;
        let layer = layer_number(path)
            .unwrap_or_else(|| panic!("broken invariant `choose.layer`: `{path}` has none"));
        Some((layer, placement.of_layer(layer)))
    }
}

/// The decoder layer of a `cache` op.
pub fn layer_of(op: &OpView) -> u32 {
    match op.attributes.get("layer") {
        Some(Attribute::Int(layer)) => u32::try_from(*layer).expect("layers are counted in u32"),
        other => panic!("broken invariant `cache.layer`: {other:?}"),
    }
}
