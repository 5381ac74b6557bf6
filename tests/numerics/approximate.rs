//! How far a GPU's outputs may be from the simulator's where a kernel asks for functions that hardware
//! approximates. `tests/ptxsim` computes those in f64 and rounds once, a GPU has two units in the last place
//! of f32 at most (the manual of PTX: `ex2.approx.ftz.f32` 2 ulp, so a relative 2^-22; `rcp.approx` 1 ulp).
//! Everything else is held to the bit, so all there is to say is what becomes of those errors.

use sail_gpucheck::Approximate;

/// `silu` is `ex2`, an addition, `rcp` and two products: a relative error of 2^-21, 2^-12 of a step of bf16.
/// The only rounding to bf16 comes behind it and may fall to the other side.
const ROUNDED_ONCE: Approximate = Approximate { steps: 1, floor: 0.0 };

/// Weights of a softmax are rounded to bf16 before they meet the values. One in 2^13 or so lies that near a
/// tie that it rounds to the other side: a step of it, 2^-7 at most, of a weight that is at most half of all,
/// since the greatest is 2^0 and exact. That moves an output by 2^-8 of a value of the cache, and the root mean
/// square of outputs is that of values over the square root of the positions they are means of, two at least:
/// for an ordinary value two steps of bf16 there. The third is the rounding of the output itself. Where values
/// cancel each other, an output is small and so are its own steps, any number of which may lie between: they
/// are counted as large as at the root mean square. A simulated GPU whose `ex2` is off by 2^-22 everywhere, up
/// or down, differs by one step so counted, and by 155 of small values' own.
const SOFTMAX: Approximate = Approximate { steps: 3, floor: 1.0 };

/// What the kernel of `family` with this `text` is held to; `None` where it is the simulator's to the bit.
///
/// # Panics
///
/// When a family asks for such functions of which it is not known what they do to its outputs. All that do
/// write bf16 alone; integers and what is counted are never approximate.
pub fn approximate(family: &str, text: &str) -> Option<Approximate> {
    if !text.contains(".approx") {
        return None;
    }
    let plain = ["_fp8", "_int8_weight", "_int8", "_int4"];
    let plain = plain.iter().find_map(|scheme| family.strip_suffix(scheme)).unwrap_or(family);
    match plain {
        "attention" | "tile_attention" => Some(SOFTMAX),
        "gate_up_silu" | "grouped_gate_up_silu" => Some(ROUNDED_ONCE),
        _ => panic!(
            "`{family}` asks for an approximate function: say here what that does to its outputs"
        ),
    }
}
