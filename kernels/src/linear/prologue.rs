//! What is done to rows before they are multiplied, on their way into the thread's workspace.

use crate::emit::{Bf16, Block, Builder, F32, Index, Ptr};

use super::product::{OpenRow, Product, Workspace};

/// What stands between the activation in memory and the product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prologue {
    /// Nothing: the rows are multiplied as they are.
    Direct,
    /// `rms_norm(x, norm)`, rounded twice as the op `sail.rms_norm` is.
    RmsNorm { eps: f64 },
    /// Four neighbouring patches of a `grid` by `grid` image tile side by side, as
    /// `sail.pixel_shuffle` puts them, then `layer_norm`, rounded once.
    ShuffleLayerNorm { eps: f64, grid: u32 },
}

impl Prologue {
    /// For a kernel's symbol: `.rms_norm_1e-6`, nothing for `Direct`.
    #[must_use]
    pub fn suffix(self) -> String {
        match self {
            Self::Direct => String::new(),
            Self::RmsNorm { eps } => format!(".rms_norm_{eps:e}"),
            Self::ShuffleLayerNorm { eps, grid } => format!(".shuffle{grid}_layer_norm_{eps:e}"),
        }
    }

    /// Bytes of its own parameters for rows of `k` values.
    #[must_use]
    pub fn parameter_bytes(self, k: u32) -> u64 {
        let vectors = match self {
            Self::Direct => 0,
            Self::RmsNorm { .. } => 1,
            Self::ShuffleLayerNorm { .. } => 2,
        };
        vectors * 2 * u64::from(k)
    }

    /// Fill `into` with the rows of `block`; `x` is the activation, `parameters` what the prologue
    /// has of its own, in the order of the kernel's arguments.
    pub fn fill<'c>(
        self,
        k: &mut Builder<'c>,
        product: &Product,
        block: &Block<'c>,
        (x, parameters): (Ptr<'c>, &[Ptr<'c>]),
        into: Workspace<'c>,
    ) {
        let (zero, rows) = (k.index(0), product.rows_to_pack(k, into, block));
        k.for_each(zero, rows, 1, |k, at| {
            let row = k.add(block.first_row, at);
            product.pack_row(k, into, at, |k, packed| match self {
                Self::Direct => {
                    let x = row_of(k, x, row, product.k);
                    direct(k, product, x, packed);
                }
                Self::RmsNorm { eps } => {
                    let x = row_of(k, x, row, product.k);
                    rms_norm(k, product, (x, parameters[0]), eps, packed);
                }
                Self::ShuffleLayerNorm { eps, grid } => {
                    let quarters = shuffled(k, x, row, product.k / 4, grid);
                    layer_norm(k, product, (quarters, parameters), eps, packed);
                }
            });
        });
    }
}

/// Row `row` of `[rows, width]` bf16 values at `x`.
pub(crate) fn row_of<'c>(k: &mut Builder<'c>, x: Ptr<'c>, row: Index<'c>, width: u32) -> Ptr<'c> {
    let first = k.mul_constant(row, width.into());
    k.at::<Bf16>(x, first)
}

/// Copy one row.
pub(crate) fn direct<'c>(k: &mut Builder<'c>, product: &Product, x: Ptr<'c>, packed: OpenRow<'c>) {
    k.for_each_piece(product.k.into(), |k, piece| {
        let values = k.read::<Bf16>(x, piece);
        product.put(k, packed, piece, values);
    });
}

/// Normalise one row by its root mean square, rounded after the scale and after the weight.
fn rms_norm<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    (x, weight): (Ptr<'c>, Ptr<'c>),
    eps: f64,
    packed: OpenRow<'c>,
) {
    let width = product.k;
    let none = k.f32s(0.0, k.lanes());
    let squares = k.fold_pieces(width.into(), none, |k, piece, sum| {
        let x = k.read_widened(x, piece);
        k.fma(x, x, sum)
    });
    let scale = rms_scale(k, squares, width, eps);
    k.for_each_piece(width.into(), |k, piece| {
        let (x, weight) = (k.read_widened(x, piece), k.read_widened(weight, piece));
        let normal = k.mul(x, scale);
        let normal = k.rounded(normal);
        let scaled = k.mul(normal, weight);
        let scaled = k.round(scaled);
        product.put(k, packed, piece, scaled);
    });
}

