//! Opcodes that join threads: barriers, fences, shuffles, votes.

use super::{Decoded, Decoder, Refusal, Words, bad};
use crate::code::{Barrier, NONE, Op, Reduce, Shuffle, Vote};
use crate::parse::Operand;

impl Decoder<'_> {
    pub(super) fn sync(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        match (words.words[0], operands) {
            ("bar", [mask]) if words.has("warp") => {
                Ok(Op::WarpBarrier { mask: self.source(mask, 32)? })
            }
            ("bar" | "barrier", _) if !words.has("cluster") => self.barrier(words, operands),
            ("membar", []) => Ok(Op::Fence),
            ("fence", []) if words.has("acq_rel") || words.has("sc") => Ok(Op::Fence),
            ("shfl", _) => self.shuffle(words, operands),
            ("vote", [d, a, mask]) => {
                let how = match words.words[2] {
                    "all" => Vote::All,
                    "any" => Vote::Any,
                    "uni" => Vote::Uniform,
                    "ballot" => Vote::Ballot,
                    _ => return Err(Refusal::Unknown),
                };
                let (d, p) = match how {
                    Vote::Ballot => (self.dest(d)?.0, NONE),
                    _ => (NONE, self.pred_dest(d)?),
                };
                Ok(Op::Vote { how, d, p, a: self.pred(a)?, mask: self.source(mask, 32)? })
            }
            ("match", [d, a, mask]) => {
                let (d, p) = match d {
                    Operand::Pair(d, p) => (self.dest(d)?.0, self.pred_dest(p)?),
                    d => (self.dest(d)?.0, NONE),
                };
                let (a, mask) = (self.source(a, 64)?, self.source(mask, 32)?);
                Ok(Op::Match { all: words.has("all"), d, p, a, mask })
            }
            ("redux", [d, a, mask]) => {
                let how = match words.words[2] {
                    "add" => Reduce::Add,
                    "min" => Reduce::Min,
                    "max" => Reduce::Max,
                    "and" => Reduce::And,
                    "or" => Reduce::Or,
                    "xor" => Reduce::Xor,
                    _ => return Err(Refusal::Unknown),
                };
                let signed = words.last() == "s32";
                if !["s32", "u32", "b32"].contains(&words.last()) {
                    return Err(Refusal::Unknown);
                }
                let (a, mask) = (self.source(a, 32)?, self.source(mask, 32)?);
                Ok(Op::Reduce { how, signed, d: self.dest(d)?.0, a, mask })
            }
            ("elect", [d, mask]) => {
                let Operand::Pair(d, p) = d else { return Err(Refusal::Unknown) };
                let (d, p) = (self.dest(d)?.0, self.pred_dest(p)?);
                Ok(Op::Elect { d, p, mask: self.source(mask, 32)? })
            }
            ("activemask", [d]) => Ok(Op::ActiveMask { d: self.dest(d)?.0 }),
            ("griddepcontrol", []) if words.has("wait") => Ok(Op::Predecessors),
            ("griddepcontrol", []) => Ok(Op::Nop),
            _ => Err(Refusal::Unknown),
        }
    }

    fn barrier(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let waits = match (words.has("sync"), words.has("arrive")) {
            (true, false) => true,
            (false, true) => false,
            _ => return Err(Refusal::Unknown),
        };
        let (id, count) = match operands {
            [id] if waits => (self.source(id, 32)?, NONE),
            [id, count] => (self.source(id, 32)?, self.source(count, 32)?),
            _ => return bad("a barrier names its number, and the threads where not all come"),
        };
        Ok(Op::Barrier(Box::new(Barrier { id, count, waits })))
    }

    fn shuffle(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        if words.words.len() != 4 || words.words[1] != "sync" || words.words[3] != "b32" {
            return Err(Refusal::Unknown);
        }
        let how = match words.words[2] {
            "up" => Shuffle::Up,
            "down" => Shuffle::Down,
            "bfly" => Shuffle::Butterfly,
            "idx" => Shuffle::Index,
            _ => return Err(Refusal::Unknown),
        };
        let [d, a, b, c, mask] = operands else {
            return bad("a shuffle has a result, three sources and a mask");
        };
        let (d, p) = match d {
            Operand::Pair(d, p) => (self.dest(d)?.0, self.pred_dest(p)?),
            d => (self.dest(d)?.0, NONE),
        };
        let [a, b, c, mask] = [a, b, c, mask].map(|source| self.source(source, 32));
        Ok(Op::Shuffle { how, d, p, a: a?, b: b?, c: c?, mask: mask? })
    }
}
