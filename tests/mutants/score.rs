//! What becomes of each ordering instruction of each kernel when it goes.
//!
//! Kernels of one template in one config with the same ordering instructions have the same code but for
//! their sizes. Sizes make some of them need less: where K ends in the last stage of a ring, nobody
//! misses the barrier before its first one is written to. So an instruction counts as noticed when one
//! of these kernels notices.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sail_kernels::config;
use sail_ptxsim::{Fault, alone, mutants};

/// A kernel of an artifact.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub family: String,
    /// Template and config.
    pub kind: String,
    /// What goes in each mutant, and what comes instead.
    pub gone: Vec<(String, String)>,
}

impl Entry {
    /// The kernel `name` of the module `text`.
    pub fn of(text: &str, (family, symbol): (&str, &str), name: String) -> Result<Self, Fault> {
        let gone = mutants(&alone(text, &name)?)?;
        let gone = gone.into_iter().map(|it| (it.instruction, it.replacement)).collect();
        Ok(Self { name, family: family.to_owned(), kind: kind(family, symbol), gone })
    }

    /// The ordering instructions without their operands.
    fn signature(&self) -> Vec<String> {
        let word = |text: &String| text.split_whitespace().next().unwrap_or_default().to_owned();
        self.gone.iter().map(|(gone, instead)| word(gone) + " " + &word(instead)).collect()
    }
}

/// The template, and its config where the symbol ends with one: `wgmma128x256`, `together`, `wgmma.s` where
/// blocks share steps; without the values that a lock has pinned.
pub fn kind(family: &str, symbol: &str) -> String {
    // An artifact says the pinned config behind the symbol.
    let symbol = symbol.split(' ').next().unwrap_or_default();
    let mut words: Vec<&str> = symbol.split('.').collect();
    while words.last().is_some_and(|last| is_pinned(last)) {
        words.pop();
    }
    // How many blocks share the positions of a row is a size.
    let shared = match words[..] {
        [.., "wgmma", last] if without_digits(last) == "s" => {
            words.pop();
            ".s"
        }
        _ => "",
    };
    let last = words.last().copied().unwrap_or_default();
    let word = last.trim_end_matches(|c: char| c.is_ascii_digit() || c == 'x');
    let is_config = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    let sizes = &last[word.len()..];
    let is_shape = sizes.is_empty() || sizes.contains('x');
    let last = match last.strip_prefix("alone").and_then(|shares| shares.split_once('x')) {
        Some((_, warps)) => &format!("alonex{warps}"),
        None => last,
    };
    let around = ["bias", "gelu", "residual", family];
    match is_config && is_shape && !around.contains(&last) {
        true => format!("{family}.{last}{shared}"),
        false => family.to_owned(),
    }
}

