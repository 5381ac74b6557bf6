//! `KERNELS`: one row per template, with the meaning it is held to and how closely.

use sail_ir::scheme::Scheme;

/// How far a kernel may be from its twin: `|got - want| ≤ relative · |want| + absolute · rms(want)`,
/// for every value of an output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    pub relative: f64,
    /// In units of the root mean square of the whole output, for sums that nearly cancel.
    pub absolute: f64,
    pub reason: &'static str,
}

/// A kernel template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Template {
    /// What `Kernel::family` says.
    pub name: &'static str,
    /// Its meaning: functions of [`crate::reference`], at `Rounding::Bf16`.
    pub twin: &'static str,
    pub tolerance: Tolerance,
    /// Instruction sets it has code for.
    pub targets: &'static [&'static str],
}

/// One bf16 ulp of a value just above a power of two.
pub const ULP: f64 = 1.0 / 128.0;

const X86_64: &[&str] = &["x86-64"];

const NVPTX: &[&str] = &["nvptx"];

const BOTH: &[&str] = &["x86-64", "nvptx"];

const ROUNDED_ONCE: Tolerance = Tolerance {
    relative: ULP,
    absolute: 1e-5,
    reason: "one rounding to bf16 may fall to the other side of an f32 sum",
};

const NORMED_INPUT: Tolerance = Tolerance {
    relative: ULP,
    absolute: 2e-3,
    reason: "inputs of the product are rounded to bf16 and some fall to the other side",
};

const QUANTIZED_INPUT: Tolerance = Tolerance {
    relative: ULP,
    absolute: 2e-2,
    reason: "where a norm's greatest value rounds to the other side, all values of the row meet \
             other integers: half a step of 127 each, some 0.8 % of their root mean square",
};

const FLOAT8_INPUT: Tolerance = Tolerance {
    relative: ULP,
    absolute: 4e-2,
    reason: "where a norm's greatest value rounds to the other side, values of the row meet other \
             floats, a sixteenth of each apart at most; and a matrix unit cuts products of 8-bit \
             floats off 13 bits below the greatest",
};

const QUANTIZED_KEYS: Tolerance = Tolerance {
    relative: ULP,
    absolute: 2e-2,
    reason: "where a key's value rounds to the other side, its integer may be another: a step of 127, \
             which is some 2 % of a head's root mean square when its greatest value is 2.5 times that",
};

const ROUNDED_PATCHES: Tolerance = Tolerance {
    relative: ULP,
    absolute: 2.0 * ULP,
    reason: "the last of three roundings may fall to the other side by a step of the sum, one before it \
             (the norm's scale, its weight) by a step of a summand twice the root mean square",
};

const MOVED: Tolerance =
    Tolerance { relative: 0.0, absolute: 0.0, reason: "values are moved or counted, not computed" };

const ROUNDED_TWICE: Tolerance = Tolerance {
    relative: 2.0 * ULP,
    absolute: 0.0,
    reason: "rounded after the norm and after its weight, each time perhaps to the other side",
};

const SOFTMAX: Tolerance = Tolerance {
    relative: ULP,
    absolute: 1.2e-2,
    reason: "kernel and twin round each weight to bf16 against another largest score, which moves \
             a sum by 2^-9 of its terms' root mean square or so; 6 times that",
};

const ROUNDED_LOGITS: Tolerance = Tolerance {
    relative: 4.0 * ULP,
    absolute: 0.0,
    reason: "a logit may round the other way, which moves its weight by as much as the logit",
};

const NORMED_ROUTER: Tolerance = Tolerance {
    relative: 4.0 * ULP,
    absolute: 2e-3,
    reason: "normed values are rounded twice and some fall to the other side, and so may a logit, which \
             moves its weight by as much",
};

