//! The public face: modules, launches, statistics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::code::Kernel;
use crate::decode::decode;
use crate::device::{Device, MAX_BLOCKS};
use crate::fault::{Fault, Kind};
use crate::machine::{Machine, Shape, Turn, Words};
use crate::parse::parse;

/// Shared memory that a block of `sm_90` may have.
const MAX_SHARED: u64 = 227 * 1024;

/// A parsed and decoded PTX module.
#[derive(Debug)]
pub struct Module {
    source: String,
    target: String,
    kernels: Vec<Kernel>,
}

/// How to launch a kernel.
#[derive(Clone, Debug)]
pub struct Launch<'p> {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    /// The parameters as they lie in memory: each at a multiple of its size.
    pub params: &'p [u8],
    pub options: Options,
}

/// What a launch may use, beside what the kernel asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Blocks of a cluster; a kernel that requires a size overrides it.
    pub cluster: [u32; 3],
    /// Warp instructions of one block after which the kernel counts as endless.
    pub budget: u64,
    /// Threads of this machine to spread blocks over; 0 for as many as it has cores.
    pub threads: usize,
    /// The kernel may start before those launched earlier have ended: before `griddepcontrol.wait` it
    /// may write nothing, and read nothing that an earlier kernel wrote, unless that one has settled
    /// ([`Device::settle`]); and a thread of it must come there.
    pub programmatic: bool,
    /// Clusters to run, by number; all where there are none, and where blocks wait for each other.
    pub only: Vec<u64>,
    /// Matrix units give numbers that are made of all factors, and no sums of their products: enough to
    /// find out whether a factor is another one, and much less work.
    pub stirred: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: [1; 3],
            budget: 1 << 32,
            threads: 0,
            programmatic: false,
            only: Vec::new(),
            stirred: false,
        }
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Instructions of warps.
    pub instructions: u64,
    /// Instructions of lanes.
    pub lane_instructions: u64,
    /// Accesses of warps to shared memory.
    pub shared_accesses: u64,
    /// Times that shared memory had to be asked again because lanes met in a bank.
    pub bank_conflicts: u64,
    /// Barriers completed.
    pub barriers: u64,
    /// Tensor-core instructions.
    pub products: u64,
}

impl Statistics {
    fn add(&mut self, other: &Self) {
        self.instructions += other.instructions;
        self.lane_instructions += other.lane_instructions;
        self.shared_accesses += other.shared_accesses;
        self.bank_conflicts += other.bank_conflicts;
        self.barriers += other.barriers;
        self.products += other.products;
    }
}

impl Module {
    /// Parse PTX text.
    ///
    /// # Errors
    ///
    /// [`Kind::Text`], naming the line and what is not known there.
    pub fn parse(source: &str) -> Result<Self, Fault> {
        let parsed = parse(source).map_err(|fault| fault.in_text("", source))?;
        let decoded = parsed.entries.iter().map(|entry| {
            decode(&parsed, entry).map_err(|fault| fault.in_text(&entry.name, source))
        });
        let kernels = decoded.collect::<Result<_, _>>()?;
        Ok(Self { source: source.to_owned(), target: parsed.target, kernels })
    }

    /// The target that the text names, as `sm_90a`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// Offset and size of each parameter of a kernel, in bytes.
    pub fn params(&self, kernel: &str) -> Option<Vec<(u64, u64)>> {
        let found = self.kernels.iter().find(|it| it.name == kernel)?;
        Some(found.params.clone())
    }

