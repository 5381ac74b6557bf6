//! Statements to instructions: each opcode is looked up once; what is not known is named.

mod arithmetic;
mod hopper;
mod memory;
mod sync;
mod tensor;

use std::collections::HashMap;

use std::sync::Arc;

use crate::code::{Address, Instruction, Kernel, NONE, Op, Pred, Special, TABLE_WINDOW};
use crate::fault::{Fault, Kind};
use crate::flow;
use crate::parse::{Entry, Operand, Parsed, Place, Reg, Statement};

/// Why a statement has no instruction.
pub(crate) enum Refusal {
    /// Another family may know it.
    Unknown,
    Bad(String),
}

pub(crate) type Decoded<T> = Result<T, Refusal>;

pub(crate) fn bad<T>(sentence: impl Into<String>) -> Decoded<T> {
    Err(Refusal::Bad(sentence.into()))
}

/// A statement's opcode cut at its dots.
pub(crate) struct Words<'s> {
    pub whole: &'s str,
    pub words: Vec<&'s str>,
}

impl Words<'_> {
    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    pub(crate) fn last(&self) -> &str {
        self.words.last().copied().unwrap_or_default()
    }
}

pub(crate) struct Decoder<'e> {
    entry: &'e Entry,
    places: HashMap<String, u64>,
    params: HashMap<&'e str, u64>,
    words: u32,
    constants: HashMap<u64, u32>,
    specials: HashMap<Special, u32>,
    truth: [u32; 2],
}

pub(crate) fn decode(parsed: &Parsed, entry: &Entry) -> Result<Kernel, Fault> {
    let fault = |line: u32, sentence: String| {
        let mut fault = Fault::new(Kind::Text, sentence).at_line(line);
        fault.kernel.clone_from(&entry.name);
        fault
    };
    let mut places = HashMap::new();
    let statics = parsed.shared.iter().chain(&entry.shared);
    let static_shared = lay_out(statics.clone().filter(|place| place.bytes.is_some()), &mut places);
    let dynamic: Vec<&Place> = statics.filter(|place| place.bytes.is_none()).collect();
    let align = dynamic.iter().map(|place| place.align).max().unwrap_or(16).max(16);
    let dynamic_offset = static_shared.next_multiple_of(align);
    for place in dynamic {
        places.insert(place.name.clone(), dynamic_offset);
    }
    let local_bytes = lay_out(entry.local.iter(), &mut places);
    let tables = tables(&parsed.global, &mut places);
    let params = entry.params.iter().map(|(name, offset, _)| (name.as_str(), *offset)).collect();
    let mut decoder = Decoder {
        entry,
        places,
        params,
        words: entry.words,
        constants: HashMap::new(),
        specials: HashMap::new(),
        truth: [entry.preds, entry.preds + 1],
    };
    let mut code = Vec::with_capacity(entry.statements.len() + 1);
    for statement in &entry.statements {
        if let Some(needed) = lacking(&parsed.target, &statement.opcode) {
            let opcode = &statement.opcode;
            let sentence = format!("`{opcode}` needs {needed}, the text is for {}", parsed.target);
            return Err(fault(statement.line, sentence));
        }
        let op = decoder.statement(statement).map_err(|refusal| {
            let sentence = match refusal {
                Refusal::Unknown => format!("the instruction `{}` is not known", statement.opcode),
                Refusal::Bad(sentence) => sentence,
            };
            fault(statement.line, sentence)
        })?;
        let guard = statement.guard.map(|(reg, negated)| match reg {
            Reg::Pred(slot) => Pred { slot, negated },
            Reg::Word(..) => unreachable!("the parser takes predicates only"),
        });
        code.push(Instruction { op, guard, line: statement.line });
    }
    let line = code.last().map_or(entry.line, |last: &Instruction| last.line);
    code.push(Instruction { op: Op::Exit, guard: None, line });
    flow::join_branches(&mut code);
    let talks = decoder.talks();
    Ok(Kernel {
        name: entry.name.clone(),
        code,
        words: decoder.words,
        preds: entry.preds + 2,
        constants: decoder.constants.iter().map(|(value, slot)| (*slot, *value)).collect(),
        specials: decoder.specials.iter().map(|(special, slot)| (*slot, *special)).collect(),
        truth: decoder.truth,
        tables: Arc::new(tables),
        params: entry.params.iter().map(|(_, offset, size)| (*offset, *size)).collect(),
        param_bytes: entry.param_bytes,
        static_shared,
        dynamic_offset,
        local_bytes,
        max_threads: entry.max_threads,
        exact_threads: entry.exact_threads,
        registers: entry.registers,
        cluster: entry.cluster,
        talks,
    })
}

