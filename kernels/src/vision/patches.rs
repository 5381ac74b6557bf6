//! `patches`: pixels of image tiles as a row per patch.

use sail_ir::plan::{Cost, Count, Grid};

use crate::emit::{Bf16, Builder, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::{copy, row_at};

/// `pixels [n, channels, size, size]` to `y [n, (size/patch)², channels·patch²]`: a row per patch
/// in reading order, its values in the order (channel, dy, dx).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Patches {
    pub channels: u32,
    pub size: u32,
    pub patch: u32,
}

impl Patches {
    fn grid_side(&self) -> u32 {
        self.size / self.patch
    }

    fn width(&self) -> u32 {
        self.channels * self.patch * self.patch
    }
}

impl Kernel for Patches {
    fn family(&self) -> &'static str {
        "patches"
    }

    fn symbol(&self) -> String {
        format!("patches.c{}.s{}.p{}", self.channels, self.size, self.patch)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["pixels", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1]
    }

    /// Blocks are rows of patches.
    fn grid(&self) -> Grid {
        let side = self.grid_side();
        Rows { count: Count::Images, per: side * side }.grid(side, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::patches(self)))
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.width()), ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if self.patch == 0 || !self.size.is_multiple_of(self.patch) {
            return Err(EmitError::no_fit(self, "a tile is no whole number of patches"));
        }
        let [pixels, y] = k.arguments::<2>();
        k.for_each_row(&self.grid(), |k, row| {
            let to = row_at(k, y, row, self.width());
            let first = self.first_pixel(k, row);
            let from = k.at::<Bf16>(pixels, first);
            self.copy_patch(k, from, to);
        });
        Ok(())
    }
}

impl Patches {
    /// Index of the top left pixel of the first channel of patch `row`.
    pub(super) fn first_pixel<'c>(&self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let side = u64::from(self.grid_side());
        let size = u64::from(self.size);
        let (tile, place) = (k.div_constant(row, side * side), k.rem_constant(row, side * side));
        let (down, right) = (k.div_constant(place, side), k.rem_constant(place, side));
        let tile = k.mul_constant(tile, u64::from(self.channels) * size * size);
        let down = k.mul_constant(down, u64::from(self.patch) * size);
        let right = k.mul_constant(right, u64::from(self.patch));
        let start = k.add(tile, down);
        k.add(start, right)
    }

    fn copy_patch<'c>(&self, k: &mut Builder<'c>, from: Ptr<'c>, to: Ptr<'c>) {
        let (patch, size) = (u64::from(self.patch), u64::from(self.size));
        let (zero, channels) = (k.index(0), k.index(u64::from(self.channels)));
        let lines = k.index(patch);
        k.for_each(zero, channels, 1, |k, channel| {
            k.for_each(zero, lines, 1, |k, line| {
                let pixels = k.mul_constant(channel, size * size);
                let above = k.mul_constant(line, size);
                let pixels = k.add(pixels, above);
                let values = k.mul_constant(channel, patch * patch);
                let above = k.mul_constant(line, patch);
                let values = k.add(values, above);
                let (from, to) = (k.at::<Bf16>(from, pixels), k.at::<Bf16>(to, values));
                copy(k, from, to, self.patch);
            });
        });
    }
}
