//! Opcodes that touch memory: loads, stores, atomics, asynchronous copies, matrices, hints.

use super::{Decoded, Decoder, Refusal, Words, bad};
use crate::code::{Access, Atomic, AtomicOp, Copy, Matrices, NONE, Op, Order, Space};
use crate::parse::{Operand, type_bits};

/// Words that change how caches behave but not what is read.
const HINTS: [&str; 20] = [
    "nc",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "weak",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "L1::no_allocate",
    "L1::evict_first",
    "L1::evict_last",
    "L1::evict_normal",
    "L2::cache_hint",
    "L1::evict_unchanged",
    "noftz",
];

fn hint(word: &str) -> bool {
    HINTS.contains(&word) || word.starts_with("L2::")
}

fn space(word: &str) -> Option<Space> {
    Some(match word {
        "global" | "const" => Space::Global,
        "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" => Space::Param,
        _ => return None,
    })
}

fn order(word: &str) -> Option<Order> {
    Some(match word {
        "relaxed" | "volatile" => Order::Relaxed,
        "acquire" => Order::Acquire,
        "release" => Order::Release,
        "acq_rel" => Order::Both,
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn memory(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        match words.words[0] {
            "ld" | "ldu" => self.access(words, operands, false),
            "st" => self.access(words, operands, true),
            "atom" | "red" => self.atomic(words, operands),
            "cp" if words.has("async") && !words.has("bulk") => self.copy(words, operands),
            "ldmatrix" | "stmatrix" => self.matrices(words, operands),
            "movmatrix" => match operands {
                [d, a] => Ok(Op::MoveMatrix { d: self.dest(d)?.0, a: self.source(a, 32)? }),
                _ => Err(Refusal::Unknown),
            },
            "prefetch" | "prefetchu" | "applypriority" | "discard" => match operands {
                [address, ..] => {
                    let space = words.words.iter().find_map(|word| space(word));
                    let space = space.unwrap_or(Space::Generic);
                    Ok(Op::Hint { space, address: self.address(address)? })
                }
                [] => Err(Refusal::Unknown),
            },
            // A policy only steers the cache; its register must still be seen as written.
            "createpolicy" => match operands {
                [d, ..] => {
                    let zero = self.constant(0);
                    let d = self.dest(d)?.0;
                    Ok(Op::Scalar { function: |_, _, _| 0, d, s: [zero; 3] })
                }
                [] => Err(Refusal::Unknown),
            },
            _ => Err(Refusal::Unknown),
        }
    }

    fn access(&mut self, words: &Words, operands: &[Operand], store: bool) -> Decoded<Op> {
        let mut place = Space::Generic;
        let mut how = Order::Weak;
        let mut count = 1;
        let ty = words.last();
        for word in &words.words[1..words.words.len() - 1] {
            if let Some(found) = space(word) {
                place = found;
            } else if let Some(found) = order(word) {
                how = found;
            } else if let Some(found) = word.strip_prefix('v').and_then(|n| n.parse().ok()) {
                count = found;
            } else if !hint(word) {
                return Err(Refusal::Unknown);
            }
        }
        let Some(bits) = type_bits(ty).filter(|bits| *bits <= 64) else {
            return Err(Refusal::Unknown);
        };
        let (address, value) = match (operands, store) {
            ([address, value] | [address, value, _], true) => (address, value),
            ([value, address] | [value, address, _], false) => (address, value),
            _ => return bad("the access has too many or too few operands"),
        };
        let regs = self.list(value, bits)?;
        let width = match value {
            Operand::Vector(parts) => parts.first(),
            one => Some(one),
        };
        let width = width.and_then(|part| self.dest(part).ok()).map_or(64, |(_, width)| width);
        if regs.len() != count {
            return bad(format!("{} registers stand for {count} elements", regs.len()));
        }
        let access = Access {
            space: place,
            order: how,
            size: bits / 8,
            signed: ty.starts_with('s'),
            address: self.address(address)?,
            regs,
            width,
        };
        Ok(if store { Op::Store(Box::new(access)) } else { Op::Load(Box::new(access)) })
    }

    fn atomic(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let mut place = Space::Generic;
        let mut how = Order::Relaxed;
        let mut op = None;
        let ty = words.last();
        for word in &words.words[1..words.words.len() - 1] {
            if let Some(found) = space(word) {
                place = found;
            } else if let Some(found) = order(word) {
                how = found;
            } else if !hint(word) {
                op = Some(match (*word, ty) {
                    ("add", "f32") => AtomicOp::AddF32,
                    ("add", _) => AtomicOp::Add,
                    ("min", _) => AtomicOp::Min,
                    ("max", _) => AtomicOp::Max,
                    ("and", _) => AtomicOp::And,
                    ("or", _) => AtomicOp::Or,
                    ("xor", _) => AtomicOp::Xor,
                    ("exch", _) => AtomicOp::Exchange,
                    ("cas", _) => AtomicOp::CompareExchange,
                    ("inc", _) => AtomicOp::Increment,
                    ("dec", _) => AtomicOp::Decrement,
                    _ => return Err(Refusal::Unknown),
                });
            }
        }
        let integer = !ty.contains('f');
        let bits = type_bits(ty).filter(|bits| *bits == 32 || *bits == 64);
        let (Some(op), Some(bits)) = (op, bits) else { return Err(Refusal::Unknown) };
        if !integer && op != AtomicOp::AddF32 {
            return Err(Refusal::Unknown);
        }
        let (dest, rest) = match (words.words[0], operands) {
            ("red", rest) => (NONE, rest),
            (_, [d, rest @ ..]) => (self.dest(d)?.0, rest),
            _ => return Err(Refusal::Unknown),
        };
        let (address, a, b) = match rest {
            [address, a] => (address, a, a),
            [address, a, b] if op == AtomicOp::CompareExchange => (address, a, b),
            _ => return bad("the atomic has too many or too few operands"),
        };
        Ok(Op::Atomic(Box::new(Atomic {
            op,
            space: place,
            order: how,
            size: bits / 8,
            signed: ty.starts_with('s'),
            address: self.address(address)?,
            dest,
            a: self.source(a, bits)?,
            b: self.source(b, bits)?,
        })))
    }

    fn copy(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        if words.has("commit_group") {
            return Ok(Op::CopyCommit);
        }
        if words.has("wait_all") {
            return Ok(Op::CopyWait { pending: NONE });
        }
        if words.has("wait_group") {
            return match operands {
                [Operand::Number(pending)] => Ok(Op::CopyWait { pending: *pending as u32 }),
                _ => bad("a wait names how many groups may be pending"),
            };
        }
        let known = |word: &&str| {
            ["cp", "async", "shared", "shared::cta", "global"].contains(word) || hint(word)
        };
        if words.has("mbarrier") || !words.words.iter().all(known) {
            return Err(Refusal::Unknown);
        }
        let [to, from, Operand::Number(size), rest @ ..] = operands else {
            return bad("a copy names where to, where from, and how many bytes");
        };
        let fits = if words.has("cg") { *size == 16 } else { [4, 8, 16].contains(size) };
        if !fits {
            return bad(format!("`{}` cannot copy {size} bytes", words.whole));
        }
        let source = match rest {
            [source, ..] if !(words.has("L2::cache_hint") && rest.len() == 1) => {
                self.source(source, 32)?
            }
            _ => NONE,
        };
        let (to, from) = (self.address(to)?, self.address(from)?);
        Ok(Op::Copy(Box::new(Copy { to, from, size: *size as u32, source })))
    }

    fn matrices(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let store = words.words[0] == "stmatrix";
        let count = match (words.has("x1"), words.has("x2"), words.has("x4")) {
            (true, _, _) => 1,
            (_, true, _) => 2,
            (_, _, true) => 4,
            _ => return Err(Refusal::Unknown),
        };
        let known = |word: &str| {
            ["ldmatrix", "stmatrix", "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans"]
                .contains(&word)
                || ["shared", "shared::cta", "b16"].contains(&word)
        };
        if !words.words.iter().all(|word| known(word)) || !words.has("m8n8") {
            return Err(Refusal::Unknown);
        }
        let (address, regs) = match (operands, store) {
            ([address, regs], true) | ([regs, address], false) => (address, regs),
            _ => return Err(Refusal::Unknown),
        };
        let regs = self.list(regs, 32)?;
        if regs.len() != count {
            return bad(format!("{} registers stand for {count} matrices", regs.len()));
        }
        let shared = words.words.iter().any(|word| word.starts_with("shared"));
        Ok(Op::Matrices(Box::new(Matrices {
            space: if shared { Space::Shared } else { Space::Generic },
            store,
            transposed: words.has("trans"),
            regs,
            address: self.address(address)?,
        })))
    }
}
