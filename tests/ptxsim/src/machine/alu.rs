//! Instructions that stay in registers.

use super::Machine;
use crate::code::{NONE, Op};
use crate::fault::Stop;
use crate::order::lanes;
use crate::scalar::Function;
use crate::warp::{Lanes, Warp};

impl Machine<'_> {
    pub(super) fn compute(warp: &mut Warp, exec: u32, op: &Op) -> Result<(), Stop> {
        match op {
            Op::Scalar { function, d, s } => Self::scalar(warp, exec, *function, *d, s),
            Op::Convert { conversion, d, mask, a, b } => {
                let (a, b) = (warp.word(*a, exec)?, warp.word(*b, exec)?);
                let out = each(exec, |lane| conversion.apply(a[lane], b[lane]) & mask);
                warp.write(*d, exec, &out)
            }
            Op::Insert { d, s, bits } => {
                let [a, b, c, e] = s.map(|slot| warp.word(slot, exec));
                let (a, b, c, e) = (a?, b?, c?, e?);
                let out = each(exec, |lane| {
                    crate::scalar::insert(a[lane], b[lane], c[lane], e[lane], *bits)
                });
                warp.write(*d, exec, &out)
            }
            Op::Logic3 { d, s, table } => {
                let [a, b, c] = s.map(|slot| warp.word(slot, exec));
                let (a, b, c) = (a?, b?, c?);
                let out = each(exec, |lane| {
                    crate::scalar::three_way(a[lane], b[lane], c[lane], u64::from(*table))
                });
                warp.write(*d, exec, &out)
            }
            Op::Compare(compare) => {
                let (a, b) = (warp.word(compare.a, exec)?, warp.word(compare.b, exec)?);
                let mut holds = 0;
                for lane in lanes(exec) {
                    let at = lane as usize;
                    holds |= u32::from((compare.relation)(a[at], b[at])) << lane;
                }
                let (mut to, mut inverse) = (holds, !holds);
                if let Some((join, with)) = compare.join {
                    let with = warp.pred(with, exec)?;
                    (to, inverse) = (join(to, with), join(inverse, with));
                }
                warp.write_pred(compare.to, exec, to);
                warp.write_pred(compare.to_inverse, exec, inverse);
                Ok(())
            }
            Op::Select { d, a, b, p } => {
                let p = warp.pred(*p, exec)?;
                let (a, b) = (warp.word(*a, exec & p)?, warp.word(*b, exec & !p)?);
                let out = each(exec, |lane| if p >> lane & 1 == 1 { a[lane] } else { b[lane] });
                warp.write(*d, exec, &out)
            }
            Op::SelectSign { d, a, b, c, float } => {
                let (a, b, c) = (warp.word(*a, exec)?, warp.word(*b, exec)?, warp.word(*c, exec)?);
                let out = each(exec, |lane| {
                    let first = if *float {
                        f32::from_bits(c[lane] as u32) >= 0.0
                    } else {
                        c[lane] as i32 >= 0
                    };
                    if first { a[lane] } else { b[lane] }
                });
                warp.write(*d, exec, &out)
            }
            Op::Preds { function, d, a, b } => {
                let value = function(warp.pred(*a, exec)?, warp.pred(*b, exec)?);
                warp.write_pred(*d, exec, value);
                Ok(())
            }
            Op::Pack { d, parts, width } => {
                let mut out = [0; 32];
                for (at, part) in parts.iter().enumerate() {
                    let part = warp.word(*part, exec)?;
                    let mask = u64::MAX >> (64 - width);
                    for (out, part) in out.iter_mut().zip(part) {
                        *out |= (part & mask) << (at as u32 * width);
                    }
                }
                warp.write(*d, exec, &out)
            }
            Op::Unpack { parts, a, width } => {
                let a = *warp.word(*a, exec)?;
                for (at, part) in parts.iter().enumerate().filter(|(_, part)| **part != NONE) {
                    let mask = u64::MAX >> (64 - width);
                    let out = a.map(|a| a >> (at as u32 * width) & mask);
                    warp.write(*part, exec, &out)?;
                }
                Ok(())
            }
            _ => unreachable!("the dispatch sends lanes' instructions only"),
        }
    }

    fn scalar(
        warp: &mut Warp,
        exec: u32,
        function: Function,
        d: u32,
        s: &[u32; 3],
    ) -> Result<(), Stop> {
        let a = warp.word(s[0], exec)?;
        let b = warp.word(s[1], exec)?;
        let c = warp.word(s[2], exec)?;
        let out = if exec == u32::MAX {
            std::array::from_fn(|lane| function(a[lane], b[lane], c[lane]))
        } else {
            each(exec, |lane| function(a[lane], b[lane], c[lane]))
        };
        warp.write(d, exec, &out)
    }
}

/// A word for each lane of `exec`.
pub(super) fn each(exec: u32, mut value: impl FnMut(usize) -> u64) -> Lanes {
    let mut out = [0; 32];
    for lane in lanes(exec) {
        out[lane as usize] = value(lane as usize);
    }
    out
}
