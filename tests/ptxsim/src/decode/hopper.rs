//! Opcodes that `sm_90` adds: barriers in shared memory, bulk copies, `wgmma`, clusters.

use super::tensor::element;
use super::{Decoded, Decoder, Refusal, Words, bad};
use crate::code::{Element, NONE, Op};
use crate::hopper::{Arrive, Bulk, Far, Hopper, Left, Wgmma};
use crate::parse::Operand;

fn op(hopper: Hopper) -> Decoded<Op> {
    Ok(Op::Hopper(Box::new(hopper)))
}

impl Decoder<'_> {
    pub(super) fn hopper(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        match (words.words[0], operands) {
            ("mbarrier", _) => self.mbarrier(words, operands),
            ("fence", []) if words.has("mbarrier_init") => op(Hopper::FenceInit),
            ("fence", [])
                if words.has("proxy")
                    && words.words[2..].iter().any(|w| w.starts_with("async")) =>
            {
                op(Hopper::FenceProxy)
            }
            ("cp", _) if words.has("bulk") => self.bulk(words, operands),
            ("wgmma", _) => self.wgmma_group(words, operands),
            ("setmaxnreg", [Operand::Number(count)]) => {
                op(Hopper::Registers { count: *count as u32, takes: words.has("inc") })
            }
            ("mapa", [d, a, rank]) => {
                let generic = !words.words.iter().any(|word| word.starts_with("shared"));
                let (a, rank) = (self.source(a, 64)?, self.source(rank, 32)?);
                op(Hopper::Map { d: self.dest(d)?.0, a, rank, generic })
            }
            ("barrier", []) if words.has("cluster") && words.has("arrive") => {
                op(Hopper::ClusterArrive { releases: !words.has("relaxed") })
            }
            ("barrier", []) if words.has("cluster") && words.has("wait") => op(Hopper::ClusterWait),
            _ => Err(Refusal::Unknown),
        }
    }

    fn mbarrier(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        let known = |word: &str| {
            ["mbarrier", "init", "inval", "arrive", "expect_tx", "complete_tx", "try_wait", "b64"]
                .contains(&word)
                || ["test_wait", "parity", "release", "acquire", "relaxed", "cta", "cluster"]
                    .contains(&word)
                || word.starts_with("shared")
        };
        if !words.words.iter().all(|word| known(word)) {
            return Err(Refusal::Unknown);
        }
        match (words.words[1], operands) {
            ("init", [place, count]) => {
                op(Hopper::Init { place: self.address(place)?, count: self.source(count, 32)? })
            }
            ("inval", [place]) => op(Hopper::Invalidate { place: self.address(place)? }),
            ("arrive", [token, place, rest @ ..]) => {
                let amount = match rest {
                    [] => NONE,
                    [amount] => self.source(amount, 32)?,
                    _ => return bad("an arrival has too many operands"),
                };
                let expects = words.has("expect_tx");
                op(Hopper::Arrive(Arrive {
                    place: self.address(place)?,
                    token: self.dest(token)?.0,
                    count: if expects { NONE } else { amount },
                    bytes: if expects { amount } else { NONE },
                    arrives: true,
                    completes: false,
                }))
            }
            ("expect_tx" | "complete_tx", [place, bytes]) => op(Hopper::Arrive(Arrive {
                place: self.address(place)?,
                token: NONE,
                count: NONE,
                bytes: self.source(bytes, 32)?,
                arrives: false,
                completes: words.words[1] == "complete_tx",
            })),
            ("try_wait" | "test_wait", [p, place, phase, ..]) => op(Hopper::Wait {
                place: self.address(place)?,
                p: self.pred_dest(p)?,
                phase: self.source(phase, 64)?,
                parity: words.has("parity"),
            }),
            _ => Err(Refusal::Unknown),
        }
    }

    fn far_box(&mut self, operand: &Operand, words: &Words) -> Decoded<Far> {
        let Operand::Tensor(map, coordinates) = operand else {
            return bad("a tensor map and coordinates are expected in brackets");
        };
        let map = Operand::Address(map.clone(), 0);
        let map = self.address(&map)?;
        let at = coordinates.iter().map(|it| self.source(it, 32)).collect::<Decoded<Vec<_>>>()?;
        if !words.has(&format!("{}d", at.len())) {
            return bad(format!("{} coordinates stand for `{}`", at.len(), words.whole));
        }
        Ok(Far::Box(map, at))
    }

    fn bulk(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        if words.words[1] != "async" {
            return Err(Refusal::Unknown);
        }
        if words.has("commit_group") {
            return op(Hopper::BulkCommit);
        }
        if words.has("wait_group") {
            return match operands {
                [Operand::Number(pending)] => op(Hopper::BulkWait { pending: *pending as u32 }),
                _ => bad("a wait names how many groups may be pending"),
            };
        }
        let tensor = words.has("tensor");
        if words.words.iter().any(|word| word.starts_with("im2col") || word.starts_with("tile::")) {
            return Err(Refusal::Unknown);
        }
        let blocks = |decoder: &mut Self, rest: &[Operand]| match rest {
            [mask, ..] if words.has("multicast::cluster") => decoder.source(mask, 16),
            _ => Ok(NONE),
        };
        if words.has("prefetch") {
            return match operands {
                [from @ Operand::Tensor(..), ..] => {
                    op(Hopper::Bulk(Bulk::Prefetch(self.far_box(from, words)?)))
                }
                [from, bytes, ..] => {
                    let far = Far::Run(self.address(from)?, self.source(bytes, 32)?);
                    op(Hopper::Bulk(Bulk::Prefetch(far)))
                }
                _ => Err(Refusal::Unknown),
            };
        }
        let completes = words.has("mbarrier::complete_tx::bytes");
        let spaces: Vec<&str> = words
            .words
            .iter()
            .copied()
            .filter(|word| word.starts_with("shared") || *word == "global")
            .collect();
        match (&spaces[..], operands) {
            (["shared::cluster" | "shared::cta", "global"], [to, from, barrier, rest @ ..])
                if tensor && completes =>
            {
                let (to, from) = (self.address(to)?, self.far_box(from, words)?);
                let (barrier, blocks) = (self.address(barrier)?, blocks(self, rest)?);
                op(Hopper::Bulk(Bulk::In { to, from, barrier, blocks }))
            }
            (
                ["shared::cluster" | "shared::cta", "global"],
                [to, from, bytes, barrier, rest @ ..],
            ) if completes => {
                let far = Far::Run(self.address(from)?, self.source(bytes, 32)?);
                let (to, barrier) = (self.address(to)?, self.address(barrier)?);
                let blocks = blocks(self, rest)?;
                op(Hopper::Bulk(Bulk::In { to, from: far, barrier, blocks }))
            }
            (["shared::cluster", "shared::cta"], [to, from, bytes, barrier]) if completes => {
                let (to, from) = (self.address(to)?, self.address(from)?);
                let (bytes, barrier) = (self.source(bytes, 32)?, self.address(barrier)?);
                op(Hopper::Bulk(Bulk::Across { to, from, bytes, barrier }))
            }
            (["global", "shared::cta"], [to, from, ..]) if tensor && words.has("bulk_group") => {
                let (to, from) = (self.far_box(to, words)?, self.address(from)?);
                op(Hopper::Bulk(Bulk::Out { to, from }))
            }
            (["global", "shared::cta"], [to, from, bytes, ..]) if words.has("bulk_group") => {
                let to = Far::Run(self.address(to)?, self.source(bytes, 32)?);
                op(Hopper::Bulk(Bulk::Out { to, from: self.address(from)? }))
            }
            _ => Err(Refusal::Unknown),
        }
    }

    fn wgmma_group(&mut self, words: &Words, operands: &[Operand]) -> Decoded<Op> {
        match (&words.words[1..], operands) {
            (["fence", "sync", "aligned"], []) => op(Hopper::WgmmaFence),
            (["commit_group", "sync", "aligned"], []) => op(Hopper::WgmmaCommit),
            (["wait_group", "sync", "aligned"], [Operand::Number(pending)]) => {
                op(Hopper::WgmmaWait { pending: *pending as u32 })
            }
            (["mma_async", "sync", "aligned", shape, sum, left, right], [d, a, b, rest @ ..]) => {
                let (Some(left), Some(right)) = (element(left), element(right)) else {
                    return Err(Refusal::Unknown);
                };
                self.wgmma(shape, sum, [left, right], [d, a, b], rest)
            }
            _ => Err(Refusal::Unknown),
        }
    }

    fn wgmma(
        &mut self,
        shape: &str,
        sum: &str,
        [left_element, right_element]: [Element; 2],
        [d, a, b]: [&Operand; 3],
        rest: &[Operand],
    ) -> Decoded<Op> {
        let integers = matches!(left_element, Element::S8 | Element::U8);
        let narrow = left_element.bytes() == 1;
        let Some((n, k)) = shape.strip_prefix("m64n").and_then(|shape| shape.split_once('k'))
        else {
            return Err(Refusal::Unknown);
        };
        let n: u32 = n.parse().map_err(|_| Refusal::Unknown)?;
        let fits =
            if integers { n.is_multiple_of(16) || n == 8 || n == 24 } else { n.is_multiple_of(8) };
        if !(8..=256).contains(&n) || !fits || k != if narrow { "32" } else { "16" } {
            return bad(format!("`{shape}` is no shape of a product of these types"));
        }
        let same = left_element == right_element
            || integers && matches!(right_element, Element::S8 | Element::U8);
        if sum != if integers { "s32" } else { "f32" } || !same {
            return Err(Refusal::Unknown);
        }
        let left = match a {
            Operand::Vector(_) => Left::Registers(self.list(a, 32)?),
            a => Left::Descriptor(self.source(a, 64)?),
        };
        let in_registers = matches!(left, Left::Registers(_));
        let [keep, numbers @ ..] = rest else { return bad("the product lacks `scale-d`") };
        let number = |at: usize| match numbers.get(at) {
            Some(Operand::Number(value)) => Ok(*value as i64 as i32),
            _ => bad("scales and turns of a product are numbers"),
        };
        let mut negate = [false; 2];
        let mut turned = [false; 2];
        let count = match (integers, narrow, in_registers) {
            (true, ..) => 0,
            (_, true, _) => 2,
            (_, _, true) => 3,
            _ => 4,
        };
        if numbers.len() != count {
            return bad(format!("{} numbers follow `scale-d`, not {count}", numbers.len()));
        }
        if count >= 2 {
            negate = [number(0)? == -1, number(1)? == -1];
        }
        match count {
            3 => turned[1] = number(2)? == 1,
            4 => turned = [number(2)? == 1, number(3)? == 1],
            _ => {}
        }
        let d = self.list(d, 32)?;
        if d.len() as u32 != n / 2 {
            return bad(format!("{} registers stand for {} sums", d.len(), n / 2));
        }
        let (right, keep) = (self.source(b, 64)?, self.pred(keep)?);
        let wgmma = Wgmma { n, left_element, right_element, d, left, right, keep, negate, turned };
        op(Hopper::Wgmma(wgmma))
    }
}
