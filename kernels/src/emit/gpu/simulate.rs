//! Kernels for a GPU executed on this machine's processor, for tests.

use std::collections::BTreeMap;

use sail_ir::plan::{Count, TensorMap};
use sail_ir::target::Target;
use sail_ptxsim::{Device, Fault, Launch, Module, Options};

use crate::config::{Config, Parameter, REORDERING};
use crate::emit::nvptx::entry_name;
use crate::emit::run::Counts;
use crate::kernel::Kernel;
use crate::ptx::ptx;

/// Configs of a kernel of which all are tried.
const FEW: usize = 12;

/// `kernel` in its other configs, or, where they are many, with each value of each parameter beside the
/// rule's choice of the others; and whether that may change the order of a sum.
pub fn others(kernel: &dyn Kernel) -> Vec<(Box<dyn Kernel>, bool)> {
    let shaped = kernel.shaped().expect("there is a choice");
    let (own, mut configs) = (shaped.config(), shaped.configs());
    assert!(configs.contains(&own), "{own} is not in its own space");
    let space = shaped.space();
    if configs.len() > FEW {
        let differ = |config: &Config, it: &&Parameter| config.get(it.name) != own.get(it.name);
        configs.retain(|config| space.iter().filter(|it| differ(config, it)).count() <= 1);
    }
    configs.retain(|config| *config != own);
    let reorders = |config: &Config| {
        let mut orders = space.iter().filter(|it| REORDERING.contains(&it.name));
        orders.any(|it| config.get(it.name) != own.get(it.name))
    };
    let others = configs.iter().map(|config| {
        let other = shaped.with(config);
        assert_eq!(other.shaped().expect("it was shaped").config(), *config);
        assert_ne!(other.symbol(), kernel.symbol());
        (other, reorders(config))
    });
    others.collect()
}

/// What became of kernels with one ordering instruction less, or a weaker one.
pub struct Mutants {
    /// Where the simulator found no broken rule and the kernel wrote the same bytes, a sentence each.
    pub missed: Vec<String>,
    /// How many were tried, by opcode.
    pub tried: BTreeMap<String, usize>,
}

/// Try each instruction of `kernel` that orders warps, copies and products, but for those with an opcode in
/// `spared`.
pub fn without_order(
    kernel: &dyn Kernel,
    target: &Target,
    (counts, buffers): (Counts, &[Vec<u8>]),
    spared: &[&str],
) -> Mutants {
    let right = Simulated::new(kernel, target);
    let mutants = sail_ptxsim::mutants(right.text()).expect("it was parsed");
    let right = right.run(counts, buffers);
    let (mut missed, mut tried) = (Vec::new(), BTreeMap::new());
    for mutant in mutants {
        let opcode = mutant.instruction.split([' ', ';']).next().unwrap_or_default().to_owned();
        if spared.contains(&opcode.as_str()) {
            continue;
        }
        let wrong = Simulated::of_text(kernel, mutant.text);
        let same = |after: Vec<Vec<u8>>| {
            // What it works in is no buffer.
            let written = kernel.writes().iter().map(|at| *at as usize);
            written.filter(|at| *at < buffers.len()).all(|at| after[at] == right[at])
        };
        if wrong.try_run(counts, buffers).is_ok_and(same) {
            let (line, instead) = (mutant.line, &mutant.replacement);
            missed.push(format!("`{}` of line {line}: {instead}", mutant.instruction));
        }
        *tried.entry(opcode).or_insert(0) += 1;
    }
    Mutants { missed, tried }
}

/// A kernel as PTX, parsed.
pub struct Simulated<'a> {
    kernel: &'a dyn Kernel,
    module: Module,
    text: String,
}

impl<'a> Simulated<'a> {
    pub fn new(kernel: &'a dyn Kernel, target: &Target) -> Self {
        let text = ptx(&[kernel], target, 1).unwrap_or_else(|error| panic!("{error}")).text;
        Self::of_text(kernel, text)
    }

