//! The passes, run by MLIR's pass manager: each takes a sealed module to the next stage.
//!
//! In order: `fuse` and `erase_dead` to stage `fused`, `quantize` to `packed`, `lower` and
//! `erase_dead` to `kernels`; `tap_inputs` before `fuse` and
//! `tap_experts` behind it, when calibrating; `smooth` looks at stage `graph` and changes no op. What a pass leaves is verified when it is sealed; a violation is our
//! own bug and panics.

mod erase_dead;
pub mod fuse;
mod lower;
pub mod quantize;
pub mod smooth;
pub mod tap_inputs;

use std::cell::{Ref, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use melior::Context;
use melior::ir::{self as mlir, r#type::TypeId};
use melior::pass::{ExternalPass, PassManager, create_external};
use sail_ir::{Help, Scheme};

use crate::dialect;
use crate::recipe::{Recipe, RecipeError};
use crate::rewrite::{Record, Rewriter, Rule};
use crate::stage::{Fused, Graph, Kernels, Module, Packed, Stage};
use crate::view::{self, Function};

/// What the passes are told.
#[derive(Debug, Clone)]
pub struct Settings {
    pub recipe: Recipe,
    /// Longest sequence: rows of RoPE's tables.
    pub positions: u64,
    /// The table of tokens, and the head whose weight it is as well.
    pub tied: Option<[&'static str; 2]>,
    /// Fusion rules that are not applied, by name.
    pub disabled_rules: Vec<String>,
    /// Passes after which the module is printed, by name: `--print-ir-after`.
    pub print_after: Vec<String>,
}

/// The passes of one compile, and what was seen while they ran.
#[derive(Debug)]
pub struct Passes {
    settings: Settings,
    rules: Vec<Rule>,
    watch: RefCell<Watch>,
}

/// What was seen while passes ran.
#[derive(Debug, Default)]
pub struct Watch {
    /// Pass and text, in the order they ran.
    pub printed: Vec<(&'static str, String)>,
    /// Pass and time it took, in the order they ran: `--timings`.
    pub times: Vec<(&'static str, Duration)>,
    /// What each rule did at each op.
    pub records: Vec<Record>,
    /// What became of each weight.
    pub quantized: quantize::Outcome,
}

impl Default for Settings {
    fn default() -> Self {
        let (disabled_rules, print_after) = (Vec::new(), Vec::new());
        let recipe = Scheme::Bf16.into();
        Self { recipe, positions: 0, tied: None, disabled_rules, print_after }
    }
}

impl Passes {
    /// Refuses a rule or a pass that there is not.
    pub fn new(settings: Settings) -> Result<Self, UnknownName> {
        let known: Vec<&str> = fuse::RULES.iter().map(|rule| rule.name).collect();
        UnknownName::check("rule", &settings.disabled_rules, &known)?;
        UnknownName::check("pass", &settings.print_after, &NAMES)?;
        let enabled = |rule: &&Rule| settings.disabled_rules.iter().all(|name| name != rule.name);
        let rules = fuse::RULES.iter().filter(enabled).copied().collect();
        Ok(Self { settings, rules, watch: RefCell::default() })
    }

    /// What products read, tapped.
    pub fn tap_inputs<'c>(&self, module: Module<'c, Graph>) -> Module<'c, Graph> {
        self.run(module.open(), vec![tap_inputs::pass()])
    }

    /// Fewer, larger ops: every rule that is not disabled, until none fires.
    pub fn fuse<'c>(&self, module: Module<'c, Graph>) -> Module<'c, Fused> {
        self.run_rules(module.open())
    }

    fn run_rules<'c>(&self, module: (&'c Context, mlir::Module<'c>)) -> Module<'c, Fused> {
        let records = RefCell::new(Vec::new());
        let passes = vec![fuse::pass(&self.rules, &records), erase_dead::pass()];
        let fused = self.run(module, passes);
        self.watch.borrow_mut().records = records.take();
        fused
    }

    /// What the last products of experts read, tapped.
    pub fn tap_experts<'c>(&self, module: Module<'c, Fused>) -> Module<'c, Fused> {
        self.run(module.open(), vec![tap_inputs::experts_pass()])
    }

    /// Every weight of a product in the scheme that the recipe asks for.
    ///
    /// Refuses a recipe that asks something in vain.
    pub fn quantize<'c>(
        &self,
        module: Module<'c, Fused>,
    ) -> Result<Module<'c, Packed>, RecipeError> {
        let recipe = &self.settings.recipe;
        let outcome = RefCell::default();
        let packed = self.run(module.open(), vec![quantize::pass(recipe, &outcome)]);
        let mut outcome = outcome.into_inner();
        outcome.check(recipe, self.settings.tied)?;
        self.watch.borrow_mut().quantized = outcome;
        Ok(packed)
    }

    /// Every op as a kernel exists for it.
    pub fn lower<'c>(&self, module: Module<'c, Packed>) -> Module<'c, Kernels> {
        let passes = vec![lower::pass(self.settings.positions), erase_dead::pass()];
        self.run(module.open(), passes)
    }

    /// What `--explain fuse` prints.
    pub fn explain_fuse(&self) -> String {
        fuse::explain(&self.rules, &self.watch.borrow().records)
    }

    /// What `--explain quantize` prints.
    pub fn explain_quantize(&self) -> String {
        self.watch.borrow().quantized.explain(&self.settings.recipe)
    }

    /// What was seen up to now.
    pub fn watch(&self) -> Ref<'_, Watch> {
        self.watch.borrow()
    }

    /// Run `passes` on `module` and seal what they leave as stage `To`.
    fn run<'c, To: Stage>(
        &self,
        (context, mut module): (&'c Context, mlir::Module<'c>),
        passes: Vec<Pass<'_>>,
    ) -> Module<'c, To> {
        let panic = RefCell::new(None);
        let manager = PassManager::new(context);
        manager.enable_verifier(false); // sealing verifies, and says more
        for pass in passes {
            let name = pass.name;
            let id = NAMES.iter().position(|known| *known == name).expect("a pass of the table");
            let body = Rc::new(RefCell::new(pass.body));
            let panic = &panic;
            let run = move |op: mlir::OperationRef<'_, '_>, pass: ExternalPass<'_>| {
                let work = || self.run_one(context, name, &mut *body.borrow_mut(), op);
                // A panic must not unwind through MLIR: it is kept and goes on after the run.
                if let Err(caught) = catch_unwind(AssertUnwindSafe(work)) {
                    *panic.borrow_mut() = Some(caught);
                    pass.signal_failure();
                }
            };
            let id = TypeId::create(&IDS[id]);
            manager.add_pass(create_external(run, id, name, name, "", "builtin.module", &[]));
        }
        let outcome = manager.run(&mut module);
        if let Some(caught) = panic.take() {
            resume_unwind(caught);
        }
        outcome.expect("a pass fails only by panicking");
        Module::seal(context, module).unwrap_or_else(|errors| {
            panic!("sailc: broken invariant `stage.{}`: {errors}", To::NAME)
        })
    }

    fn run_one(
        &self,
        context: &Context,
        name: &'static str,
        body: &mut Body<'_>,
        op: mlir::OperationRef<'_, '_>,
    ) {
        let started = Instant::now();
        let mut rewriter = Rewriter::new(dialect::context_of_op(context, op));
        for function in view::functions_of(op) {
            body(function, &mut rewriter);
        }
        let mut watch = self.watch.borrow_mut();
        watch.times.push((name, started.elapsed()));
        if self.settings.print_after.iter().any(|wanted| wanted == name) {
            watch.printed.push((name, dialect::print_op(op)));
        }
    }
}