fn without_digits(word: &str) -> &str {
    word.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Is a word of a symbol a parameter of a config with its value?
fn is_pinned(word: &str) -> bool {
    let name = without_digits(word);
    name.len() < word.len() && config::names().any(|known| known == name)
}

/// An ordering instruction of a kind of kernels.
#[derive(Debug, Default)]
pub struct Role {
    pub instruction: String,
    /// Which of the kernel's instructions with that opcode, from 0.
    pub nth: usize,
    /// Entry, and its number there.
    pub places: Vec<(String, usize)>,
    /// How it was noticed, by entry; `missed` where it was not.
    pub seen: BTreeMap<String, String>,
}

impl Role {
    pub fn noticed(&self) -> bool {
        self.seen.values().any(|how| how != MISSED)
    }
}

pub const MISSED: &str = "missed";

/// Kind, ordering instructions of such kernels, number.
pub type Key = (String, Vec<String>, usize);

/// All roles of one target.
#[derive(Debug, Default)]
pub struct Score {
    pub roles: BTreeMap<Key, Role>,
}

impl Score {
    pub fn add(&mut self, entry: &Entry) {
        let signature = entry.signature();
        for (number, (instruction, instead)) in entry.gone.iter().enumerate() {
            let key = (entry.kind.clone(), signature.clone(), number);
            let role = self.roles.entry(key).or_default();
            let shown = instruction.split_whitespace().collect::<Vec<_>>().join(" ");
            role.instruction = match instead.as_str() {
                "" => shown,
                instead => format!("{shown} → {instead}"),
            };
            role.nth = signature[..number].iter().filter(|it| **it == signature[number]).count();
            let place = (entry.name.clone(), number);
            if !role.places.contains(&place) {
                role.places.push(place);
            }
        }
    }

    /// Which mutants of `entry` those of `keys` are, which may be noticed in it, too, from here on.
    pub fn join(&mut self, entry: &Entry, keys: &[Key]) -> Vec<usize> {
        let signature = entry.signature();
        let same = keys.iter().filter(|(kind, of, _)| *kind == entry.kind && *of == signature);
        let numbers = same.map(|key| {
            let role = self.roles.get_mut(key).expect("a key is of a role");
            let place = (entry.name.clone(), key.2);
            if !role.places.contains(&place) {
                role.places.push(place);
            }
            key.2
        });
        numbers.collect()
    }

    /// Note lines of what was seen: entry, number, how.
    pub fn note(&mut self, seen: &str) {
        let mut by_place: BTreeMap<(&str, usize), &str> = BTreeMap::new();
        for (entry, number, how) in lines(seen) {
            let known = by_place.entry((entry, number)).or_insert(how);
            if *known == MISSED {
                *known = how;
            }
        }
        for role in self.roles.values_mut() {
            for (entry, number) in &role.places {
                if let Some(how) = by_place.get(&(entry.as_str(), *number)) {
                    let known = role.seen.entry(entry.clone()).or_insert_with(|| MISSED.to_owned());
                    if known == MISSED {
                        *known = (*how).to_owned();
                    }
                }
            }
        }
    }

    /// How many were noticed, and what breaks the promise: instructions that nobody misses without a
    /// reason in `redundant`, kernels that were never run, and, if all were asked for, reasons that hold
    /// no more.
    pub fn judge(
        &self,
        asked: &[Key],
        redundant: &[&Redundant],
        all: bool,
    ) -> (String, Vec<String>) {
        let mut broken = Vec::new();
        let mut used = vec![false; redundant.len()];
        let (mut noticed, mut excused) = (0, 0);
        let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
        for key in asked {
            let role = &self.roles[key];
            let (kind, ..) = key;
            if role.noticed() {
                noticed += 1;
                let how = role.seen.values().find(|how| *how != MISSED).expect("it was noticed");
                *ways.entry(how).or_default() += 1;
                continue;
            }
            let at = redundant.iter().position(|row| row.is(kind, role));
            match at {
                _ if role.seen.is_empty() => broken.push(format!(
                    "no case launches `{}`, and so nobody misses its `{}`",
                    role.places[0].0, role.instruction
                )),
                Some(at) => {
                    excused += 1;
                    used[at] = true;
                }
                None => broken.push(format!(
                    "nobody misses `{}` (number {} of its kind, mutant {}) of {kind}: {}",
                    role.instruction,
                    role.nth,
                    key.2,
                    role.seen.keys().cloned().collect::<Vec<_>>().join(", ")
                )),
            }
        }
        for (row, _) in redundant.iter().zip(used).filter(|(_, used)| all && !used) {
            broken.push(format!(
                "`{}` number {} of {} is listed as redundant and is none",
                row.opcode, row.nth, row.kind
            ));
        }
        let places: Vec<&String> =
            asked.iter().flat_map(|key| self.roles[key].seen.values()).collect();
        let of_places = places.iter().filter(|how| **how != MISSED).count();
        let mut text = format!(
            "{noticed} of {} noticed ({} %), {excused} redundant for a reason; kernel by kernel {of_places} of {}",
            asked.len(),
            100 * (noticed + excused) / asked.len().max(1),
            places.len()
        );
        for (way, count) in ways {
            let _ = write!(text, "; {count} {}", way.trim_start_matches("noticed "));
        }
        (text, broken)
    }
}

/// What was seen, line by line: entry, number, how.
pub fn lines(seen: &str) -> impl Iterator<Item = (&str, usize, &str)> {
    seen.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("a line has three words");
        (word(), word().parse().expect("a number"), word())
    })
}

/// Is `kind` what `pattern` says, with anything in the place of each `*`?
fn matches(pattern: &str, kind: &str) -> bool {
    let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(behind) = kind.strip_prefix(first) else { return false };
    match pattern.contains('*') {
        false => behind.is_empty(),
        true => {
            behind.char_indices().any(|(at, _)| matches(rest, &behind[at..])) || matches(rest, "")
        }
    }
}

/// An ordering instruction that no kernel of a kind needs, and why it stands there.
#[derive(Debug)]
pub struct Redundant {
    /// As [`Entry::kind`], with `*` for anything.
    pub kind: &'static str,
    pub opcode: &'static str,
    /// Which of the kernel's instructions with that opcode, from 0.
    pub nth: usize,
    pub reason: &'static str,
}

impl Redundant {
    pub fn is(&self, kind: &str, role: &Role) -> bool {
        let opcode = role.instruction.split([' ', ';']).next().unwrap_or_default();
        assert!(!self.reason.is_empty(), "a reason is a sentence");
        matches(self.kind, kind) && self.opcode == opcode && self.nth == role.nth
    }
}
