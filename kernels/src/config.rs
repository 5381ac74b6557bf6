//! How the code of a kernel is shaped, as an explicit value with a text form: `rows=12 block=256`.
//!
//! On x86-64 a config changes how long a kernel takes and never a byte of what it gives: the order of every
//! sum is fixed by the layout of the weights. Which config is best for a problem is found by measuring
//! (`sailc tune`); without that the built-in rule of the family applies.
//!
//! On CUDA targets the rule is a model of what a shape takes ([`crate::gpu_model`]). Most configs change no
//! byte there either; how many warps or blocks share a sum ([`REORDERING`]) is the order of that sum, and so
//! changes its last bits.

use std::fmt;

use sail_ir::scheme::Scheme;

use crate::gpu_model::Expected;
use crate::kernel::Kernel;

/// Raised when the code made from a config has changed so much that what was measured before says
/// nothing about it.
pub const GENERATION: u32 = 1;

/// Bytes of a second cache that a thread's rows may take; the smallest of the targets' has half.
const NEAR_BYTES: u64 = 2 << 20;

/// What can be chosen, and the values that are tried where they fit.
const TABLE: [(&str, &[u32]); 15] = [
    // Rows multiplied at once, all their sums in registers.
    ("rows", &[4, 6, 8, 10, 12]),
    // Rows that a thread packs at once.
    ("block", &[12, 24, 48, 96, 128, 256, 512]),
    // Panels that should be multiplied with the same packed rows.
    ("run", &[16, 32, 64, 128]),
    // Panels of an expert in one work item.
    ("panels", &[1, 2, 4, 8]),
    // Fewest rows multiplied at once for which the next panel is brought near; 16 is never.
    ("foresee", &[1, 8, 16]),
    // Query vectors of attention that are worked on together.
    ("vectors", &[12, 24, 48, 96]),
    // Of CUDA targets ([`crate::gpu_model`]): weight rows of a tile, rows of it, steps on their way.
    ("columns", &[64, 96, 128, 160, 192, 224, 256]),
    ("tile", &[64, 96, 128, 160, 192, 224, 256]),
    ("stages", &[3, 4, 5, 6]),
    // Warps of a block that share a sum, runs of weight rows that it takes at once, blocks of a
    // multiprocessor, whether operands of few rows are kept.
    ("warps", &[1, 2, 4, 8]),
    ("runs", &[1, 2]),
    ("share", &[1, 2, 4, 8, 16]),
    ("keeps", &[0, 1]),
    // Blocks that share the positions of a row and kv head, or the steps of a block of rows.
    ("blocks", &[1, 2, 4, 8, 16, 32, 64]),
    ("parts", &[1, 2, 4, 8]),
];

/// Parameters that are the order of sums of floats: what is computed stays within a kernel's tolerance, and
/// not to the bit the same.
pub const REORDERING: [&str; 3] = ["warps", "blocks", "parts"];

/// Names of all that can be chosen.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Everything that says whether a config still means what it meant, as one text.
#[must_use]
pub fn space_text() -> String {
    format!("{GENERATION} {TABLE:?}")
}

/// One thing that can be chosen about a kernel, and what fits it, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: &'static str,
    pub values: Vec<u32>,
}

impl Parameter {
    /// Those values of the table that `fits` lets pass, and `own`, which is what the rule chose.
    ///
    /// # Panics
    ///
    /// When the table has no such name.
    #[must_use]
    pub fn new(name: &'static str, own: u32, fits: impl Fn(u32) -> bool) -> Self {
        let row = TABLE.iter().find(|row| row.0 == name);
        let (name, values) = row.unwrap_or_else(|| panic!("no parameter `{name}`"));
        let mut values: Vec<u32> =
            values.iter().copied().filter(|value| fits(*value) || *value == own).collect();
        if let Err(place) = values.binary_search(&own) {
            values.insert(place, own);
        }
        Self { name, values }
    }

    /// Rows packed at once, `bytes` each.
    #[must_use]
    pub fn block(own: u32, bytes: u64) -> Self {
        Self::new("block", own, |rows| {
            let (few, many) = (own / 4, 4 * own);
            (few..=many).contains(&rows) && u64::from(rows) * bytes <= NEAR_BYTES
        })
    }
}

/// A value for each parameter of a kernel, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Config(Vec<(&'static str, u32)>);

