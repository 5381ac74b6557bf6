//! A kernel of a CUDA target that solves the problem of one for x86-64: its name, arguments, cost and
//! meaning are that one's, its code and its grid are its own.

use std::sync::Arc;

use sail_ir::plan::{Cost, Grid};

use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::Builder;
use crate::emit::gpu::Deal;
use crate::gpu_model::{Expected, Way};
use crate::kernel::{Before, EmitError, Kernel, Rows, Scratch, ThreadBlock};

/// What writes the code of a kernel.
type Emit<P> = dyn Fn(&OnGpu<P>, &mut Builder<'_>) -> Result<(), EmitError> + Send + Sync;

/// What makes a kernel with a config.
type Make<P> = dyn Fn(&Config) -> OnGpu<P> + Send + Sync;

/// Scratch of a kernel, and its pointers with those two.
struct WorkedIn {
    scratch: Scratch,
    arguments: &'static [&'static str],
    writes: &'static [u32],
}

/// What can be chosen about a kernel, and what makes it with a config.
struct Shaping<P> {
    way: Box<dyn Way>,
    make: Box<Make<P>>,
}

/// The problem of `P` on a GPU.
pub struct OnGpu<P> {
    problem: P,
    /// What its symbol ends with: the config, where a problem has several.
    config: String,
    grid: Grid,
    block: ThreadBlock,
    before: Option<Box<dyn Fn() -> Before + Send + Sync>>,
    worked_in: Option<WorkedIn>,
    /// Where there is a choice: between what, and what was chosen.
    shaped: Option<(Arc<Shaping<P>>, Config)>,
    emit: Box<Emit<P>>,
}

impl<P: Kernel + Clone + 'static> OnGpu<P> {
    /// What `make` makes of the choice of `way`, and can make of others.
    pub(crate) fn by<W: Way + Clone + 'static>(
        way: W,
        make: impl Fn(&W, &Config) -> Self + Send + Sync + 'static,
    ) -> Self {
        let own = way.config();
        let ways = way.clone();
        let make = Box::new(move |config: &Config| make(&ways, config));
        Self::with_config(&Arc::new(Shaping { way: Box::new(way), make }), &own)
    }

    /// Named as ever where it is the choice of the rule, else by all that was chosen.
    fn with_config(shaping: &Arc<Shaping<P>>, config: &Config) -> Self {
        let mut kernel = (shaping.make)(config);
        if *config != shaping.way.config() {
            let values = config.to_string().replace('=', "").replace(' ', ".");
            kernel.config = format!("{}.{values}", kernel.config);
        }
        kernel.shaped = Some((Arc::clone(shaping), config.clone()));
        kernel
    }
}