/// Names of all passes, in the order they run.
pub const NAMES: [&str; 6] =
    ["tap_inputs", "fuse", "erase_dead", "tap_experts", "quantize", "lower"];

/// A pass: its name, and what it does to each function of a module.
struct Pass<'p> {
    name: &'static str,
    body: Box<Body<'p>>,
}

type Body<'p> = dyn for<'c, 'm> FnMut(Function<'c, 'm>, &mut Rewriter<'c>) + 'p;

impl<'p> Pass<'p> {
    fn new(
        name: &'static str,
        body: impl for<'c, 'm> FnMut(Function<'c, 'm>, &mut Rewriter<'c>) + 'p,
    ) -> Self {
        Self { name, body: Box::new(body) }
    }
}

/// A rule or pass that was asked for and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// `rule` or `pass`.
    pub what: &'static str,
    pub name: String,
    pub known: String,
}

impl UnknownName {
    fn check(what: &'static str, asked: &[String], known: &[&str]) -> Result<(), Self> {
        let unknown = asked.iter().find(|name| !known.contains(&name.as_str()));
        let list = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        unknown.map_or(Ok(()), |name| Err(Self { what, name: name.clone(), known: list() }))
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} `{}`", self.what, self.name)
    }
}

impl std::error::Error for UnknownName {}

impl Help for UnknownName {
    fn code(&self) -> &'static str {
        "SC0103"
    }
    fn hint(&self) -> Option<String> {
        Some(format!("known: {}", self.known))
    }
    fn exit_code(&self) -> u8 {
        2
    }
}

/// MLIR tells passes apart by the address of something.
#[repr(align(8))]
struct Id(#[expect(dead_code, reason = "gives each element an address of its own")] u8);

static IDS: [Id; NAMES.len()] = [Id(0), Id(1), Id(2), Id(3), Id(4), Id(5)];

#[cfg(test)]
mod tests;