    /// Whether its text multiplies matrices: most of what a launch of it costs here.
    pub fn multiplies(&self, kernel: &str) -> bool {
        self.kernels.iter().any(|it| it.name == kernel && it.multiplies())
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Bytes of shared memory that a kernel declares with a size.
    pub fn static_shared(&self, kernel: &str) -> Option<u64> {
        Some(self.kernels.iter().find(|it| it.name == kernel)?.static_shared)
    }

    /// Run every block of `kernel`; results are in `device`'s memory.
    ///
    /// # Errors
    ///
    /// The first broken rule, of the block with the lowest number among those that were run.
    pub fn launch(
        &self,
        device: &Device,
        kernel: &str,
        launch: &Launch,
    ) -> Result<Statistics, Fault> {
        let Some(found) = self.kernels.iter().find(|it| it.name == kernel) else {
            return Err(Fault::new(Kind::Launch, format!("no kernel is called `{kernel}`")));
        };
        let shape =
            shape(found, device, launch).map_err(|fault| fault.in_text(kernel, &self.source))?;
        let all: u64 = shape
            .grid
            .iter()
            .zip(shape.cluster)
            .map(|(grid, size)| u64::from(grid / size))
            .product();
        let only = &launch.options.only;
        if let Some(beyond) = only.iter().find(|number| **number >= all) {
            let text = format!("cluster {beyond} is asked for, of {all}");
            return Err(Fault::new(Kind::Launch, text));
        }
        let clusters: Vec<u64> = match only.is_empty() || found.talks {
            true => (0..all).collect(),
            false => only.clone(),
        };
        let threads = match launch.options.threads {
            0 => std::thread::available_parallelism().map_or(1, |it| it.get().min(8)),
            threads => threads,
        };
        let result = if found.talks || threads == 1 || clusters.len() == 1 {
            in_order(&shape, &clusters)
        } else {
            spread(&shape, &clusters, threads)
        };
        let waited = |statistics| match shape.waited.load(Relaxed) {
            true => Ok(statistics),
            false => {
                let text = "no thread came to `griddepcontrol.wait`: who waits for this kernel trusts \
                            that all before it have ended";
                Err(Fault::new(Kind::Race, text))
            }
        };
        result.and_then(waited).map_err(|fault| fault.in_text(kernel, &self.source))
    }
}

fn shape<'a>(
    kernel: &'a Kernel,
    device: &'a Device,
    launch: &Launch<'a>,
) -> Result<Shape<'a>, Fault> {
    let refuse = |sentence: String| Err(Fault::new(Kind::Launch, sentence));
    let cluster = kernel.cluster.unwrap_or(launch.options.cluster);
    let threads: u64 = launch.block.iter().map(|axis| u64::from(*axis)).product();
    let blocks: u64 = launch.grid.iter().map(|axis| u64::from(*axis)).product();
    if !(1..=1024).contains(&threads) {
        return refuse(format!("a block of {threads} threads; it has 1 to 1024"));
    }
    if !(1..=MAX_BLOCKS).contains(&blocks) {
        return refuse(format!("a grid of {blocks} blocks; here it has 1 to {MAX_BLOCKS}"));
    }
    if kernel.max_threads.is_some_and(|most| threads > most) {
        return refuse(format!("{threads} threads in a block, more than `.maxntid` says"));
    }
    if kernel.exact_threads.is_some_and(|exact| exact != launch.block) {
        return refuse(format!("a block of {:?}, not what `.reqntid` says", launch.block));
    }
    let uneven =
        launch.grid.iter().zip(cluster).any(|(grid, size)| size == 0 || !grid.is_multiple_of(size));
    if uneven || cluster.iter().product::<u32>() > 16 {
        return refuse(format!("a grid of {:?} in clusters of {cluster:?}", launch.grid));
    }
    if launch.params.len() as u64 != kernel.param_bytes {
        return refuse(format!(
            "{} bytes of parameters, where the kernel has {}",
            launch.params.len(),
            kernel.param_bytes
        ));
    }
    let shared = kernel.dynamic_offset + u64::from(launch.dynamic_shared);
    if shared > MAX_SHARED {
        return refuse(format!("{shared} bytes of shared memory, more than {MAX_SHARED}"));
    }
    if !launch.options.programmatic {
        // It starts after all of them.
        device.settle();
    }
    Ok(Shape {
        kernel,
        device,
        grid: launch.grid,
        block: launch.block,
        cluster,
        dynamic_shared: launch.dynamic_shared,
        params: launch.params,
        launch: device.next_launch(),
        budget: launch.options.budget,
        programmatic: launch.options.programmatic,
        stirred: launch.options.stirred,
        waited: AtomicBool::new(!launch.options.programmatic),
    })
}

/// One cluster after the other; where one waits for another, the next ones start too.
fn in_order(shape: &Shape, clusters: &[u64]) -> Result<Statistics, Fault> {
    let words = Words::default();
    let mut statistics = Statistics::default();
    let mut open: Vec<Machine> = Vec::new();
    let mut next = clusters.iter();
    let mut idle = 0;
    loop {
        if open.is_empty() {
            let Some(number) = next.next() else { return Ok(statistics) };
            open.push(Machine::new(shape, *number, words.clone()));
        }
        let mut worked = false;
        let mut at = 0;
        while at < open.len() {
            let mut turn = open[at].turn()?;
            while turn == Turn::Worked && !shape.kernel.talks {
                turn = open[at].turn()?;
            }
            match turn {
                Turn::Done => {
                    statistics.add(&open[at].statistics);
                    open[at].finish()?;
                    open.remove(at);
                    worked = true;
                    continue;
                }
                Turn::Worked => worked = true,
                Turn::Idle => {}
                Turn::Stuck => return Err(open[at].deadlock()),
            }
            at += 1;
        }
        idle = if worked { 0 } else { idle + 1 };
        let later = (idle >= 64 && shape.kernel.talks).then(|| next.next()).flatten();
        if let Some(number) = later {
            open.push(Machine::new(shape, *number, words.clone()));
            idle = 0;
        } else if idle > 256 {
            return Err(open[0].deadlock());
        }
    }
}

/// Clusters that do not talk to each other, spread over threads.
fn spread(shape: &Shape, clusters: &[u64], threads: usize) -> Result<Statistics, Fault> {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Statistics::default());
    let worst: Mutex<Option<(u64, Fault)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(clusters.len()) {
            scope.spawn(|| {
                let mut mine = Statistics::default();
                loop {
                    let number = clusters.get(next.fetch_add(1, Relaxed)).copied();
                    let Some(number) = number else { break };
                    if worst.lock().is_ok_and(|worst| worst.is_some()) {
                        break;
                    }
                    let mut machine = Machine::new(shape, number, Words::default());
                    let result = machine.run();
                    mine.add(&machine.statistics);
                    if let Err(fault) = result {
                        let mut worst = worst.lock().expect("no thread panics with the lock");
                        if worst.as_ref().is_none_or(|(other, _)| number < *other) {
                            *worst = Some((number, fault));
                        }
                    }
                }
                total.lock().expect("no thread panics with the lock").add(&mine);
            });
        }
    });
    match worst.into_inner().expect("no thread panics with the lock") {
        Some((_, fault)) => Err(fault),
        None => Ok(total.into_inner().expect("no thread panics with the lock")),
    }
}
