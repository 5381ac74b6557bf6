//! `patch_embed`: pixels of a patch times the patch weights, bias, RMSNorm, positions.
//!
//! A work item is a block of patches with all their outputs, since the norm needs whole rows: the
//! sums of a block stay in the thread's workspace as f32 until they are normalised.

use sail_ir::plan::{Cost, Count, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Bf16, Builder, F32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::linear::product::{OpenRow, Product};
use crate::linear::rms_scale;
use crate::table::by_scheme;

/// Patches of one work item, by rule: a few steps of the product, and sums that fit the second cache.
const ROWS_PER_BLOCK: u32 = 48;

/// `y = rms_norm(patches(pixels) · weightᵀ + bias, norm) + positions`: pixels `[images, channels,
/// size, size]`, `y` `[images · p, n]` with `p = (size / patch)²`, positions `[p, n]`. Values of a
/// patch are in the order (channel, dy, dx). The sum stays unrounded; rounded after the scale,
/// after the norm's weight and after the position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchEmbedProblem {
    pub channels: u32,
    pub size: u32,
    pub patch: u32,
    pub n: u32,
    pub eps: f64,
    pub scheme: Scheme,
}

/// [`PatchEmbedProblem`] with its block shape on one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchEmbed {
    problem: PatchEmbedProblem,
    product: Product,
    block: u32,
}

impl PatchEmbed {
    #[must_use]
    pub fn new(problem: PatchEmbedProblem, target: &Target) -> Self {
        let k = problem.channels * problem.patch * problem.patch;
        let product = Product::new(k, problem.scheme, target);
        Self { problem, product, block: ROWS_PER_BLOCK }
    }

    fn panels(&self) -> u64 {
        u64::from(self.problem.n).div_ceil(self.product.panel_width())
    }

    /// Patches along one side.
    fn side(&self) -> u32 {
        self.problem.size / self.problem.patch
    }

    /// f32 values from one row of sums to the next.
    fn sums_stride(&self) -> u64 {
        self.panels() * self.product.panel_width()
    }

    /// Copy the pixels of patch number `row` of all images into a packed row.
    fn gather<'c>(
        &self,
        k: &mut Builder<'c>,
        pixels: Ptr<'c>,
        row: Index<'c>,
        packed: OpenRow<'c>,
    ) {
        let PatchEmbedProblem { channels, size, patch, .. } = self.problem;
        let (side, size, patch) = (u64::from(self.side()), u64::from(size), u64::from(patch));
        let image = k.div_constant(row, side * side);
        let within = k.rem_constant(row, side * side);
        let (down, across) = (k.div_constant(within, side), k.rem_constant(within, side));
        let image = k.mul_constant(image, u64::from(channels) * size * size);
        let down = k.mul_constant(down, patch * size);
        let across = k.mul_constant(across, patch);
        let start = k.add(image, down);
        let start = k.add(start, across);
        let corner = k.at::<Bf16>(pixels, start);
        let (zero, channels) = (k.index(0), k.index(channels.into()));
        let lines = k.index(patch);
        k.for_each(zero, channels, 1, |k, channel| {
            k.for_each(zero, lines, 1, |k, line| {
                let above = k.mul_constant(channel, size * size);
                let from = k.mul_constant(line, size);
                let from = k.add(above, from);
                let from = k.at::<Bf16>(corner, from);
                let to = k.mul_constant(channel, patch);
                let to = k.add(to, line);
                let to = k.mul_constant(to, patch);
                let to = self.product.column(k, packed, to);
                k.for_each_piece(patch, |k, piece| {
                    let values = k.read::<Bf16>(from, piece);
                    self.product.put(k, to, piece, values);
                });
            });
        });
    }

    /// Add the bias to the sums of one row and one panel and keep them.
    fn keep<'c>(
        &self,
        k: &mut Builder<'c>,
        (row, panel): (Index<'c>, Index<'c>),
        sums: [F32<'c>; 2],
        (kept, bias): (Ptr<'c>, Ptr<'c>),
    ) {
        let lanes = self.product.lanes;
        let first = k.mul_constant(panel, self.product.panel_width());
        let start = k.mul_constant(row, self.sums_stride());
        for (half, sum) in sums.into_iter().enumerate() {
            let column = k.add_constant(first, half as u64 * u64::from(lanes));
            let n = k.index(self.problem.n.into());
            let left = k.sub(n, column);
            let place = k.at::<Bf16>(bias, column);
            let bias = if u64::from(self.problem.n).is_multiple_of(self.product.panel_width()) {
                k.load_widened(place, lanes)
            } else {
                k.load_widened_partial(place, lanes, left)
            };
            let value = k.add(sum, bias);
            let at = k.add(start, column);
            let place = k.at::<F32>(kept, at);
            k.store(place, value);
        }
    }

    /// Normalise one row of sums, add its position and store it.
    fn finish<'c>(&self, k: &mut Builder<'c>, kept: Ptr<'c>, [norm, position, y]: [Ptr<'c>; 3]) {
        let n = u64::from(self.problem.n);
        let none = k.f32s(0.0, self.product.lanes);
        let squares = k.fold_pieces(n, none, |k, piece, sum| {
            let value = k.read::<F32>(kept, piece);
            k.fma(value, value, sum)
        });
        let scale = rms_scale(k, squares, self.problem.n, self.problem.eps);
        k.for_each_piece(n, |k, piece| {
            let value = k.read::<F32>(kept, piece);
            let value = k.mul(value, scale);
            let value = k.rounded(value);
            let norm = k.read_widened(norm, piece);
            let value = k.mul(value, norm);
            let value = k.rounded(value);
            let position = k.read_widened(position, piece);
            let value = k.add(value, position);
            k.write_rounded(y, piece, value);
        });
    }
}

