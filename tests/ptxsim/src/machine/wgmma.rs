//! `wgmma`: products of a warpgroup. Each of its four warps computes 16 rows, from shared memory or its
//! registers; the sums may not be touched until the group is waited for.

use super::Machine;
use super::shared::at_lane;
use super::tensor::{byte, bytes_of};
use crate::code::Element;
use crate::fault::{Kind, Stop, stop};
use crate::hopper::{Left, Wgmma};
use crate::order::{Knowledge, MANY};
use crate::product::{FULL, Row, Rule, dot, stir, stirred};
use crate::shared::Who;
use crate::tensor_map::Swizzle;
use crate::warp::Warp;

/// fp8 products keep 13 fraction bits, and so does their sum.
const NARROW: Rule = Rule { fraction: 13, result: 13 };

/// Bytes of the inner dimension of one instruction.
const INNER: usize = 32;

/// A matrix in shared memory, as a descriptor tells it.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle: Swizzle,
}

impl Descriptor {
    fn parse(bits: u64) -> Result<Self, String> {
        if bits >> 49 & 7 != 0 {
            return Err("a descriptor with a base offset, which is not known here".into());
        }
        let known = 0x3fff | 0x3fff << 16 | 0x3fff << 32 | 3 << 62;
        if bits & !known != 0 {
            return Err(format!("a descriptor with bits {:#x} that mean nothing", bits & !known));
        }
        let swizzles = [Swizzle::None, Swizzle::Bytes128, Swizzle::Bytes64, Swizzle::Bytes32];
        Ok(Self {
            start: (bits & 0x3fff) << 4,
            leading: (bits >> 16 & 0x3fff) << 4,
            stride: (bits >> 32 & 0x3fff) << 4,
            swizzle: swizzles[(bits >> 62) as usize],
        })
    }

    /// Where inner byte `inner` of row `row` lies, if rows are along the inner dimension.
    fn straight(&self, row: u64, inner: u64) -> u64 {
        let at = match self.swizzle.span() {
            Some(span) => row / 8 * self.stride + row % 8 * span + inner,
            None => row / 8 * self.stride + inner / 16 * self.leading + row % 8 * 16 + inner % 16,
        };
        self.swizzle.place(self.start + at)
    }

    /// Where the two bytes of element `inner` of row `row` lie, if rows are neighbours.
    fn turned(&self, row: u64, inner: u64) -> u64 {
        let bytes = row * 2;
        let at = match self.swizzle.span() {
            Some(span) => {
                bytes / span * self.leading
                    + bytes % span
                    + inner / 8 * self.stride
                    + inner % 8 * span
            }
            None => {
                bytes / 16 * self.stride + bytes % 16 + inner / 8 * self.leading + inner % 8 * 16
            }
        };
        self.swizzle.place(self.start + at)
    }
}

