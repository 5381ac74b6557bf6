//! Shared memory as warps use it: bank conflicts, `cp.async`, `ldmatrix` and `stmatrix`.

use super::Machine;
use super::memory::Target;
use crate::code::{Access, Copy, Matrices, NONE, Space};
use crate::fault::{Kind, Stop, stop};
use crate::order::{MANY, lanes};
use crate::shared::{Verdict, Who, Written};
use crate::warp::{Flight, Lanes, Warp};

pub(super) fn at_lane(lane: u32, verdict: Verdict) -> Result<(), Stop> {
    verdict.map_err(|(kind, sentence)| Stop { kind, lane, sentence })
}

impl Machine<'_> {
    /// Count how many times more than once shared memory must be asked.
    pub(super) fn note_banks(&mut self, exec: u32, base: &Lanes, access: &Access, bytes: u64) {
        if access.space != Space::Shared {
            return;
        }
        self.statistics.shared_accesses += 1;
        // Wide accesses are served for 16 or 8 lanes at a time.
        let together = (128 / bytes.max(4)).min(32) as u32;
        for first in (0..32).step_by(together as usize) {
            let group = exec & (u32::MAX >> (32 - together)) << first;
            let words = lanes(group).map(|lane| {
                base[lane as usize].wrapping_add(access.address.offset as u64) as u32 / 4
            });
            self.note_conflicts(words, (bytes / 4).max(1) as u32);
        }
    }

    /// Rows of words asked for at once: the fullest bank's distinct words, less one.
    fn note_conflicts(&mut self, starts: impl Iterator<Item = u32>, words: u32) {
        let mut asked: Vec<u32> = starts.flat_map(|at| at..at + words).collect();
        asked.sort_unstable();
        asked.dedup();
        let mut banks = [0u32; 32];
        for word in asked {
            banks[word as usize % 32] += 1;
        }
        let worst = banks.into_iter().max().unwrap_or(0);
        self.statistics.bank_conflicts += u64::from(worst.saturating_sub(1));
    }

    pub(super) fn copy(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        copy: &Copy,
    ) -> Result<(), Stop> {
        let size = u64::from(copy.size);
        for lane in lanes(exec) {
            let to = self.lane_address(warp, exec, lane, copy.to)?;
            let from = self.lane_address(warp, exec, lane, copy.from)?;
            let wanted = match copy.source {
                NONE => size,
                source => warp.word(source, exec)?[lane as usize] & 0xffff_ffff,
            };
            if wanted > size {
                let text = format!("`cp.async` reads {wanted} bytes into room for {size}");
                return stop(Kind::Operand, lane, text);
            }
            let Target::Shared(owner, place) = self.target(rank, lane, Space::Shared, to)? else {
                unreachable!("a shared address has a shared target");
            };
            if !from.is_multiple_of(size) {
                let text = format!("global address {from:#x} is no multiple of {size}");
                return stop(Kind::Misaligned, lane, text);
            }
            let mut data = [0u8; 16];
            if wanted > 0 {
                let run = (from, wanted, 1);
                let (index, offset) = self.global_read_run(rank, warp, lane, run)?;
                let memory = self.shape.device.at(index);
                for (at, byte) in data[..wanted as usize].iter_mut().enumerate() {
                    *byte = memory.get(offset + at as u64, 1) as u8;
                }
            }
            let shared = &mut self.blocks[owner].shared;
            let who = Who::thread(&warp.clock, lane);
            let verdict = shared
                .holds(place, size, size)
                .and_then(|()| shared.note_write(place, size, Written::Flying, &who));
            at_lane(lane, verdict)?;
            shared.bytes[place as usize..(place + size) as usize]
                .copy_from_slice(&data[..size as usize]);
            warp.flights.push(Flight { group: warp.copy_group, lane, to: place, bytes: size });
        }
        Ok(())
    }

    pub(super) fn copy_commit(warp: &mut Warp, exec: u32) -> Result<(), Stop> {
        let group = warp.copy_group;
        let open = warp.flights.iter().filter(|flight| flight.group == group);
        if let Some(left) = open.clone().find(|flight| exec >> flight.lane & 1 == 0) {
            let text =
                "`cp.async.commit_group` by some threads of a warp while others have open copies";
            return stop(Kind::Divergence, left.lane, text);
        }
        warp.copy_group += 1;
        Ok(())
    }

    pub(super) fn copy_wait(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        pending: u32,
    ) -> Result<(), Stop> {
        let group = warp.copy_group;
        let landed = |flight: &Flight| {
            let done = pending == NONE || flight.group + pending < group;
            done && exec >> flight.lane & 1 == 1
        };
        let (done, rest) = std::mem::take(&mut warp.flights).into_iter().partition(landed);
        warp.flights = rest;
        let done: Vec<Flight> = done;
        for flight in done {
            let who = Who::thread(&warp.clock, flight.lane);
            self.blocks[rank].shared.land(flight.to, flight.bytes, &who);
        }
        Ok(())
    }

    pub(super) fn matrices(
        &mut self,
        rank: usize,
        warp: &mut Warp,
        exec: u32,
        matrices: &Matrices,
    ) -> Result<(), Stop> {
        Self::aligned(warp, exec)?;
        if exec != u32::MAX {
            return stop(Kind::Divergence, exec.trailing_zeros(), "matrices need a whole warp");
        }
        self.statistics.shared_accesses += 1;
        let mut words = [[0u64; 32]; 4];
        if matrices.store {
            for (word, reg) in words.iter_mut().zip(&matrices.regs) {
                *word = *warp.word(*reg, exec)?;
            }
        }
        for (index, word) in words[..matrices.regs.len()].iter_mut().enumerate() {
            let mut rows = [(0usize, 0u64); 8];
            for (row, place) in rows.iter_mut().enumerate() {
                let lane = (index * 8 + row) as u32;
                let address = self.lane_address(warp, exec, lane, matrices.address)?;
                let Target::Shared(owner, at) = self.target(rank, lane, matrices.space, address)?
                else {
                    return stop(
                        Kind::OutOfBounds,
                        lane,
                        "a row of a matrix is not in shared memory",
                    );
                };
                let shared = &mut self.blocks[owner].shared;
                let who = Who { lane: MANY, ..Who::thread(&warp.clock, lane) };
                let verdict = shared.holds(at, 16, 16).and_then(|()| {
                    if matrices.store {
                        shared.note_write(at, 16, Written::Plain, &who)
                    } else {
                        shared.note_read(at, 16, &who)
                    }
                });
                at_lane(lane, verdict)?;
                *place = (owner, at);
            }
            self.note_conflicts(rows.iter().map(|(_, at)| *at as u32 / 4), 4);
            for (lane, word) in word.iter_mut().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                for half in 0..2 {
                    let (row, column) =
                        if matrices.transposed { (2 * t + half, g) } else { (g, 2 * t + half) };
                    let (owner, at) = rows[row];
                    let at = at + 2 * column as u64;
                    let shared = &mut self.blocks[owner].shared;
                    if matrices.store {
                        shared.put(at, 2, *word >> (16 * half) & 0xffff);
                    } else {
                        *word |= shared.get(at, 2) << (16 * half);
                    }
                }
            }
        }
        if !matrices.store {
            for (word, reg) in words.iter().zip(&matrices.regs) {
                warp.write(*reg, exec, word)?;
            }
        }
        Ok(())
    }

    /// `movmatrix`: an 8 by 8 matrix turned over, in registers.
    pub(super) fn move_matrix(warp: &mut Warp, exec: u32, d: u32, a: u32) -> Result<(), Stop> {
        Self::aligned(warp, exec)?;
        let a = *warp.word(a, exec)?;
        let element =
            |row: usize, column: usize| a[row * 4 + column / 2] >> (16 * (column % 2)) & 0xffff;
        let out = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            element(2 * t, g) | element(2 * t + 1, g) << 16
        });
        warp.write(d, exec, &out)
    }
}
