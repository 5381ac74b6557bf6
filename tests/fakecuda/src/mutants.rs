//! Kernels with one ordering instruction less, run beside the kernels where a model launches them.
//!
//! The folder says in `wanted` which: an entry and the number of the mutant among those of its text, a
//! line each. What becomes of them is written to `seen`, a line for each run: entry, number, and
//! `noticed` with the fault's kind or `bytes`, or `missed`. Of launches with many blocks that multiply
//! only some are run, and the rest of what they write is what was there: what a model answers here means
//! nothing, and products need not be right (`Options::stirred`). What nobody misses in some blocks is tried
//! in one of fewer, if these share out what there is among as many as they are, so that this one has several
//! turns; and then in all of them, where that is little work.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use sail_ptxsim::{Device, Fault, Module, Mutant, Options, alone, mutants};

use crate::state::Work;

/// Launches of a kernel that its mutants are tried in, if they differ.
const LAUNCHES: usize = 6;

/// Of those that are alike: the experts that rows choose are as many in one and more in another, and where
/// their number divides that of blocks, none comes from one expert to the next.
const ALIKE: usize = 4;

/// Clusters of a launch that are run, where there are more and they multiply.
const CLUSTERS: u64 = 6;

/// Turns that a block has where there are fewer blocks: a ring comes round, and is left in any state.
const TURNS: u32 = 3;

/// Instructions of warps that may be run for all mutants that are left of a kernel, in all blocks of a launch.
const WHOLE: u64 = 60_000_000;

/// See the module.
pub struct Mutants {
    /// Numbers that nobody noticed so far, by entry.
    wanted: HashMap<String, Vec<usize>>,
    /// Grids in which an entry's mutants were tried, and how much was done there.
    tried: HashMap<String, Vec<([u32; 3], u32)>>,
    texts: HashMap<String, Vec<Mutant>>,
    seen: File,
}

impl Mutants {
    /// # Panics
    ///
    /// When the folder or its list cannot be read: a test that asks for it would prove nothing.
    pub fn open(folder: &Path) -> Self {
        let list = fs::read_to_string(folder.join("wanted")).expect("the folder has a list");
        let mut wanted: HashMap<String, Vec<usize>> = HashMap::new();
        for line in list.lines() {
            let (entry, number) = line.split_once(' ').expect("a line has an entry and a number");
            let number = number.parse().expect("a number");
            wanted.entry(entry.to_owned()).or_default().push(number);
        }
        let seen = OpenOptions::new().create(true).append(true).open(folder.join("seen"));
        let seen = seen.expect("the folder can be written to");
        Self { wanted, tried: HashMap::new(), texts: HashMap::new(), seen }
    }

    /// Execute some blocks of a kernel, one more than was asked for, and its mutants.
    pub fn carry_out(&mut self, gpu: &mut Device, work: &Work) -> Result<(), Fault> {
        // Beyond the counts of the call there is nothing to do, and nobody may be in the way.
        let [x, y, z] = work.grid;
        let work = &Work { grid: [x + work.cluster[0], y, z], ..work.clone() };
        let only = part(work);
        let whole = only.is_empty();
        let launch = work.launch(options(only.clone()));
        let after = gpu.fork();
        let statistics = work.module.launch(&after, &work.name, &launch)?;
        // A launch that has nothing to do is not like one that has, nor one row like three.
        let key = (work.grid, (16.0 * (statistics.instructions as f64).log2()) as u32);
        let tried = self.tried.entry(work.name.clone()).or_default();
        let alike = tried.iter().filter(|other| **other == key).count();
        if tried.len() < LAUNCHES && alike < ALIKE {
            tried.push(key);
            let of_all = statistics.instructions * clusters(work) / only.len().max(1) as u64;
            self.try_all(work, only, gpu)?;
            if let Some(fewer) = fewer(work) {
                self.try_all(&fewer, vec![0], gpu)?;
            }
            let left = self.wanted.get(&work.name).map_or(0, |left| left.len() as u64);
            let fits = left > 0 && left * of_all <= WHOLE;
            if !whole && fits {
                self.try_all(work, Vec::new(), gpu)?;
            }
        }
        let touched = after.touched();
        gpu.absorb(after);
        if !whole {
            touched.iter().for_each(|base| gpu.fill(*base));
        }
        Ok(())
    }

    /// Try those that nobody noticed so far in the clusters `only` of a launch, of which none stands for
    /// all.
    fn try_all(&mut self, work: &Work, only: Vec<u64>, before: &Device) -> Result<(), Fault> {
        if self.wanted.get(&work.name).is_none_or(Vec::is_empty) {
            return Ok(());
        }
        let mut options = options(only);
        let after = before.fork();
        let right = work.module.launch(&after, &work.name, &work.launch(options.clone()))?;
        options.budget = 2 * right.instructions + 100_000;
        let all = self.texts.entry(work.name.clone()).or_insert_with(|| {
            let text = alone(work.module.source(), &work.name).expect("it was parsed");
            mutants(&text).expect("it was parsed")
        });
        let left = self.wanted.get_mut(&work.name).expect("it was asked for");
        left.retain(|number| {
            let mutant = all.get(*number).expect("the list is of this text");
            let device = before.fork();
            let launch = work.launch(options.clone());
            let done = Module::parse(&mutant.text)
                .and_then(|module| module.launch(&device, &work.name, &launch));
            let how = match done {
                Err(fault) => format!("noticed {:?}", fault.kind),
                Ok(_) if device.same_in(&after) => "missed".to_owned(),
                Ok(_) => "noticed bytes".to_owned(),
            };
            let line = writeln!(self.seen, "{} {number} {how}", work.name);
            line.expect("the folder can be written to");
            how == "missed"
        });
        Ok(())
    }
}

fn options(only: Vec<u64>) -> Options {
    Options { stirred: true, only, ..Options::default() }
}

/// The same with fewer blocks, if they ask how many they are and there are several.
fn fewer(work: &Work) -> Option<Work> {
    let [blocks, y, z] = work.grid;
    let cluster = work.cluster[0];
    let fewer = (blocks / cluster / TURNS).max(1) * cluster;
    let text = alone(work.module.source(), &work.name).expect("it was parsed");
    let asks = text.contains("%nctaid.x");
    (asks && fewer < blocks).then(|| Work { grid: [fewer, y, z], ..work.clone() })
}

fn clusters(work: &Work) -> u64 {
    work.grid.iter().zip(work.cluster).map(|(grid, size)| u64::from(grid / size)).product()
}

/// Clusters to run, the first and the last ones among them; none for all.
fn part(work: &Work) -> Vec<u64> {
    let clusters = clusters(work);
    if clusters <= CLUSTERS || !work.module.multiplies(&work.name) {
        return Vec::new();
    }
    vec![0, 1, clusters / 2, clusters - 2, clusters - 1]
}