impl Machine<'_> {
    fn product_agent(&self, warp: &Warp) -> u32 {
        self.shape.warps() * self.shape.cluster_blocks() + warp.clock.agent
    }

    pub(super) fn whole_group(&self, warp: &Warp, exec: u32) -> Result<(), Stop> {
        Self::aligned(warp, exec)?;
        let group = warp.index / 4;
        if exec != u32::MAX || (group + 1) * 4 > self.shape.warps() {
            return stop(
                Kind::Divergence,
                exec.trailing_zeros(),
                "the instruction needs a whole warpgroup",
            );
        }
        Ok(())
    }

    pub(super) fn wgmma(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        op: &Wgmma,
    ) -> Result<(), Stop> {
        self.whole_group(warp, exec)?;
        warp.fenced_once()?;
        let keep = warp.pred(op.keep, exec)?;
        if keep != 0 && keep != u32::MAX {
            return stop(Kind::Operand, keep.trailing_zeros(), "`scale-d` differs between lanes");
        }
        let group = warp.product_group + 1;
        let left = match &op.left {
            Left::Registers(regs) => {
                let words = regs.iter().map(|reg| {
                    warp.unfenced(*reg)?;
                    warp.word(*reg, exec).copied()
                });
                bytes_of(&words.collect::<Result<Vec<_>, _>>()?, 16)
            }
            Left::Descriptor(slot) => {
                let bits = Self::uniform(warp, exec, *slot, "descriptor")?;
                // It is the warpgroup that reads: nothing says which of its warps reads which rows.
                let all = self.rows(rank, warp, (bits, op.turned[0]), 64)?;
                all[16 * (warp.index % 4) as usize..][..16].to_vec()
            }
        };
        let bits = Self::uniform(warp, exec, op.right, "descriptor")?;
        let right = self.rows(rank, warp, (bits, op.turned[1]), u64::from(op.n))?;
        let old = op.d.iter().map(|reg| {
            warp.unfenced(*reg)?;
            warp.sum(*reg, keep != 0)
        });
        let old = old.collect::<Result<Vec<_>, _>>()?;
        let sums = match self.shape.stirred {
            true => stirred_products(op, &left, &right),
            false => products(op, &left, &right),
        };
        for (index, (reg, mut old)) in op.d.iter().zip(old).enumerate() {
            for (lane, word) in old.iter_mut().enumerate() {
                let row = lane / 4 + 8 * (index / 2 % 2);
                let column = index / 4 * 8 + 2 * (lane % 4) + index % 2;
                let before = if keep != 0 { *word as u32 } else { 0 };
                *word = u64::from(sums(row, column, before));
            }
            warp.put_busy(*reg, group, &old);
        }
        if let Left::Registers(regs) = &op.left {
            for reg in regs {
                warp.hold(*reg, group);
            }
        }
        self.statistics.products += 1;
        Ok(())
    }

    /// The first `count` rows, `INNER` bytes of each.
    fn rows(
        &mut self,
        rank: usize,
        warp: &Warp,
        (bits, turned): (u64, bool),
        count: u64,
    ) -> Result<Vec<[u8; INNER]>, Stop> {
        let refuse = |sentence| Stop { kind: Kind::Operand, lane: 0, sentence };
        let descriptor = Descriptor::parse(bits).map_err(refuse)?;
        let who = Who {
            lane: MANY,
            ..Who::hardware(&warp.clock, 0, self.product_agent(warp), warp.product_group + 1)
        };
        let shared = &mut self.blocks[rank].shared;
        let step = if turned { 2 } else { 16 };
        let mut rows = vec![[0; INNER]; count as usize];
        for (row, bytes) in rows.iter_mut().enumerate() {
            for inner in (0..INNER).step_by(step) {
                let at = match turned {
                    true => descriptor.turned(row as u64, inner as u64 / 2),
                    false => descriptor.straight(row as u64, inner as u64),
                };
                let size = step as u64;
                let verdict =
                    shared.holds(at, size, 1).and_then(|()| shared.note_read(at, size, &who));
                at_lane(0, verdict)?;
                bytes[inner..inner + step]
                    .copy_from_slice(&shared.bytes[at as usize..at as usize + step]);
            }
        }
        Ok(rows)
    }

    pub(super) fn wgmma_wait(&self, warp: &mut Warp, exec: u32, pending: u32) -> Result<(), Stop> {
        self.whole_group(warp, exec)?;
        let done = warp.product_group.saturating_sub(pending);
        warp.release_busy(done);
        let mut known = Knowledge::default();
        known.order.learn(self.product_agent(warp), done);
        warp.clock.learn(exec, warp.live, &known);
        Ok(())
    }
}

/// In the place of the sum for a row, a column and what stood there, what [`stirred`] gives.
fn stirred_products<'r>(
    op: &'r Wgmma,
    left: &[[u8; INNER]],
    right: &[[u8; INNER]],
) -> Box<dyn Fn(usize, usize, u32) -> u32 + 'r> {
    let [a, b] =
        [left, right].map(|rows| -> Vec<u32> { rows.iter().map(|row| stir(row)).collect() });
    Box::new(move |row, column, old| stirred([a[row], b[column]], old, op.left_element))
}

/// The sum for a row, a column and what stood there.
fn products<'r>(
    op: &'r Wgmma,
    left: &'r [[u8; INNER]],
    right: &'r [[u8; INNER]],
) -> Box<dyn Fn(usize, usize, u32) -> u32 + 'r> {
    if matches!(op.left_element, Element::S8 | Element::U8) {
        return Box::new(move |row, column, old| {
            let signed = [op.left_element, op.right_element].map(|it| it == Element::S8);
            let pairs = left[row].iter().zip(&right[column]);
            let products = pairs.map(|(a, b)| byte(*a, signed[0]) * byte(*b, signed[1]));
            products.fold(old as i32, i32::wrapping_add) as u32
        });
    }
    let all = |rows: &[[u8; INNER]], element, negate: bool| -> Vec<Row> {
        let row = |bytes: &[u8; INNER]| {
            let mut row = Row::of(element, bytes);
            if negate {
                row.negate();
            }
            row
        };
        rows.iter().map(row).collect()
    };
    let a = all(left, op.left_element, op.negate[0]);
    let b = all(right, op.right_element, op.negate[1]);
    let rule = if op.left_element == Element::E4m3 { NARROW } else { FULL };
    Box::new(move |row, column, old| {
        dot(rule, op.left_element, &a[row], &b[column], f32::from_bits(old)).to_bits()
    })
}
