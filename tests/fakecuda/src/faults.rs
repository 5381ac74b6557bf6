//! What `SAIL_FAKECUDA` says: what the GPU is, and which calls go wrong.

use std::env;
use std::path::PathBuf;

use crate::answer::OUT_OF_MEMORY;

/// Kinds of calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Init,
    Alloc,
    Load,
    Launch,
    Copy,
    Wait,
    Graph,
}

const CALLS: [(&str, Call); 7] = [
    ("init", Call::Init),
    ("alloc", Call::Alloc),
    ("load", Call::Load),
    ("launch", Call::Launch),
    ("copy", Call::Copy),
    ("wait", Call::Wait),
    ("graph", Call::Graph),
];

/// See the module.
#[derive(Debug)]
pub struct Faults {
    /// Version of the driver, as it says it: 12040.
    pub version: i32,
    pub count: i32,
    /// Compute capability, times ten.
    pub capability: i32,
    /// Bytes of memory.
    pub memory: u64,
    /// Folder that says which mutants of kernels to run beside them.
    pub mutants: Option<PathBuf>,
    /// Kind, how many calls until then, answer.
    planned: Vec<(Call, u32, u32)>,
}

impl Faults {
    /// What the environment says.
    ///
    /// # Panics
    ///
    /// On words that mean nothing here: a test that asks for them would prove nothing.
    pub fn of_environment() -> Self {
        let text = env::var("SAIL_FAKECUDA").unwrap_or_default();
        let mut faults = Self {
            version: 12040,
            count: 1,
            capability: 80,
            memory: 4 << 30,
            mutants: None,
            planned: Vec::new(),
        };
        for word in text.split(',').filter(|word| !word.is_empty()) {
            faults.read(word).unwrap_or_else(|| panic!("SAIL_FAKECUDA has no `{word}`"));
        }
        faults
    }

    fn read(&mut self, word: &str) -> Option<()> {
        let (what, value) = word.split_once('=')?;
        match what {
            "version" => self.version = value.parse().ok()?,
            "count" => self.count = value.parse().ok()?,
            "capability" => self.capability = value.parse().ok()?,
            "memory" => self.memory = bytes(value)?,
            "mutants" => self.mutants = Some(value.into()),
            _ => {
                let (kind, at) = what.split_once(':')?;
                let (_, call) = CALLS.iter().find(|(name, _)| *name == kind)?;
                let code = match value {
                    "OOM" => OUT_OF_MEMORY,
                    _ => value.parse().ok()?,
                };
                self.planned.push((*call, at.parse().ok()?, code));
            }
        }
        Some(())
    }

    /// What this call answers instead of what it would.
    pub fn strike(&mut self, call: Call) -> Option<u32> {
        let mut answer = None;
        for (kind, left, code) in &mut self.planned {
            if *kind == call && *left > 0 {
                *left -= 1;
                if *left == 0 {
                    answer = Some(*code);
                }
            }
        }
        answer
    }
}

fn bytes(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        _ => return text.parse().ok(),
    };
    Some(text[..text.len() - 1].parse::<u64>().ok()? << unit)
}