impl<P: Kernel + Clone> OnGpu<P> {
    /// `problem` in the items of `grid`, each by a `block`, its code written by `emit`.
    pub(crate) fn new(
        problem: &P,
        grid: Grid,
        block: ThreadBlock,
        emit: impl Fn(&Self, &mut Builder<'_>) -> Result<(), EmitError> + Send + Sync + 'static,
    ) -> Self {
        let emit = Box::new(emit);
        Self {
            problem: problem.clone(),
            config: String::new(),
            grid,
            block,
            before: None,
            worked_in: None,
            shaped: None,
            emit,
        }
    }

    /// The same with the name of its config.
    pub(crate) fn named(self, config: String) -> Self {
        Self { config, ..self }
    }

    /// `problem` whose rows of `length` elements are dealt as [`Deal::of`] says; values of a row are
    /// joined at `joins` places of the code.
    pub(crate) fn by_rows(
        problem: &P,
        (rows, length): (Rows, u32),
        joins: u32,
        emit: impl Fn(&Self, &mut Builder<'_>) -> Result<(), EmitError> + Send + Sync + 'static,
    ) -> Self {
        let deal = Deal::of(length.into());
        let block = ThreadBlock::of(deal.threads).with_shared(deal.join_bytes(joins));
        Self::new(problem, rows.grid(deal.rows, 1), block, emit)
    }

    /// The same, after what `before` makes.
    pub(crate) fn after(self, before: impl Fn() -> Before + Send + Sync + 'static) -> Self {
        Self { before: Some(Box::new(before)), ..self }
    }

    /// The same with scratch: `arguments` and `writes` are those of the problem, with its two pointers
    /// after them.
    pub(crate) fn working_in(
        self,
        scratch: Scratch,
        arguments: &'static [&'static str],
        writes: &'static [u32],
    ) -> Self {
        let given = self.problem.arguments();
        assert!(
            arguments.starts_with(given) && arguments.len() == given.len() + 2,
            "scratch has two pointers, after those of the op"
        );
        Self { worked_in: Some(WorkedIn { scratch, arguments, writes }), ..self }
    }

    pub(crate) fn problem(&self) -> &P {
        &self.problem
    }
}

impl<P: Kernel + Clone + 'static> Kernel for OnGpu<P> {
    fn family(&self) -> &'static str {
        self.problem.family()
    }

    fn symbol(&self) -> String {
        let problem = self.problem.symbol();
        if self.config.is_empty() { problem } else { format!("{problem}.{}", self.config) }
    }

    fn arguments(&self) -> &'static [&'static str] {
        self.worked_in.as_ref().map_or_else(|| self.problem.arguments(), |it| it.arguments)
    }

    fn writes(&self) -> &'static [u32] {
        self.worked_in.as_ref().map_or_else(|| self.problem.writes(), |it| it.writes)
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        self.problem.cost()
    }

    fn before(&self) -> Option<Before> {
        self.before.as_ref().map(|before| before())
    }

    fn scratch(&self) -> Option<Scratch> {
        self.worked_in.as_ref().map(|it| it.scratch)
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        Some(self.block.clone())
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        self.shaped.as_ref().map(|_| self as &dyn Shaped)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        (self.emit)(self, k)
    }
}

impl<P> OnGpu<P> {
    fn choice(&self) -> &(Arc<Shaping<P>>, Config) {
        self.shaped.as_ref().expect("broken invariant `gpu.shaped`: it has no choice")
    }
}

