//! `mma.sync`: fragments of a warp's registers to matrices and back.

use super::Machine;
use crate::code::{Element, Mma};
use crate::fault::{Kind, Stop, stop};
use crate::product::{FULL, Row, dot, stir, stirred};
use crate::warp::{Lanes, Warp};

impl Machine<'_> {
    pub(super) fn mma(&mut self, warp: &mut Warp, exec: u32, mma: &Mma) -> Result<(), Stop> {
        if exec != u32::MAX {
            Self::aligned(warp, exec)?;
            return stop(Kind::Divergence, exec.trailing_zeros(), "a product needs a whole warp");
        }
        let a = bytes_of(&words(warp, &mma.a)?, 16);
        let b = bytes_of(&words(warp, &mma.b)?, 8);
        let c = words(warp, &mma.c)?;
        let row_bytes = (mma.k * mma.left.bytes()) as usize;
        let mut out = [[0u64; 32]; 4];
        if self.shape.stirred {
            let [a, b] = [a, b].map(|rows| -> Vec<u32> {
                rows.iter().map(|row| stir(&row[..row_bytes])).collect()
            });
            sums(&mut out, &c, |row, column, old| {
                u64::from(stirred([a[row], b[column]], old as u32, mma.left))
            });
        } else if matches!(mma.left, Element::S8 | Element::U8) {
            sums(&mut out, &c, |row, column, old| {
                let (a, b) = (&a[row][..row_bytes], &b[column][..row_bytes]);
                let products = a.iter().zip(b).map(|(a, b)| {
                    byte(*a, mma.left == Element::S8) * byte(*b, mma.right == Element::S8)
                });
                u64::from(products.fold(old as i32, i32::wrapping_add) as u32)
            });
        } else {
            let rows = |element, rows: &[[u8; 32]]| -> Vec<Row> {
                rows.iter().map(|row| Row::of(element, &row[..row_bytes])).collect()
            };
            let (a, b) = (rows(mma.left, &a), rows(mma.right, &b));
            sums(&mut out, &c, |row, column, old| {
                let old = f32::from_bits(old as u32);
                u64::from(dot(FULL, mma.left, &a[row], &b[column], old).to_bits())
            });
        }
        self.statistics.products += 1;
        for (reg, lanes) in mma.d.iter().zip(&out) {
            warp.write(*reg, exec, lanes)?;
        }
        Ok(())
    }
}

fn words(warp: &Warp, regs: &[u32]) -> Result<Vec<Lanes>, Stop> {
    regs.iter().map(|reg| warp.word(*reg, u32::MAX).copied()).collect()
}

/// Rows (of A) or columns (of B) as bytes along the inner dimension. A register of A holds four bytes
/// of row `lane / 4`, of which every second register is 8 rows further down.
pub(super) fn bytes_of(regs: &[Lanes], rows: usize) -> Vec<[u8; 32]> {
    let halves = rows / 8;
    let mut out = vec![[0; 32]; rows];
    for (index, lanes) in regs.iter().enumerate() {
        for (lane, word) in lanes.iter().enumerate() {
            let row = lane / 4 + 8 * (index % halves);
            let at = 4 * (lane % 4) + 16 * (index / halves);
            out[row][at..at + 4].copy_from_slice(&(*word as u32).to_le_bytes());
        }
    }
    out
}

pub(super) fn byte(byte: u8, signed: bool) -> i32 {
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// Every element of the 16 by 8 result from its row, column and old value.
fn sums(out: &mut [Lanes; 4], c: &[Lanes], mut sum: impl FnMut(usize, usize, u64) -> u64) {
    for (index, lanes) in out.iter_mut().enumerate() {
        for (lane, word) in lanes.iter_mut().enumerate() {
            let row = lane / 4 + 8 * (index / 2);
            let column = 2 * (lane % 4) + index % 2;
            *word = sum(row, column, c[index][lane]);
        }
    }
}