/// The target that an opcode needs, where `target` is older.
fn lacking(target: &str, opcode: &str) -> Option<&'static str> {
    let words: Vec<&str> = opcode.split('.').collect();
    let number: u32 =
        target.trim_start_matches("sm_").trim_end_matches(['a', 'f']).parse().unwrap_or(0);
    match words[0] {
        "wgmma" | "setmaxnreg" if target != "sm_90a" => Some("sm_90a"),
        _ if number >= 90 => None,
        "griddepcontrol" | "elect" | "mapa" | "stmatrix" => Some("sm_90"),
        "cp" if words.contains(&"bulk") => Some("sm_90"),
        "mbarrier" if ["try_wait", "expect_tx"].iter().any(|word| words.contains(word)) => {
            Some("sm_90")
        }
        "barrier" if words.contains(&"cluster") => Some("sm_90"),
        _ => None,
    }
}

fn lay_out<'p>(places: impl Iterator<Item = &'p Place>, offsets: &mut HashMap<String, u64>) -> u64 {
    let mut end = 0u64;
    for place in places {
        let offset = end.next_multiple_of(place.align.max(1));
        offsets.insert(place.name.clone(), offset);
        end = offset + place.bytes.unwrap_or(0);
    }
    end
}

/// Bytes of a module's tables, with their places in the window.
fn tables(places: &[Place], offsets: &mut HashMap<String, u64>) -> Vec<u8> {
    let mut own = HashMap::new();
    let bytes = lay_out(places.iter(), &mut own);
    let mut data = vec![0; bytes as usize];
    for place in places {
        let offset = own[&place.name];
        data[offset as usize..offset as usize + place.data.len()].copy_from_slice(&place.data);
        offsets.insert(place.name.clone(), TABLE_WINDOW + offset);
    }
    data
}

