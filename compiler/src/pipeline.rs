//! The whole compiler, in the order it runs. Start reading here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sail_ir::artifact::{CudaCode, Measured, Recipe};
use sail_ir::id::{Id, KernelId};
use sail_ir::output;
use sail_ir::target::Target;
use sail_kernels::packing::fill::FillWeights;
use sail_kernels::ptx::Ptx;
use sail_kernels::{Kernel, ptx, ptxas};
use sail_models::{Model, WeightSource};

use crate::calibrate::Calibration;
use crate::error::{CompileError, Failure, boxed};
use crate::link::Assembled;
use crate::lock::Lock;
use crate::options::Options;
use crate::passes::{Passes, Settings};
use crate::placement::Placement;
use crate::plan::bounds::Bounds;
use crate::plan::build::{self, Draft, Given, OnGpu};
use crate::plan::choose::unfused_on;
use crate::quality::{PromptSet, Wanted};
use crate::stage::{Fused, Graph, Kernels, Module, Packed};
use crate::{calibrate, dialect, import, link, manifest, plan, quality};

/// Compile the checkpoint in `dir` into the file `output`.
///
/// Reads tensor bytes only in the last step, some panels at a time: memory stays at some megabytes
/// above the mapped checkpoint, whatever the size of the model. `progress` is told the bytes of
/// weights written so far, and of all, and says whether to go on.
///
/// Refuses what [`sail_models::open`] refuses, options the model has no room for, what the file
/// system refuses, and an artifact that misses its goals; the file at `output` is then as it was, and
/// so it is when `progress` says to stop.
pub fn compile(
    dir: &Path,
    options: &Options,
    output: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Report, Failure> {
    let model = sail_models::open(dir, options.weights).map_err(boxed)?; // checked files
    if options.quality.is_some() {
        quality::runs_here(&options.target).map_err(boxed)?;
    }
    let (mut artifact, mut report) = write(&model, options, output, progress)?;
    if let Some(wanted) = &options.quality {
        let measured = beside_bf16(&model, options, (&artifact, output), wanted, progress)?;
        artifact.note(measured)?;
        quality::judge(&artifact.manifest().quality, &wanted.goals).map_err(boxed)?;
    }
    report.bytes = artifact.bytes();
    artifact.publish()?;
    Ok(report)
}

/// Everything but the name of the file.
fn write(
    model: &Model,
    options: &Options,
    output: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(Assembled, Report), Failure> {
    let context = dialect::context();
    let bounds = Bounds::new(&model.spec, options).map_err(boxed)?;
    let passes = Passes::new(settings(options, &bounds, model).map_err(boxed)?).map_err(boxed)?;

    let mut graph: Module<Graph> = import::graph(&context, &model.spec); // what the model says
    let calibration = &calibrate::of_options(options, &graph, model)?; // what its products read
    if options.tap_inputs {
        graph = passes.tap_inputs(graph);
    }
    let mut fused: Module<Fused> = passes.fuse(graph); // fewer, larger ops
    if options.tap_inputs {
        fused = passes.tap_experts(fused);
    }
    let packed: Module<Packed> = passes.quantize(fused).map_err(boxed)?; // types of weights change
    let kernels: Module<Kernels> = passes.lower(packed); // one op, one step

    report_passes(&passes, options);
    let known = Known::of(options, model)?; // where experts stand, measured configs
    let mut draft: Draft = build::draft(&kernels, known.given(options, &bounds)).map_err(boxed)?; // buffers, order, configs
    known.tell(&draft, options);
    let code = draft.emit(options)?; // machine code or PTX, each distinct kernel once
    let (bytes, cubin) = (&code.bytes, code.cubin.as_deref());
    let recipe = draft.recipe(options, model);
    let sources = draft.sources.as_slice();
    let parts = link::Parts { code: bytes, cubin, sources, model, calibration, recipe };
    let cuda = code.cuda.clone();
    let mut manifest = manifest::manifest(model, options, cuda, draft.plan.clone());
    manifest.options.extend(calibration.echo());
    manifest.options.extend(known.echo());
    let artifact = link::assemble(&parts, manifest, output, options.threads, progress)?;
    let report = Report::new(&draft, &code, artifact.bytes());
    Ok((artifact, report))
}

/// Run the artifact and one of the same checkpoint in `bf16`, which is never given a name.
fn beside_bf16(
    model: &Model,
    options: &Options,
    (artifact, output): (&Assembled, &Path),
    wanted: &Wanted,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Measured, Failure> {
    let plain = options.in_bf16();
    let output = output.with_added_extension("bf16");
    let (reference, _) = write(model, &plain, &output, progress)?;
    quality::measure([reference.path(), artifact.path()], &wanted.prompts, options.threads)
}

/// Run the checkpoint in `dir` in `bf16` on `prompts`: what its products read.
///
/// The artifact for that stands beside `output` meanwhile and never has a name.
pub fn calibrate(
    dir: &Path,
    options: &Options,
    prompts: &PromptSet,
    output: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Calibration, Failure> {
    quality::runs_here(&options.target).map_err(boxed)?;
    let model = sail_models::open(dir, options.weights).map_err(boxed)?;
    let options = Options { tap_inputs: true, ..options.in_bf16() };
    let (artifact, _) = write(&model, &options, output, progress)?;
    calibrate::measure(artifact.path(), &model, prompts, options.threads)
}

/// Hand the kernels of the checkpoint in `dir`, shaped by rule, to `search`; those for looking inside
/// are left out.
///
/// Refuses what [`kernels`] and `search` refuse, and a target that this machine does not run.
pub fn tune<T>(
    dir: &Path,
    options: &Options,
    search: impl FnOnce(&[&dyn Kernel]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    quality::runs_here(&options.target).map_err(boxed)?;
    planned(dir, options, |draft| {
        let functions = draft.plan.functions.iter().filter(|it| !it.name.ends_with(".taps"));
        let steps = functions.flat_map(|function| function.steps.iter());
        let used: BTreeSet<_> = steps.map(|(_, step)| step.kernel.index()).collect();
        let kernels: Vec<_> = used.into_iter().map(|at| draft.kernels[at].as_ref()).collect();
        search(&kernels)
    })
}

/// What is chosen for each problem of the checkpoint in `dir` on a CUDA target, by its name in a lock.
///
/// Refuses what [`kernels`] refuses.
pub fn chosen(dir: &Path, options: &Options) -> Result<BTreeMap<String, OnGpu>, Failure> {
    planned(dir, options, |draft| Ok(draft.chosen.clone()))
}

/// Hand every kernel of the artifact that `dir` would become to `take`, in the order of its plan.
///
/// Refuses what [`sail_models::open`] and `take` refuse, and an op that has no kernel on the target.
pub fn kernels<T>(
    dir: &Path,
    options: &Options,
    take: impl FnOnce(&[&dyn Kernel]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    planned(dir, options, |draft| {
        let kernels: Vec<_> = draft.kernels.iter().map(AsRef::as_ref).collect();
        take(&kernels)
    })
}

/// The plan of the checkpoint in `dir`, without its code.
fn planned<T>(
    dir: &Path,
    options: &Options,
    take: impl FnOnce(&Draft) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let model = sail_models::open(dir, options.weights).map_err(boxed)?;
    let context = dialect::context();
    let bounds = Bounds::new(&model.spec, options).map_err(boxed)?;
    let passes = Passes::new(settings(options, &bounds, &model).map_err(boxed)?).map_err(boxed)?;
    let fused = passes.fuse(import::graph(&context, &model.spec));
    let packed = passes.quantize(fused).map_err(boxed)?;
    let known = Known::of(options, &model)?;
    let draft = build::draft(&passes.lower(packed), known.given(options, &bounds));
    take(&draft.map_err(boxed)?)
}

/// The text of a stage, without going further.
pub fn emit(dir: &Path, options: &Options, what: Emit) -> Result<String, Failure> {
    let model: Model = sail_models::open(dir, options.weights).map_err(boxed)?;
    let context = dialect::context();
    let bounds = Bounds::new(&model.spec, options).map_err(boxed)?;
    let passes = Passes::new(settings(options, &bounds, &model).map_err(boxed)?).map_err(boxed)?;
    let graph = import::graph(&context, &model.spec);
    if what == Emit::WhySmoothed {
        return Ok(calibrate::of_options(options, &graph, &model)?.explain_smooth());
    }
    let known = Known::of(options, &model)?;
    let text = emit_from(graph, &passes, known.given(options, &bounds), what);
    report_passes(&passes, options);
    text
}

fn emit_from(
    graph: Module<'_, Graph>,
    passes: &Passes,
    given: Given<'_>,
    what: Emit,
) -> Result<String, Failure> {
    if what == Emit::Graph {
        return Ok(graph.text());
    }
    let fused = passes.fuse(graph);
    match what {
        Emit::Fused => return Ok(fused.text()),
        Emit::WhyFused => return Ok(passes.explain_fuse()),
        _ => {}
    }
    let packed = passes.quantize(fused).map_err(boxed)?;
    match what {
        Emit::Packed => return Ok(packed.text()),
        Emit::WhyQuantized => return Ok(passes.explain_quantize()),
        _ => {}
    }
    let kernels = passes.lower(packed);
    if what == Emit::Kernels {
        return Ok(kernels.text());
    }
    let draft = build::draft(&kernels, given).map_err(boxed)?;
    match what {
        Emit::Plan => plan::text::checked(&dialect::context(), &draft.plan).map_err(boxed),
        Emit::WhyKernels => Ok(plan::explain::text(&draft, given.target)),
        Emit::Ptx if given.target.gpu().is_none() => {
            Err(boxed(CompileError::NoPtx { target: given.target.name.clone() }))
        }
        Emit::Ptx => Ok(draft.ptx(given.target, (1, false))?.text),
        Emit::Llvm => draft.print(|kernel| sail_kernels::llvm_ir(kernel, given.target)),
        _ => draft.print(|kernel| sail_kernels::assembly(kernel, given.target)),
    }
}

/// What earlier runs found out, as options name it.
struct Known {
    placement: Option<Placement>,
    lock: Option<Lock>,
}

impl Known {
    fn of(options: &Options, model: &Model) -> Result<Self, Failure> {
        let profile = options.expert_profile.as_deref();
        let placement = profile.map(|path| Placement::open(path, &model.spec).map_err(boxed));
        let lock = options.lock.as_deref().map(|path| Lock::open(path).map_err(boxed));
        Ok(Self { placement: placement.transpose()?, lock: lock.transpose()? })
    }

    fn given<'a>(&'a self, options: &'a Options, bounds: &'a Bounds) -> Given<'a> {
        let (placement, lock) = (self.placement.as_ref(), self.lock.as_ref());
        Given { target: &options.target, bounds, placement, lock }
    }

    /// The options that brought it.
    fn echo(&self) -> impl Iterator<Item = String> {
        let placement = self.placement.iter().map(Placement::echo);
        placement.chain(self.lock.iter().map(Lock::echo))
    }

    /// A lock of which nothing fits was hardly meant.
    fn tell(&self, draft: &Draft, options: &Options) {
        if let Some(lock) = self.lock.as_ref().filter(|_| draft.pinned == 0) {
            output::tell(&format!(
                "warning: `{}` pins no kernel of this model for `{}`\n",
                lock.path(),
                options.target
            ));
        }
    }
}

/// Refuses a recipe with a scheme that the target lacks.
fn settings(options: &Options, bounds: &Bounds, model: &Model) -> Result<Settings, CompileError> {
    let recipe = options.recipe();
    for scheme in recipe.schemes() {
        if let Some(because) = scheme.missing_on(&options.target) {
            let target = options.target.to_string();
            return Err(CompileError::MissingScheme { scheme, target, because });
        }
    }
    Ok(Settings {
        recipe,
        positions: u64::from(bounds.max_positions),
        tied: model.tied(),
        disabled_rules: options
            .disabled_rules
            .iter()
            .map(String::as_str)
            .chain(unfused_on(&options.target).iter().copied())
            .map(str::to_owned)
            .collect(),
        print_after: options.print_ir_after.clone(),
    })
}

/// What `--print-ir-after` and `--timings` asked for, on standard error.
fn report_passes(passes: &Passes, options: &Options) {
    let watch = passes.watch();
    for (pass, text) in &watch.printed {
        output::tell(&format!("// after {pass}\n{text}\n"));
    }
    if options.timings {
        for (pass, time) in &watch.times {
            output::tell(&format!("{:>9.3} ms  pass {pass}\n", time.as_secs_f64() * 1e3));
        }
    }
}

/// What [`emit`] can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    Graph,
    Fused,
    Packed,
    Kernels,
    Plan,
    /// LLVM IR of every kernel.
    Llvm,
    /// Assembly of every kernel.
    Assembly,
    /// The PTX text that a CUDA artifact holds.
    Ptx,
    /// What the fusion rules did and declined.
    WhyFused,
    /// What each weight is stored as.
    WhyQuantized,
    /// Which outliers are moved into which weights.
    WhySmoothed,
    /// What each kernel is expected to take, and why it is shaped as it is.
    WhyKernels,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of the file.
    pub bytes: u64,
    pub kernels: usize,
    pub code_bytes: u64,
    pub weight_bytes: u64,
}

impl Report {
    fn new(draft: &Draft, code: &Emitted, bytes: u64) -> Self {
        Self {
            bytes,
            kernels: draft.kernels.len(),
            code_bytes: code.bytes.len() as u64,
            weight_bytes: draft.plan.weights.iter().map(|(_, weight)| weight.bytes).sum(),
        }
    }
}

/// NVIDIA's assembler; a warning where there is none, as what is lost is only seen on a GPU.
fn assembler(architecture: &str) -> Option<PathBuf> {
    let told = |absent: ptxas::Absent| {
        output::tell(&format!(
            "warning: the file has no machine code for `{architecture}`: opening it, the driver assembles its \
             PTX, which takes seconds\n  because {absent}\n\nhint: {}\n",
            ptxas::HINT
        ));
    };
    ptxas::find().map_err(told).ok()
}

/// The code of all kernels.
struct Emitted {
    /// Machine code, or PTX text.
    bytes: Vec<u8>,
    cubin: Option<Vec<u8>>,
    cuda: Option<CudaCode>,
}

impl Draft {
    /// Generate the code and note in the plan where each kernel starts.
    fn emit(&mut self, options: &Options) -> Result<Emitted, Failure> {
        let (code, offsets) = match options.target.ptx_architecture() {
            Some(architecture) => self.assembled(options, architecture)?,
            None => {
                let kernels: Vec<_> = self.kernels.iter().map(AsRef::as_ref).collect();
                let code = sail_kernels::compile(&kernels, &options.target, options.threads);
                let code = code.map_err(boxed)?;
                (Emitted { bytes: code.bytes, cubin: None, cuda: None }, code.offsets)
            }
        };
        // What makes weights stands behind the kernels of the plan.
        for (index, offset) in offsets.iter().take(self.kernels.len()).enumerate() {
            self.plan.kernels[KernelId::new(index)].offset = *offset;
        }
        self.plan
            .verify()
            .map_err(|error| boxed(CompileError::Plan { because: error.to_string() }))?;
        Ok(code)
    }

    /// How weights are made that are not stored.
    fn recipe(&self, options: &Options, model: &Model) -> Option<Recipe> {
        let WeightSource::Random { seed } = options.weights else { return None };
        let kernel = options.target.gpu().and_then(|_| ptx::launch(&FillWeights));
        let weights = (&self.plan.weights, self.sources.as_slice());
        options.code_only.then(|| link::made::recipe(weights, &model.weights, seed, kernel))
    }

    fn ptx(&self, target: &Target, (threads, makes): (usize, bool)) -> Result<Ptx, Failure> {
        let mut kernels: Vec<_> = self.kernels.iter().map(AsRef::as_ref).collect();
        if makes {
            kernels.push(&FillWeights);
        }
        ptx::ptx(&kernels, target, threads).map_err(boxed)
    }

    /// PTX, and machine code where there is an assembler. What it warns of goes to standard error.
    fn assembled(
        &self,
        options: &Options,
        architecture: &str,
    ) -> Result<(Emitted, Vec<u64>), Failure> {
        let ptx = self.ptx(&options.target, (options.threads, options.code_only))?;
        let assembler = options.assemble.then(|| assembler(architecture)).flatten();
        let cubin = assembler
            .map(|path| ptxas::assemble(&path, &ptx.text, architecture))
            .transpose()
            .map_err(|error| boxed(CompileError::Ptxas { error }))?;
        for warning in cubin.iter().flat_map(|cubin| &cubin.warnings) {
            output::tell(&format!("warning: {warning}\n"));
        }
        let mut cuda = CudaCode {
            ptx_version: ptx.version().to_owned(),
            architecture: architecture.to_owned(),
            assembler: cubin.as_ref().map(|cubin| cubin.assembler.to_string()),
            usage: Vec::new(),
        };
        let cubin = cubin.map(|cubin| {
            // In the assembler's own order, with what makes weights somewhere among them.
            let entries = self.plan.kernels.iter().filter_map(|(_, kernel)| kernel.cuda.as_ref());
            let entries: BTreeSet<&str> = entries.map(|cuda| cuda.entry.as_str()).collect();
            cuda.usage = cubin.usage;
            cuda.usage.retain(|usage| entries.contains(usage.entry.as_str()));
            cubin.bytes
        });
        Ok((Emitted { bytes: ptx.text.into_bytes(), cubin, cuda: Some(cuda) }, ptx.offsets))
    }

    fn print(
        &self,
        text: impl Fn(&dyn Kernel) -> Result<String, sail_kernels::EmitError>,
    ) -> Result<String, Failure> {
        let texts = self.kernels.iter().map(|kernel| text(kernel.as_ref()));
        Ok(texts.collect::<Result<Vec<_>, _>>().map_err(boxed)?.join("\n"))
    }
}
