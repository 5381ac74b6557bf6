//! Opcodes of the tensor cores.

use super::{Decoded, Decoder, Refusal, Words, bad};
use crate::code::{Element, Mma, Op};
use crate::parse::Operand;

pub(super) fn element(word: &str) -> Option<Element> {
    Some(match word {
        "bf16" => Element::Bf16,
        "f16" => Element::F16,
        "e4m3" => Element::E4m3,
        "s8" => Element::S8,
        "u8" => Element::U8,
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn tensor(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        match words.words[0] {
            "mma" => self.mma(words, operands),
            _ => Err(Refusal::Unknown),
        }
    }

    /// `mma.sync.aligned.m16n8kK.row.col[.satfinite].D.A.B.C`
    fn mma(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let [_, "sync", "aligned", shape, "row", "col", d, a, b, c] = words.words[..] else {
            return Err(Refusal::Unknown);
        };
        let (Some(left), Some(right)) = (element(a), element(b)) else {
            return Err(Refusal::Unknown);
        };
        let sums = match left {
            Element::S8 | Element::U8 => "s32",
            _ => "f32",
        };
        let k = match (shape, left.bytes()) {
            ("m16n8k8", 2) => 8,
            ("m16n8k16", 2) => 16,
            ("m16n8k16", 1) => 16,
            ("m16n8k32", 1) => 32,
            _ => return Err(Refusal::Unknown),
        };
        let integers = |element| matches!(element, Element::S8 | Element::U8);
        if d != sums || c != sums || left != right && !(integers(left) && integers(right)) {
            return Err(Refusal::Unknown);
        }
        let [d, a, b, c] = operands else { return bad("a product has four operands") };
        let mma = Mma {
            left,
            right,
            k,
            d: self.list(d, 32)?,
            a: self.list(a, 32)?,
            b: self.list(b, 32)?,
            c: self.list(c, 32)?,
        };
        let halves = (k * left.bytes() / 16) as usize;
        if [mma.d.len(), mma.a.len(), mma.b.len(), mma.c.len()] != [4, 2 * halves, halves, 4] {
            return bad("the product has too many or too few registers");
        }
        Ok(Op::Mma(Box::new(mma)))
    }
}