/// Every template, by name.
pub const KERNELS: &[Template] = &[
    Template { name: "add", twin: "add", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template {
        name: "add_positions",
        twin: "add_positions",
        tolerance: ROUNDED_ONCE,
        targets: BOTH,
    },
    Template { name: "attention", twin: "attention", tolerance: SOFTMAX, targets: BOTH },
    Template {
        name: "attention_int8",
        twin: "quantized_rows, attention_int8, attention_int8_by_integers",
        tolerance: SOFTMAX,
        targets: BOTH,
    },
    Template { name: "cache_write", twin: "cache_write", tolerance: MOVED, targets: BOTH },
    Template {
        name: "cache_write_int8",
        twin: "quantized_rows, cache_write",
        tolerance: MOVED,
        targets: BOTH,
    },
    Template {
        name: "choose_token",
        twin: "choose_token, draw_token",
        tolerance: MOVED,
        targets: NVPTX,
    },
    Template { name: "columns", twin: "columns", tolerance: MOVED, targets: BOTH },
    Template { name: "combine", twin: "combine", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template { name: "combine_add", twin: "combine_add", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template { name: "embed", twin: "embed", tolerance: MOVED, targets: BOTH },
    Template { name: "embed_packed", twin: "embed", tolerance: MOVED, targets: BOTH },
    Template {
        name: "gate_up_silu",
        twin: "gate_up_silu, norm_gate_up_silu",
        tolerance: NORMED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "gate_up_silu_fp8",
        twin: "float8_rows, gate_up_silu, norm_gate_up_silu",
        tolerance: FLOAT8_INPUT,
        targets: NVPTX,
    },
    Template {
        name: "gate_up_silu_int4",
        twin: "quantized_rows, gate_up_silu, norm_gate_up_silu",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "gate_up_silu_int8",
        twin: "quantized_rows, gate_up_silu, norm_gate_up_silu",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "gate_up_silu_int8_weight",
        twin: "gate_up_silu, norm_gate_up_silu",
        tolerance: NORMED_INPUT,
        targets: BOTH,
    },
    Template { name: "gelu", twin: "gelu", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template { name: "group_by_expert", twin: "group_by_expert", tolerance: MOVED, targets: BOTH },
    Template {
        name: "grouped_gate_up_silu",
        twin: "grouped_gate_up_silu",
        tolerance: ROUNDED_ONCE,
        targets: BOTH,
    },
    Template {
        name: "grouped_gate_up_silu_fp8",
        twin: "float8_rows, grouped_gate_up_silu",
        tolerance: FLOAT8_INPUT,
        targets: NVPTX,
    },
    Template {
        name: "grouped_gate_up_silu_int4",
        twin: "quantized_rows, grouped_gate_up_silu",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "grouped_gate_up_silu_int8",
        twin: "quantized_rows, grouped_gate_up_silu",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "grouped_gate_up_silu_int8_weight",
        twin: "grouped_gate_up_silu",
        tolerance: ROUNDED_ONCE,
        targets: BOTH,
    },
    Template {
        name: "grouped_linear",
        twin: "grouped_linear",
        tolerance: ROUNDED_ONCE,
        targets: BOTH,
    },
    Template {
        name: "grouped_linear_fp8",
        twin: "float8_rows, grouped_linear",
        tolerance: FLOAT8_INPUT,
        targets: NVPTX,
    },
    Template {
        name: "grouped_linear_int4",
        twin: "quantized_rows, grouped_linear",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "grouped_linear_int8",
        twin: "quantized_rows, grouped_linear",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "grouped_linear_int8_weight",
        twin: "grouped_linear",
        tolerance: ROUNDED_ONCE,
        targets: BOTH,
    },
    Template { name: "layer_norm", twin: "layer_norm", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template {
        name: "linear",
        twin: "linear, linear_bias, linear_bias_gelu, linear_add, norm_linear, shuffle_norm_linear_gelu",
        tolerance: NORMED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "linear_fp8",
        twin: "float8_rows, linear, linear_bias, linear_bias_gelu, linear_add, norm_linear",
        tolerance: FLOAT8_INPUT,
        targets: NVPTX,
    },
    Template {
        name: "linear_int4",
        twin: "quantized_rows, linear, linear_bias, linear_bias_gelu, linear_add, norm_linear, shuffle_norm_linear_gelu",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "linear_int8",
        twin: "quantized_rows, linear, linear_bias, linear_bias_gelu, linear_add, norm_linear, shuffle_norm_linear_gelu",
        tolerance: QUANTIZED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "linear_int8_weight",
        twin: "linear, linear_bias, linear_bias_gelu, linear_add, norm_linear, shuffle_norm_linear_gelu",
        tolerance: NORMED_INPUT,
        targets: BOTH,
    },
    Template {
        name: "linear_route",
        twin: "linear_route",
        tolerance: ROUNDED_LOGITS,
        targets: X86_64,
    },
    Template { name: "mul", twin: "mul", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template {
        name: "norm_linear_route_group",
        twin: "norm_linear_route_group",
        tolerance: NORMED_ROUTER,
        targets: NVPTX,
    },
    Template {
        name: "patch_embed",
        twin: "patch_embed",
        tolerance: ROUNDED_PATCHES,
        targets: X86_64,
    },
    Template {
        name: "patch_embed_int4",
        twin: "quantized_rows, patch_embed",
        tolerance: ROUNDED_PATCHES,
        targets: X86_64,
    },
    Template {
        name: "patch_embed_int8",
        twin: "quantized_rows, patch_embed",
        tolerance: ROUNDED_PATCHES,
        targets: X86_64,
    },
    Template {
        name: "patch_embed_int8_weight",
        twin: "patch_embed",
        tolerance: ROUNDED_PATCHES,
        targets: X86_64,
    },
    Template { name: "patches", twin: "patches", tolerance: MOVED, targets: BOTH },
    Template { name: "pixel_shuffle", twin: "pixel_shuffle", tolerance: MOVED, targets: BOTH },
    Template {
        name: "qk_norm_rope_write",
        twin: "qk_norm_rope_write",
        tolerance: ROUNDED_ONCE,
        targets: BOTH,
    },
    Template {
        name: "qk_norm_rope_write_int8",
        twin: "qk_norm_rope_write, quantized_rows",
        tolerance: QUANTIZED_KEYS,
        targets: BOTH,
    },
    Template { name: "quantize_rows", twin: "quantized_rows", tolerance: MOVED, targets: NVPTX },
    Template {
        name: "rms_norm",
        twin: "rms_norm, head_norm",
        tolerance: ROUNDED_TWICE,
        targets: BOTH,
    },
    Template { name: "rope", twin: "rope", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template { name: "route", twin: "route", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template { name: "select_rows", twin: "select_rows", tolerance: MOVED, targets: BOTH },
    Template { name: "silu", twin: "silu", tolerance: ROUNDED_ONCE, targets: BOTH },
    Template { name: "splice", twin: "splice", tolerance: MOVED, targets: BOTH },
    Template { name: "tap", twin: "tap", tolerance: MOVED, targets: BOTH },
    Template { name: "tile_attention", twin: "tile_attention", tolerance: SOFTMAX, targets: BOTH },
];

/// The name of a product's row: that of scheme `bf16`, or of one of those that quantize.
#[must_use]
pub(crate) const fn by_scheme(scheme: Scheme, names: [&'static str; 5]) -> &'static str {
    match scheme {
        Scheme::Bf16 => names[0],
        Scheme::Int8 => names[1],
        Scheme::Int8Weight => names[2],
        Scheme::Int4 => names[3],
        Scheme::Fp8 => names[4],
    }
}

/// The row of a family.
#[must_use]
pub fn template(name: &str) -> Option<&'static Template> {
    KERNELS.iter().find(|template| template.name == name)
}

impl Tolerance {
    /// The first value beyond the tolerance: its index, `got`, `want`.
    #[must_use]
    pub fn first_beyond(&self, got: &[f32], want: &[f64]) -> Option<(usize, f32, f64)> {
        assert_eq!(got.len(), want.len(), "one value for each wanted");
        let squares: f64 = want.iter().map(|value| value * value).sum();
        let rms = (squares / want.len().max(1) as f64).sqrt();
        got.iter().zip(want).enumerate().find_map(|(at, (got, want))| {
            let room = self.relative * want.abs() + self.absolute * rms;
            let near = (f64::from(*got) - want).abs() <= room;
            (!near).then_some((at, *got, *want))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_of_their_names_and_give_reasons() {
        assert!(KERNELS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(KERNELS.iter().all(|row| !row.tolerance.reason.is_empty()));
    }

    #[test]
    fn a_value_that_is_no_number_is_beyond_every_tolerance() {
        assert_eq!(ROUNDED_ONCE.first_beyond(&[1.0], &[1.0]), None);
        assert!(ROUNDED_ONCE.first_beyond(&[f32::NAN], &[1.0]).is_some());
        assert!(ROUNDED_ONCE.first_beyond(&[1.02], &[1.0]).is_some());
    }
}