impl Decoder<'_> {
    fn statement(&mut self, statement: &Statement) -> Decoded<Op> {
        let words =
            Words { whole: &statement.opcode, words: statement.opcode.split('.').collect() };
        let operands = &statement.operands;
        let families =
            [Self::control, Self::arithmetic, Self::memory, Self::sync, Self::tensor, Self::hopper];
        for family in families {
            match family(self, &words, operands) {
                Err(Refusal::Unknown) => {}
                other => return other,
            }
        }
        Err(Refusal::Unknown)
    }

    fn control(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        match words.words[0] {
            "bra" => match operands {
                [Operand::Name(label)] => match self.entry.labels.get(label) {
                    Some(target) => Ok(Op::Branch { target: *target as u32, join: NONE }),
                    None => bad(format!("no label is called `{label}`")),
                },
                _ => bad("a branch names one label"),
            },
            "brx" => match operands {
                [index, Operand::Name(table)] => {
                    let Some(names) = self.entry.tables.get(table) else {
                        return bad(format!("no table of targets is called `{table}`"));
                    };
                    let targets = names.iter().map(|name| {
                        let target = self.entry.labels.get(name).map(|target| *target as u32);
                        target.ok_or_else(|| Refusal::Bad(format!("no label is called `{name}`")))
                    });
                    let targets = targets.collect::<Decoded<Vec<u32>>>()?;
                    Ok(Op::BranchTable { index: self.source(index, 32)?, targets, join: NONE })
                }
                _ => bad("a branch by table names an index and a table"),
            },
            "ret" | "exit" => Ok(Op::Exit),
            "trap" | "brkpt" => Ok(Op::Trap),
            "nanosleep" => Ok(Op::Pause),
            _ => Err(Refusal::Unknown),
        }
    }

    /// Do blocks of a grid exchange words in global memory? Then they must not run at once.
    fn talks(&self) -> bool {
        self.entry.statements.iter().any(|statement| {
            let opcode = &statement.opcode;
            let shared = opcode.contains("shared");
            let verb = opcode.split('.').next().unwrap_or_default();
            !shared
                && (matches!(verb, "atom" | "red")
                    || matches!(verb, "ld" | "st")
                        && ["acquire", "release", "volatile", "relaxed"]
                            .iter()
                            .any(|word| opcode.contains(word)))
        })
    }

    pub(crate) fn constant(&mut self, value: u64) -> u32 {
        if let Some(slot) = self.constants.get(&value) {
            return *slot;
        }
        let slot = self.fresh();
        self.constants.insert(value, slot);
        slot
    }

    fn fresh(&mut self) -> u32 {
        self.words += 1;
        self.words - 1
    }

    /// A source of `bits` bits.
    pub(crate) fn source(&mut self, operand: &Operand, bits: u32) -> Decoded<u32> {
        match operand {
            Operand::Reg(Reg::Word(slot, _)) => Ok(*slot),
            Operand::Number(value) => {
                Ok(self.constant(if bits < 64 { value & ((1 << bits) - 1) } else { *value }))
            }
            Operand::Name(name) => self.named(name),
            Operand::Address(base, offset) => match &**base {
                Operand::Name(name) => {
                    let place = self.place(name)?.wrapping_add(*offset as u64);
                    Ok(self.constant(place))
                }
                _ => bad("a sum stands where a register is expected"),
            },
            _ => bad("a register or number is expected"),
        }
    }

    fn place(&self, name: &str) -> Decoded<u64> {
        let place = self.places.get(name).or_else(|| self.params.get(name)).copied();
        place.ok_or_else(|| Refusal::Bad(format!("nothing is called `{name}`")))
    }

    fn named(&mut self, name: &str) -> Decoded<u32> {
        let Some(special) = special(name) else {
            let place = self.place(name)?;
            return Ok(self.constant(place));
        };
        if let Some(slot) = self.specials.get(&special) {
            return Ok(*slot);
        }
        let slot = self.fresh();
        self.specials.insert(special, slot);
        Ok(slot)
    }

    /// A result and its declared width; `_` is `NONE`.
    pub(crate) fn dest(&self, operand: &Operand) -> Decoded<(u32, u32)> {
        match operand {
            Operand::Reg(Reg::Word(slot, width)) => Ok((*slot, *width)),
            Operand::Discard => Ok((NONE, 64)),
            _ => bad("the result must be a register"),
        }
    }

    pub(crate) fn pred_dest(&self, operand: &Operand) -> Decoded<u32> {
        match operand {
            Operand::Reg(Reg::Pred(slot)) => Ok(*slot),
            Operand::Discard => Ok(NONE),
            _ => bad("the result must be a predicate"),
        }
    }

    pub(crate) fn pred(&self, operand: &Operand) -> Decoded<Pred> {
        match operand {
            Operand::Reg(Reg::Pred(slot)) => Ok(Pred { slot: *slot, negated: false }),
            Operand::Not(Reg::Pred(slot)) => Ok(Pred { slot: *slot, negated: true }),
            Operand::Number(value) => {
                Ok(Pred { slot: self.truth[usize::from(*value == 0)], negated: false })
            }
            _ => bad("a predicate is expected"),
        }
    }

    /// `[base + offset]`.
    pub(crate) fn address(&mut self, operand: &Operand) -> Decoded<Address> {
        match operand {
            Operand::Address(base, offset) => {
                Ok(Address { base: self.source(base, 64)?, offset: *offset })
            }
            _ => bad("an address in brackets is expected"),
        }
    }

    /// Registers of `{…}`, or one register.
    pub(crate) fn list(&mut self, operand: &Operand, bits: u32) -> Decoded<Vec<u32>> {
        match operand {
            Operand::Vector(parts) => parts
                .iter()
                .map(|part| match part {
                    Operand::Discard => Ok(NONE),
                    part => self.source(part, bits),
                })
                .collect(),
            Operand::Discard => Ok(vec![NONE]),
            one => Ok(vec![self.source(one, bits)?]),
        }
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let (stem, rest) = name.strip_prefix('%')?.split_once('.').unwrap_or((&name[1..], ""));
    Some(match stem {
        "tid" => Special::Tid(axis(rest)?),
        "ntid" => Special::Ntid(axis(rest)?),
        "ctaid" => Special::Ctaid(axis(rest)?),
        "nctaid" => Special::Nctaid(axis(rest)?),
        "cluster_ctaid" => Special::ClusterBlock(axis(rest)?),
        "cluster_nctaid" => Special::ClusterDim(axis(rest)?),
        "clusterid" => Special::ClusterId(axis(rest)?),
        "nclusterid" => Special::Clusters(axis(rest)?),
        "laneid" => Special::Lane,
        "warpid" => Special::Warp,
        "nwarpid" => Special::Warps,
        "lanemask_eq" => Special::MaskEq,
        "lanemask_lt" => Special::MaskLt,
        "lanemask_le" => Special::MaskLe,
        "lanemask_gt" => Special::MaskGt,
        "lanemask_ge" => Special::MaskGe,
        "cluster_ctarank" => Special::ClusterRank,
        "cluster_nctarank" => Special::ClusterSize,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" => Special::TotalShared,
        "clock" | "clock64" | "globaltimer" => Special::Clock,
        _ => return None,
    })
}
