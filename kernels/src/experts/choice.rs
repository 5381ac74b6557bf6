//! The choice of experts by a warp of a GPU: logits in registers, the best one after the other.

use super::Route;
use crate::emit::gpu::WARP;
use crate::emit::{Builder, F32, I32};
use crate::kernel::{EmitError, Kernel};

/// Most experts: the number of one shares a word with a logit, or with the number of a pair.
const MOST_EXPERTS: u32 = i16::MAX as u32;

/// The key of minus infinity, without an expert.
const LEAST: i32 = 0x807f_0000_u32 as i32;

/// The half of a key that a logit has.
const LOGIT: i32 = 0xffff_0000_u32 as i32;

/// Refuses, in the name of `kernel`, what [`choose`] cannot do.
pub(super) fn check(problem: &Route, kernel: &dyn Kernel) -> Result<(), EmitError> {
    problem.check(kernel)?;
    if problem.top_k > WARP {
        let cause = "a token chooses more experts than a warp has threads";
        return Err(EmitError::no_fit(kernel, cause));
    }
    if problem.experts > MOST_EXPERTS {
        return Err(EmitError::no_fit(kernel, "there are more experts than a key can number"));
    }
    Ok(())
}

/// Expert and weight of choice `lane`, where there is one. Each thread has some of the logits, which are
/// bf16 values, and says of each whose it is; those of experts that there are not are passed over.
///
/// A logit and its expert are one word that is the greater the better, the lower expert first of equal
/// ones, so that the best of a warp is found by one instruction. What is no number is as minus infinity.
pub(super) fn choose<'c>(
    k: &mut Builder<'c>,
    problem: &Route,
    logits: &[(F32<'c>, I32<'c>)],
) -> (I32<'c>, F32<'c>) {
    let taken = k.i32(i32::MIN);
    let experts = k.i32(problem.experts as i32);
    let keys = logits.iter().map(|(logit, expert)| {
        let key = key(k, *logit, *expert);
        let exists = k.less(*expert, experts);
        k.select(exists, key, taken)
    });
    let mut keys: Vec<_> = keys.collect();

    let lane = k.lane_id();
    let lane = k.i32_of(lane);
    let mut chosen = k.i32(LEAST);
    let mut first = None;
    for choice in 0..problem.top_k {
        let best = keys.iter().fold(taken, |best, key| k.max(*key, best));
        let best = k.greatest_of_warp(best);
        first = first.or(Some(best));
        for key in &mut keys {
            let same = k.equal(*key, best);
            *key = k.select(same, taken, *key);
        }
        let choice = k.i32(choice as i32);
        let mine = k.equal(lane, choice);
        chosen = k.select(mine, best, chosen);
    }

    let best = value(k, first.expect("a token chooses an expert"));
    let mine = value(k, chosen);
    let share = raised(k, mine, best);
    let divisor = if problem.renormalize {
        k.sum_of_warp(share)
    } else {
        let (none, worst) = (k.f32(0.0), k.f32(f32::NEG_INFINITY));
        let sum = logits.iter().fold(none, |sum, (logit, expert)| {
            let exists = k.less(*expert, experts);
            let logit = k.select(exists, *logit, worst);
            let share = raised(k, logit, best);
            k.add(sum, share)
        });
        k.sum_of_warp(sum)
    };
    let low = k.i32(!LOGIT);
    let expert = k.and(chosen, low);
    (k.xor(expert, low), k.div(share, divisor))
}

/// The bits of a bf16 value so that they are in its order, above what remains of the expert's number.
fn key<'c>(k: &mut Builder<'c>, logit: F32<'c>, expert: I32<'c>) -> I32<'c> {
    let worst = k.f32(f32::NEG_INFINITY);
    let logit = k.max(logit, worst);
    // Both zeros are one.
    let zero = k.f32(0.0);
    let logit = k.add(logit, zero);
    let bits = k.bits(logit);
    let ordered = in_order(k, bits);
    let high = k.i32(LOGIT);
    let ordered = k.and(ordered, high);
    let low = k.i32(!LOGIT);
    let rest = k.xor(expert, low);
    k.or(ordered, rest)
}

/// The logit of a key.
fn value<'c>(k: &mut Builder<'c>, key: I32<'c>) -> F32<'c> {
    let high = k.i32(LOGIT);
    let ordered = k.and(key, high);
    let bits = in_order(k, ordered);
    let bits = k.and(bits, high);
    k.of_bits(bits)
}

/// Bits of a float as a number that is in its order, and back.
fn in_order<'c>(k: &mut Builder<'c>, bits: I32<'c>) -> I32<'c> {
    let sign = k.shift_right_signed(bits, 31);
    let flipped = k.shift_right(sign, 1);
    k.xor(bits, flipped)
}

/// `e^(value - best)`.
fn raised<'c>(k: &mut Builder<'c>, value: F32<'c>, best: F32<'c>) -> F32<'c> {
    let below = k.sub(value, best);
    k.exp(below)
}