    /// `kernel`, as `text` has it.
    pub fn of_text(kernel: &'a dyn Kernel, text: String) -> Self {
        let module = Module::parse(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        Self { kernel, module, text }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the kernel makes of `buffers`, launched for more rows than the call has, as for the bound
    /// of a size class.
    ///
    /// Panics where it breaks a rule, writes what it only reads, or leaves a counter that is not 0.
    pub fn run(&self, counts: Counts, buffers: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let after = self.try_run(counts, buffers).unwrap_or_else(|fault| panic!("{fault}"));
        for (at, (before, after)) in buffers.iter().zip(&after).enumerate() {
            let written = self.kernel.writes().contains(&(at as u32));
            assert!(written || before == after, "`{}` wrote argument {at}", self.kernel.symbol());
        }
        after
    }

    /// The same, or the rule that it breaks.
    pub fn try_run(&self, counts: Counts, buffers: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Fault> {
        let kernel = self.kernel;
        let grid = kernel.grid();
        let count = match grid.count {
            Count::Tokens => counts.tokens,
            Count::Images => counts.images,
            Count::Outputs => counts.outputs,
        };
        let mut device = Device::new();
        let mut places = Vec::new();
        for bytes in buffers {
            let place = device.alloc(bytes.len() as u64);
            device.write(place, bytes)?;
            places.push(place);
        }
        if let Some(scratch) = kernel.scratch() {
            // Never written, as what stands in an arena is nothing to rely on.
            places.push(device.alloc(scratch.row_bytes * grid.rows(count)));
            let counters = u64::from(scratch.row_counters) * grid.rows(count);
            let counters = vec![0; 4 * counters.max(1) as usize];
            let place = device.alloc(counters.len() as u64);
            device.write(place, &counters)?;
            places.push(place);
        }
        assert_eq!(kernel.arguments().len(), places.len(), "one buffer for each argument");
        let words = [counts.tokens, counts.images, counts.outputs, counts.pages_per_slot];
        let control: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let place = device.alloc(control.len() as u64);
        device.write(place, &control)?;
        places.push(place);
        let mut params: Vec<u8> = places.iter().flat_map(|place| place.to_le_bytes()).collect();
        let block = kernel.thread_block().expect("it is a kernel for a GPU");
        for map in &block.tensor_maps {
            params.resize(params.len().next_multiple_of(64), 0);
            let argument = map.argument as usize;
            params.extend(encoded(map, (places[argument], buffers[argument].len() as u64), count));
        }
        let items = match block.most_blocks {
            0 => grid.items(count) + u64::from(grid.columns),
            // Few enough that a block has several items.
            most => u64::from(most.min(3)),
        };
        let programmatic = self.module.target() == "sm_90a";
        let launch = Launch {
            grid: [items as u32, 1, 1],
            block: [block.threads, 1, 1],
            dynamic_shared: block.shared_bytes,
            params: &params,
            options: Options { programmatic, ..Options::default() },
        };
        let entry = entry_name(&kernel.symbol());
        self.module.launch(&device, &entry, &launch)?;
        if let Some(scratch) = kernel.scratch().filter(|_| count > 0) {
            let place = places[places.len() - 2];
            let bytes = 4 * u64::from(scratch.row_counters) * grid.rows(count);
            let counters = device.read(place, bytes)?;
            assert!(counters.iter().all(|byte| *byte == 0), "`{}` counts on", kernel.symbol());
        }
        let after = places.iter().zip(buffers);
        after.map(|(place, before)| device.read(*place, before.len() as u64)).collect()
    }
}

/// A tensor map over the matrix of `bytes` at `base`, for `count` counted ones.
fn encoded(map: &TensorMap, (base, bytes): (u64, u64), count: u32) -> [u8; 128] {
    let dims = [map.columns, map.rows_of(count, bytes)];
    let base = (base, map.element_bytes);
    let map = sail_ptxsim::TensorMap::matrix(base, dims, map.row_bytes, map.block, map.swizzle);
    map.encode().unwrap_or_else(|fault| panic!("{fault}"))
}