impl Config {
    #[must_use]
    pub fn new(values: &[(&'static str, u32)]) -> Self {
        Self(values.to_vec())
    }

    /// The value of a parameter.
    ///
    /// # Panics
    ///
    /// When there is no such parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> u32 {
        let found = self.0.iter().find(|value| value.0 == name);
        found.unwrap_or_else(|| panic!("`{self}` has no `{name}`")).1
    }

    /// The same with another value for one parameter.
    #[must_use]
    pub fn with(&self, name: &str, value: u32) -> Self {
        let change = |old: &(&'static str, u32)| if old.0 == name { (old.0, value) } else { *old };
        Self(self.0.iter().map(change).collect())
    }

    /// Read what [`Display`](fmt::Display) writes.
    ///
    /// Refuses names other than those of `space`, another order, and values that do not fit.
    pub fn parse(text: &str, space: &[Parameter]) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let names: Vec<&str> = space.iter().map(|parameter| parameter.name).collect();
        let found: Vec<&str> =
            words.iter().map(|word| word.split('=').next().unwrap_or(word)).collect();
        if found != names {
            return Err(format!("`{text}` does not give `{}`, in this order", names.join("`, `")));
        }
        let values = words.iter().zip(space).map(|(word, parameter)| {
            let value = word.split_once('=').and_then(|(_, value)| value.parse().ok());
            match value.filter(|value| parameter.values.contains(value)) {
                Some(value) => Ok((parameter.name, value)),
                None => {
                    let values = parameter.values.iter().map(u32::to_string).collect::<Vec<_>>();
                    Err(format!("`{word}` is none of {}", values.join(", ")))
                }
            }
        });
        values.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&words.join(" "))
    }
}

/// A kernel whose code can be shaped in more than one way.
pub trait Shaped: Kernel {
    fn config(&self) -> Config;

    /// What can be chosen about a kernel that the rule has shaped, in the order of the config.
    fn space(&self) -> Vec<Parameter>;

    /// Does a combination of values of the space fit? All do, unless the kernel says otherwise.
    fn fits(&self, _config: &Config) -> bool {
        true
    }

    /// What a lock calls the problem: one name whatever the rule chooses.
    fn pinned_as(&self) -> String {
        self.symbol()
    }

    /// What a call of so many rows is expected to take, and why the rule chose as it did, where there is
    /// a model that tells.
    fn expected(&self, _rows: u32) -> Option<(Expected, String)> {
        None
    }

    /// Most rows of the calls it is for, where it is for some alone.
    fn most_rows(&self) -> Option<u32> {
        None
    }

    /// The same problem, shaped by a config of [`space`](Self::space).
    fn with(&self, config: &Config) -> Box<dyn Kernel>;

    /// What its arguments hold for so many counted rows, in their order, to run it without a model;
    /// empty where that cannot be.
    fn operands(&self, count: u32) -> Vec<Operand>;

    /// Pages of the cache that every slot has in a call over the operands.
    fn pages_per_slot(&self) -> u32 {
        0
    }

    /// Cached positions that a call over the operands looks at: different ones, and for each row.
    fn looks(&self, _count: u32) -> [u64; 2] {
        [0, 0]
    }

    /// Every config that fits, in order.
    fn configs(&self) -> Vec<Config> {
        let mut configs = vec![Config(Vec::new())];
        for Parameter { name, values } in self.space() {
            let longer = |config: &Config| {
                let value = |value| Config([config.0.as_slice(), &[(name, value)]].concat());
                values.iter().copied().map(value).collect::<Vec<_>>()
            };
            configs = configs.iter().flat_map(longer).collect();
        }
        configs.retain(|config| self.fits(config));
        configs
    }
}

/// What an argument holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// So many bf16 values.
    Values(u64),
    /// A packed weight of so many panels of rows of `k` values.
    Panels { scheme: Scheme, count: u64, k: u32 },
    /// Whole numbers.
    Numbers(Vec<i32>),
    /// So many bytes that are written.
    Output(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Vec<Parameter> {
        vec![Parameter::new("rows", 12, |rows| rows <= 8), Parameter::block(256, 4160)]
    }

    #[test]
    fn a_config_is_read_as_it_is_written() {
        let config = Config::new(&[("rows", 12), ("block", 128)]);
        assert_eq!(config.to_string(), "rows=12 block=128");
        assert_eq!(Config::parse("rows=12  block=128", &space()), Ok(config.clone()));
        assert_eq!(config.with("rows", 8).get("rows"), 8);
    }

    #[test]
    fn what_does_not_fit_is_refused_in_words() {
        let refused = |text: &str| Config::parse(text, &space()).unwrap_err();
        assert_eq!(refused("rows=7 block=128"), "`rows=7` is none of 4, 6, 8, 12");
        assert_eq!(refused("rows=8 block=512"), "`block=512` is none of 96, 128, 256");
        let order = "does not give `rows`, `block`, in this order";
        for text in ["block=128 rows=8", "rows=8", "rows=8 block=128 run=1", ""] {
            assert_eq!(refused(text), format!("`{text}` {order}"));
        }
        assert_eq!(refused("rows block=128"), "`rows` is none of 4, 6, 8, 12");
    }

    #[test]
    fn the_rules_own_choice_is_always_among_those_that_fit() {
        assert_eq!(Parameter::block(504, 1600).values, [128, 256, 504, 512]);
        assert_eq!(Parameter::block(256, 1 << 20).values, [256]);
    }
}