impl<P: Kernel + Clone + 'static> Shaped for OnGpu<P> {
    fn config(&self) -> Config {
        self.choice().1.clone()
    }

    fn space(&self) -> Vec<Parameter> {
        self.choice().0.way.space()
    }

    fn fits(&self, config: &Config) -> bool {
        self.choice().0.way.fits(config)
    }

    /// The problem, the way, and the calls it is for.
    fn pinned_as(&self) -> String {
        let way = &self.choice().0.way;
        format!("{}.{}.most{}", self.problem.symbol(), way.name(), way.most_rows())
    }

    fn most_rows(&self) -> Option<u32> {
        Some(self.choice().0.way.most_rows())
    }

    fn expected(&self, rows: u32) -> Option<(Expected, String)> {
        let (shaping, config) = self.choice();
        let by_rule = *config == shaping.way.config();
        let reason = if by_rule { shaping.way.reason() } else { "as the lock says".to_owned() };
        Some((shaping.way.expected(config, rows), reason))
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        Box::new(Self::with_config(&self.choice().0, config))
    }

    /// No GPU runs it without a model.
    fn operands(&self, _count: u32) -> Vec<Operand> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{CacheWrite, PageLayout, QkNormRopeWrite, Rope};
    use crate::elementwise::{Activation, Add, AddPositions, Function, Mul};
    use crate::experts::{Combine, GroupByExpert, Route};
    use crate::norm::{LayerNorm, RmsNorm};
    use crate::ptx::ptx;
    use crate::ptxas::tests::judge;
    use crate::rows::{Columns, Embed, EmbedPitched, SelectRows, Splice, Tap};
    use crate::vision::{Patches, PixelShuffle};
    use sail_ir::CacheScheme;
    use sail_ir::target::Target;

    /// Problems of the shipped models, and widths that no vector divides.
    fn problems() -> Vec<Box<dyn Kernel>> {
        let rows = Rows::TOKENS;
        let layout = PageLayout { head_dim: 128, scheme: CacheScheme::Bf16 };
        let of_bytes = PageLayout { scheme: CacheScheme::Int8, ..layout };
        let mut problems: Vec<Box<dyn Kernel>> = vec![
            Box::new(AddPositions { patches: 1024, width: 1536 }),
            Box::new(RmsNorm::of_heads(rows, 16, 128, 1e-6)),
            Box::new(LayerNorm { rows, width: 6144, eps: 1e-5 }),
            Box::new(Columns { rows, width: 4096, first: 2048, count: 1024 }),
            Box::new(Patches { channels: 3, size: 448, patch: 14 }),
            Box::new(PixelShuffle { side: 32, width: 1536 }),
            Box::new(Rope { heads: 16, head_dim: 128 }),
            Box::new(CacheWrite { kv_heads: 8, layout }),
            Box::new(CacheWrite { kv_heads: 8, layout: of_bytes }),
            Box::new(QkNormRopeWrite { heads: 32, kv_heads: 4, layout, eps: 1e-6 }),
            Box::new(QkNormRopeWrite { heads: 32, kv_heads: 4, layout: of_bytes, eps: 1e-6 }),
            Box::new(Route { experts: 128, top_k: 8, renormalize: true }),
            Box::new(Route { experts: 5, top_k: 2, renormalize: false }),
            Box::new(GroupByExpert { experts: 128, top_k: 8 }),
            Box::new(Combine { width: 2048, top_k: 8, residual: true }),
            Box::new(Combine { width: 7, top_k: 2, residual: false }),
        ];
        for width in [7, 2048] {
            let function = if width == 7 { Function::Gelu } else { Function::Silu };
            let of_width: [Box<dyn Kernel>; 8] = [
                Box::new(Add { rows, width }),
                Box::new(Mul { rows, width }),
                Box::new(Activation { function, rows, width }),
                Box::new(RmsNorm { rows, width, eps: 1e-6 }),
                Box::new(Embed { width }),
                Box::new(Splice { width }),
                Box::new(SelectRows { width }),
                Box::new(Tap { rows, width }),
            ];
            problems.extend(of_width);
        }
        problems
    }

    #[test]
    fn bytes_of_a_picture_are_counted_once() {
        let bytes = |kernel: &dyn Kernel| kernel.cost().bytes(kernel.grid().rows(1), 0);
        let (patches, width) = (1024, 1536);
        let positions = AddPositions { patches: 1024, width: 1536 };
        assert_eq!(bytes(&positions), 3 * 2 * patches * width);
        assert_eq!(bytes(&PixelShuffle { side: 32, width: 1536 }), 2 * 2 * patches * width);
        let pixels = Patches { channels: 3, size: 448, patch: 14 };
        assert_eq!(bytes(&pixels), 2 * 2 * 3 * 448 * 448);
    }

    #[test]
    fn kernels_of_the_models_assemble_without_spills() {
        let mut kernels: Vec<_> =
            problems().iter().map(|problem| problem.on_gpu().expect("it has code")).collect();
        kernels.push(Box::new(EmbedPitched { width: 2048, pitch: 2048 }));
        let kernels: Vec<&dyn Kernel> = kernels.iter().map(AsRef::as_ref).collect();
        for name in ["sm_80", "sm_90"] {
            let target = Target::parse(name).unwrap();
            let ptx = ptx(&kernels, &target, 2).unwrap_or_else(|error| panic!("{error}"));
            let text = &ptx.text;
            assert_eq!(ptx.version(), "8.0");
            for (kernel, offset) in kernels.iter().zip(&ptx.offsets) {
                let entry = crate::emit::nvptx::entry_name(&kernel.symbol());
                let declared = format!(".visible .entry {entry}(");
                assert!(text[*offset as usize..].starts_with(&declared), "{entry}");
            }
            for kernel in &kernels {
                let row = crate::table::template(kernel.family()).expect("it has a row");
                assert!(row.targets.contains(&"nvptx"), "{}", row.name);
            }
            assert_eq!(text.matches(".visible .entry").count(), kernels.len());
            assert!(!text.contains("call"), "a kernel calls a library");
            if let Some(usage) = judge(text, &target, 64) {
                assert_eq!(usage.len(), kernels.len());
            }
        }
    }
}