/// `1 / sqrt(mean + eps)` of lane sums of squares over `width` values.
pub(crate) fn rms_scale<'c>(
    k: &mut Builder<'c>,
    squares: F32<'c>,
    width: u32,
    eps: f64,
) -> F32<'c> {
    let sum = k.sum_lanes(squares);
    let width = k.f32(width as f32);
    let mean = k.div(sum, width);
    let eps = k.f32(eps as f32);
    let mean = k.add(mean, eps);
    k.rsqrt(mean)
}

/// The four source rows of one row after the pixel shuffle, in their order.
fn shuffled<'c>(
    k: &mut Builder<'c>,
    x: Ptr<'c>,
    row: Index<'c>,
    width: u32,
    grid: u32,
) -> [Ptr<'c>; 4] {
    let half = u64::from(grid / 2);
    let tile = k.div_constant(row, half * half);
    let within = k.rem_constant(row, half * half);
    let (down, across) = (k.div_constant(within, half), k.rem_constant(within, half));
    let first = k.mul_constant(tile, u64::from(grid) * u64::from(grid));
    let down = k.mul_constant(down, 2 * u64::from(grid));
    let across = k.mul_constant(across, 2);
    let first = k.add(first, down);
    let first = k.add(first, across);
    [0, 1, u64::from(grid), u64::from(grid) + 1].map(|beyond| {
        let row = k.add_constant(first, beyond);
        row_of(k, x, row, width)
    })
}

/// Layer normalisation of four quarters as one row, rounded once.
fn layer_norm<'c>(
    k: &mut Builder<'c>,
    product: &Product,
    (quarters, parameters): ([Ptr<'c>; 4], &[Ptr<'c>]),
    eps: f64,
    packed: OpenRow<'c>,
) {
    let width = product.k / 4;
    let lanes = k.lanes();
    let all = k.f32(4.0 * width as f32);
    let none = k.f32s(0.0, lanes);
    let mut sums = none;
    for quarter in quarters {
        sums = k.fold_pieces(width.into(), sums, |k, piece, sum| {
            let x = k.read_widened(quarter, piece);
            k.add(sum, x)
        });
    }
    let sum = k.sum_lanes(sums);
    let mean = k.div(sum, all);
    let mut squares = none;
    for quarter in quarters {
        squares = k.fold_pieces(width.into(), squares, |k, piece, sum| {
            let x = k.read_widened(quarter, piece);
            let away = k.sub(x, mean);
            let away = match piece.count {
                None => away,
                Some(count) => {
                    // Lanes beyond the part would count the mean itself.
                    let count = k.index(count);
                    let inside = k.first(count, lanes);
                    k.select(inside, away, none)
                }
            };
            k.fma(away, away, sum)
        });
    }
    let scale = rms_scale(k, squares, 4 * width, eps);
    for (at, quarter) in quarters.into_iter().enumerate() {
        let first = k.index(u64::from(width) * at as u64);
        let [weight, bias] = [0, 1].map(|which| k.at::<Bf16>(parameters[which], first));
        let packed = product.column(k, packed, first);
        k.for_each_piece(width.into(), |k, piece| {
            let x = k.read_widened(quarter, piece);
            let (weight, bias) = (k.read_widened(weight, piece), k.read_widened(bias, piece));
            let away = k.sub(x, mean);
            let normal = k.mul(away, scale);
            let value = k.fma(normal, weight, bias);
            let value = k.round(value);
            product.put(k, packed, piece, value);
        });
    }
}
