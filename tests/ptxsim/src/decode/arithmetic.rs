//! Opcodes that compute in a lane, compare, select, pack and convert.

use super::{Decoded, Decoder, Refusal, Words, bad};
use crate::code::{Compare, LOCAL_WINDOW, NONE, Op, PARAM_WINDOW, SHARED_WINDOW};
use crate::parse::{Operand, Reg, type_bits};
use crate::scalar::convert::{Conversion, Pair};
use crate::scalar::{self, Function};

impl Decoder<'_> {
    pub(super) fn arithmetic(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let known = type_bits(words.last());
        let bits = known.unwrap_or(64);
        let untyped = known.is_none() && words.last() != "pred";
        match words.words[0] {
            "selp" | "slct" | "bfi" | "lop3" | "mov" if untyped => return Err(Refusal::Unknown),
            "setp" => return self.compare(words, operands),
            "cvt" if words.has("pack") => return self.pack_bytes(words, operands),
            "cvt" => return self.convert(words, operands),
            "cvta" => return self.window(words, operands),
            "mov" => return self.mov(bits, words, operands),
            _ if words.last() == "pred" => return self.logic(words, operands),
            _ => {}
        }
        match (words.words[0], operands) {
            ("selp", [d, a, b, p]) => Ok(Op::Select {
                d: self.dest(d)?.0,
                a: self.source(a, bits)?,
                b: self.source(b, bits)?,
                p: self.pred(p)?,
            }),
            ("slct", [d, a, b, c]) => Ok(Op::SelectSign {
                d: self.dest(d)?.0,
                a: self.source(a, 64)?,
                b: self.source(b, 64)?,
                c: self.source(c, 32)?,
                float: words.last() == "f32",
            }),
            ("bfi", [d, a, b, c, e]) => {
                let s = [self.source(a, bits)?, self.source(b, bits)?];
                let s = [s[0], s[1], self.source(c, 32)?, self.source(e, 32)?];
                Ok(Op::Insert { d: self.dest(d)?.0, s, bits })
            }
            ("lop3", [d, a, b, c, Operand::Number(table)]) => {
                let s = [self.source(a, 32)?, self.source(b, 32)?, self.source(c, 32)?];
                Ok(Op::Logic3 { d: self.dest(d)?.0, s, table: *table as u8 })
            }
            (_, [d, sources @ ..]) => {
                let Some(found) = scalar::find(words.whole) else { return Err(Refusal::Unknown) };
                self.scalar(found.function, found.sources, bits, d, sources)
            }
            _ => Err(Refusal::Unknown),
        }
    }

    fn scalar(
        &mut self,
        function: Function,
        count: usize,
        bits: u32,
        d: &Operand,
        sources: &[Operand],
    ) -> Decoded<Op> {
        if sources.len() != count {
            return bad(format!("the instruction has {} sources, not {count}", sources.len()));
        }
        let mut s = [self.constant(0); 3];
        for (slot, source) in s.iter_mut().zip(sources) {
            *slot = self.source(source, bits)?;
        }
        Ok(Op::Scalar { function, d: self.dest(d)?.0, s })
    }

    fn compare(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let ty = words.last();
        let bits = type_bits(ty).unwrap_or(64);
        let mut relation = None;
        let mut join: Option<fn(u32, u32) -> u32> = None;
        for word in &words.words[1..words.words.len() - 1] {
            match *word {
                "and" => join = Some(|a, b| a & b),
                "or" => join = Some(|a, b| a | b),
                "xor" => join = Some(|a, b| a ^ b),
                word => match scalar::relation(word, ty) {
                    Some(found) => relation = Some(found),
                    None => return Err(Refusal::Unknown),
                },
            }
        }
        let (Some(relation), [to, a, b, rest @ ..]) = (relation, operands) else {
            return Err(Refusal::Unknown);
        };
        let (to, to_inverse) = match to {
            Operand::Pair(p, q) => (self.pred_dest(p)?, self.pred_dest(q)?),
            to => (self.pred_dest(to)?, NONE),
        };
        let join = match (join, rest) {
            (Some(join), [c]) => Some((join, self.pred(c)?)),
            (None, []) => None,
            _ => return bad("the comparison has too many or too few operands"),
        };
        let (a, b) = (self.source(a, bits)?, self.source(b, bits)?);
        Ok(Op::Compare(Box::new(Compare { relation, a, b, to, to_inverse, join })))
    }

    fn convert(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let Some(conversion) = Conversion::parse(words.whole) else {
            return Err(Refusal::Unknown);
        };
        let two = conversion.pair == Some(Pair::TwoSources);
        let (d, a, b) = match operands {
            [d, a] if !two => (d, a, None),
            [d, a, b] if two => (d, a, Some(b)),
            _ => return bad("the conversion has too many or too few operands"),
        };
        let (d, width) = self.dest(d)?;
        let a = self.source(a, 64)?;
        let b = match b {
            Some(b) => self.source(b, 64)?,
            None => a,
        };
        let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
        Ok(Op::Convert { conversion: Box::new(conversion), d, mask, a, b })
    }

    fn pack_bytes(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let signed = match words.whole {
            "cvt.pack.sat.s8.s32.b32" => true,
            "cvt.pack.sat.u8.s32.b32" => false,
            _ => return Err(Refusal::Unknown),
        };
        let [d, sources @ ..] = operands else { return Err(Refusal::Unknown) };
        self.scalar(scalar::pack_bytes(signed), 3, 32, d, sources)
    }

    fn window(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let window = match words.words.iter().find(|word| {
            ["global", "const", "shared", "shared::cta", "local", "param"].contains(word)
        }) {
            Some(&("shared" | "shared::cta")) => SHARED_WINDOW,
            Some(&"local") => LOCAL_WINDOW,
            Some(&"param") => PARAM_WINDOW,
            Some(_) => 0,
            None => return Err(Refusal::Unknown),
        };
        let [d, a] = operands else { return Err(Refusal::Unknown) };
        let function: Function =
            if words.has("to") { |a, b, _| a.wrapping_sub(b) } else { |a, b, _| a.wrapping_add(b) };
        let s = [self.source(a, 64)?, self.constant(window), self.constant(0)];
        Ok(Op::Scalar { function, d: self.dest(d)?.0, s })
    }

    fn mov(&mut self, bits: u32, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let [d, a] = operands else { return Err(Refusal::Unknown) };
        match (d, a) {
            (Operand::Reg(Reg::Pred(_)), _) => self.logic(words, operands),
            (Operand::Vector(parts), a) => {
                let parts_bits = bits / parts.len() as u32;
                let parts =
                    parts.iter().map(|part| Ok(self.dest(part)?.0)).collect::<Decoded<_>>()?;
                Ok(Op::Unpack { parts, a: self.source(a, bits)?, width: parts_bits })
            }
            (d, Operand::Vector(parts)) => {
                let width = bits / parts.len() as u32;
                let parts =
                    parts.iter().map(|part| self.source(part, width)).collect::<Decoded<_>>()?;
                Ok(Op::Pack { d: self.dest(d)?.0, parts, width })
            }
            (d, a) => {
                let Some(found) = scalar::find(words.whole) else { return Err(Refusal::Unknown) };
                self.scalar(found.function, found.sources, bits, d, std::slice::from_ref(a))
            }
        }
    }

    fn logic(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let function: fn(u32, u32) -> u32 = match words.words[0] {
            "and" => |a, b| a & b,
            "or" => |a, b| a | b,
            "xor" => |a, b| a ^ b,
            "not" => |a, _| !a,
            "mov" => |a, _| a,
            _ => return Err(Refusal::Unknown),
        };
        match operands {
            [d, a] => {
                let a = self.pred(a)?;
                Ok(Op::Preds { function, d: self.pred_dest(d)?, a, b: a })
            }
            [d, a, b] => {
                let (a, b) = (self.pred(a)?, self.pred(b)?);
                Ok(Op::Preds { function, d: self.pred_dest(d)?, a, b })
            }
            _ => Err(Refusal::Unknown),
        }
    }
}
