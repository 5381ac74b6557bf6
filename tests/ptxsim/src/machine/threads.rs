//! Instructions that pass values between the lanes of a warp.

use super::Machine;
use super::alu::each;
use crate::code::{Op, Reduce, Shuffle, Vote};
use crate::fault::{Kind, Stop, stop};
use crate::order::lanes;
use crate::warp::Warp;

impl Machine<'_> {
    pub(super) fn together(warp: &mut Warp, exec: u32, op: &Op) -> Result<(), Stop> {
        match *op {
            Op::Shuffle { how, d, p, a, b, c, mask } => {
                Self::members(warp, exec, mask)?;
                Self::shuffle(warp, exec, how, [d, p, a, b, c])
            }
            Op::Vote { how, d, p, a, mask } => {
                Self::members(warp, exec, mask)?;
                let votes = warp.pred(a, exec)? & exec;
                let verdict = match how {
                    Vote::All => votes == exec,
                    Vote::Any => votes != 0,
                    Vote::Uniform => votes == 0 || votes == exec,
                    Vote::Ballot => return warp.write(d, exec, &[u64::from(votes); 32]),
                };
                warp.write_pred(p, exec, if verdict { u32::MAX } else { 0 });
                Ok(())
            }
            Op::Match { all, d, p, a, mask } => {
                Self::members(warp, exec, mask)?;
                let a = *warp.word(a, exec)?;
                let equal = |lane: usize| {
                    let same = lanes(exec).filter(|other| a[*other as usize] == a[lane]);
                    same.fold(0u64, |mask, lane| mask | 1 << lane)
                };
                let first = equal(exec.trailing_zeros() as usize);
                let one = first == u64::from(exec);
                let out = each(exec, |lane| match (all, one) {
                    (true, false) => 0,
                    _ => equal(lane),
                });
                warp.write_pred(p, exec, if one { u32::MAX } else { 0 });
                warp.write(d, exec, &out)
            }
            Op::Reduce { how, signed, d, a, mask } => {
                Self::members(warp, exec, mask)?;
                let a = warp.word(a, exec)?;
                let all = lanes(exec).map(|lane| a[lane as usize] as u32);
                let joined = all.reduce(|x, y| match (how, signed) {
                    (Reduce::Add, _) => x.wrapping_add(y),
                    (Reduce::Min, true) => (x as i32).min(y as i32) as u32,
                    (Reduce::Max, true) => (x as i32).max(y as i32) as u32,
                    (Reduce::Min, false) => x.min(y),
                    (Reduce::Max, false) => x.max(y),
                    (Reduce::And, _) => x & y,
                    (Reduce::Or, _) => x | y,
                    (Reduce::Xor, _) => x ^ y,
                });
                let out = [u64::from(joined.expect("a group has a lane")); 32];
                warp.write(d, exec, &out)
            }
            Op::Elect { d, p, mask } => {
                Self::members(warp, exec, mask)?;
                let leader = exec.trailing_zeros();
                warp.write_pred(p, exec, 1 << leader);
                warp.write(d, exec, &[u64::from(leader); 32])
            }
            Op::ActiveMask { d } => warp.write(d, exec, &[u64::from(exec); 32]),
            _ => unreachable!("the dispatch sends lanes' exchanges only"),
        }
    }

    fn shuffle(
        warp: &mut Warp,
        exec: u32,
        how: Shuffle,
        [d, p, a, b, c]: [u32; 5],
    ) -> Result<(), Stop> {
        let a = *warp.word(a, exec)?;
        let b = *warp.word(b, exec)?;
        let c = *warp.word(c, exec)?;
        let mut out = [0; 32];
        let mut inside = 0;
        for lane in lanes(exec) {
            let at = lane as usize;
            let by = (b[at] & 31) as i32;
            let segment = (c[at] >> 8 & 31) as i32;
            let clamp = (c[at] & 31) as i32;
            let me = lane as i32;
            let low = me & segment;
            let high = low | clamp & !segment;
            let (from, fits) = match how {
                Shuffle::Up => (me - by, me - by >= high),
                Shuffle::Down => (me + by, me + by <= high),
                Shuffle::Butterfly => (me ^ by, me ^ by <= high),
                Shuffle::Index => (low | by & !segment, (low | by & !segment) <= high),
            };
            let from = if fits { from as u32 } else { lane };
            if exec >> from & 1 == 0 {
                let text = format!("a shuffle reads from lane {from}, which does not take part");
                return stop(Kind::Divergence, lane, text);
            }
            out[at] = a[from as usize];
            inside |= u32::from(fits) << lane;
        }
        warp.write_pred(p, exec, inside);
        warp.write(d, exec, &out)
    }
}
