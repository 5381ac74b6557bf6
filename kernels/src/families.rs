//! The table of kernel templates: their names, and how far each may be from its twin.

use crate::{attention, elementwise, experts, norm, rows, vision};

/// A template's row; it stands beside the template.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// What `Kernel::family` says.
    pub name: &'static str,
    /// The twin, in `reference`.
    pub twin: &'static str,
    pub tolerance: Tolerance,
}

/// How far a result may be from what the twin gives for the same bf16 inputs with
/// `Rounding::Bf16`: `of_value · |twin| + of_scale · rms`, `rms` being that of all the twin's
/// results. Integers and moved values have no tolerance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    pub of_value: f64,
    pub of_scale: f64,
    pub reason: &'static str,
}

/// Distance between a bf16 value and the next, at most, in parts of the value.
pub const BF16_STEP: f64 = 1.0 / 128.0;

impl Tolerance {
    /// For templates that move values or count.
    pub const EXACT: Self =
        Self { of_value: 0.0, of_scale: 0.0, reason: "values are moved or counted, not computed" };

    /// For templates that compute in f32 from values near at hand and round once.
    pub const ONE_STEP: Self = Self {
        of_value: BF16_STEP,
        of_scale: 1e-6,
        reason: "one rounding, of an f32 that may lie on the other side of the border",
    };
}

/// Every template, one row each.
pub const KERNELS: &[Family] = &[
    attention::cache_write::FAMILY,
    attention::paged::FAMILY,
    attention::qk_norm_rope_write::FAMILY,
    attention::rope::FAMILY,
    attention::tile::FAMILY,
    elementwise::activation::GELU,
    elementwise::activation::SILU,
    elementwise::add::FAMILY,
    elementwise::add_positions::FAMILY,
    elementwise::mul::FAMILY,
    experts::combine::COMBINE,
    experts::combine::COMBINE_ADD,
    experts::group_by_expert::FAMILY,
    experts::route::LINEAR_ROUTE,
    experts::route::ROUTE,
    norm::layer_norm::FAMILY,
    norm::rms_norm::FAMILY,
    rows::columns::FAMILY,
    rows::embed::FAMILY,
    rows::select_rows::FAMILY,
    rows::splice::FAMILY,
    rows::tap::FAMILY,
    vision::patches::FAMILY,
    vision::pixel_shuffle::FAMILY,
];

/// The row of `name`.
///
/// # Panics
///
/// When there is none: a template was written without its row.
#[must_use]
pub fn family(name: &str) -> &'static Family {
    let row = KERNELS.iter().find(|family| family.name == name);
    row.unwrap_or_else(|| panic!("`{name}` has no row in `KERNELS`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_their_names_within_a_folder_and_once() {
        let mut names: Vec<_> = KERNELS.iter().map(|family| family.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