impl Kernel for PatchEmbed {
    fn family(&self) -> &'static str {
        let int8 = ["patch_embed_int8", "patch_embed_int8_weight"];
        // The last is never asked for: targets with `fp8` have no such kernel.
        let names = ["patch_embed", int8[0], int8[1], "patch_embed_int4", "patch_embed_fp8"];
        by_scheme(self.problem.scheme, names)
    }

    fn symbol(&self) -> String {
        let PatchEmbedProblem { channels, size, patch, n, eps, scheme } = self.problem;
        format!("patch_embed.{scheme}.c{channels}.s{size}.p{patch}.n{n}.rms_norm_{eps:e}")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["pixels", "weight", "bias", "norm", "positions", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[5]
    }

    fn grid(&self) -> Grid {
        let per = self.side() * self.side();
        Rows { count: Count::Images, per }.grid(self.block, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        let rows = u64::from(self.block);
        self.product.workspace_bytes(rows) + rows * self.sums_stride() * 4
    }

    fn cost(&self) -> Cost {
        let n = u64::from(self.problem.n);
        let patches = u64::from(self.side()).pow(2);
        Cost {
            weight_bytes: self.panels() * self.product.panel_bytes() + 2 * n * (2 + patches),
            row_bytes: 2 * (u64::from(self.product.k) + n),
            row_operations: 2 * n * u64::from(self.product.k),
            arithmetic: self.product.arithmetic(),
            ..Cost::default()
        }
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if !self.problem.size.is_multiple_of(self.problem.patch) {
            return Err(EmitError::no_fit(self, "an image tile must be whole patches"));
        }
        let [pixels, weight, bias, norm, positions, y] = k.arguments::<6>();
        let n = u64::from(self.problem.n);
        let workspace = self.product.carve(k, self.block.into());
        let kept = k.carve(u64::from(self.block) * self.sums_stride() * 4);
        k.for_each_block(&self.grid(), |k, block| {
            k.note("1 pack: the pixels of each patch as one row");
            let (zero, panels) = (k.index(0), k.index(self.panels()));
            k.for_each(zero, block.rows, 1, |k, at| {
                let row = k.add(block.first_row, at);
                self.product.pack_row(k, workspace, at, |k, packed| {
                    self.gather(k, pixels, row, packed);
                });
            });
            k.note("2 multiply: all panels, sums and bias kept as f32");
            k.for_each(zero, panels, 1, |k, panel| {
                let offset = k.mul_constant(panel, self.product.panel_bytes());
                let at = k.at_bytes(weight, offset);
                self.product.panel(k, (workspace, block.rows), at, |k, row, sums| {
                    self.keep(k, (row, panel), sums, (kept, bias));
                });
            });
            k.note("3 normalise: whole rows, then their positions");
            k.for_each(zero, block.rows, 1, |k, at| {
                let row = k.add(block.first_row, at);
                let start = k.mul_constant(at, self.sums_stride());
                let kept = k.at::<F32>(kept, start);
                let side = u64::from(self.side());
                let patch = k.rem_constant(row, side * side);
                let [start, position] = [row, patch].map(|row| k.mul_constant(row, n));
                let (y, position) = (k.at::<Bf16>(y, start), k.at::<Bf16>(positions, position));
                self.finish(k, kept, [norm, position, y]);
            });
        });
        Ok(())
    }
}

impl Shaped for PatchEmbed {
    fn config(&self) -> Config {
        let Product { most_rows, foreseeing_rows: foresee, .. } = self.product;
        Config::new(&[("rows", most_rows), ("block", self.block), ("foresee", foresee)])
    }

    fn space(&self) -> Vec<Parameter> {
        let [rows, foresee] = self.product.space();
        let bytes = self.product.row_stride() + 4 * self.sums_stride();
        vec![rows, Parameter::block(self.block, bytes), foresee]
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        let (product, block) = (self.product.with(config), config.get("block"));
        Box::new(Self { product, block, ..*self })
    }

    fn operands(&self, count: u32) -> Vec<Operand> {
        let PatchEmbedProblem { channels, size, n, .. } = self.problem;
        let n = u64::from(n);
        let patches = u64::from(self.side()).pow(2);
        vec![
            Operand::Values(u64::from(count) * u64::from(channels) * u64::from(size).pow(2)),
            self.product.weight(self.panels()),
            Operand::Values(n),
            Operand::Values(n),
            Operand::Values(patches * n),
            Operand::Output(2 * u64::from(count) * patches * n),
        ]
    }
}
