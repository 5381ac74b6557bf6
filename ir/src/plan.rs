//! What the runtime executes, and nothing more: no name to resolve, no choice left to make.
//!
//! A [`Plan`] holds [`Function`]s (`vision`, `prefill`, `decode`, and the tapped twins
//! `vision.taps`, `prefill.taps`). A function is a list of [`Step`]s over [`Buffer`]s, cut into
//! [`Launch`]es. Sizes and arena offsets are [`Affine`] in the bound of a size class, so one list of
//! steps serves every class; nothing that changes from call to call is part of a step: token
//! ids, positions, pages and counts stand in the control block.

mod order;
mod show;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::id::{BufferId, IdVec, KernelId, StepId, WeightId};
use crate::scheme::CacheScheme;

pub use show::Listing;
pub use verify::PlanError;

/// Positions in one page of the key/value cache.
pub const PAGE_POSITIONS: u32 = 64;

/// Alignment in bytes of every buffer, weight and workspace.
pub const ALIGNMENT: u64 = 256;

/// `per_row · bound + fixed`, where `bound` is the size class of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Affine {
    pub per_row: u64,
    pub fixed: u64,
}

impl Affine {
    /// The value for one class; `None` when it does not fit `u64`.
    #[must_use]
    pub fn at(self, bound: u32) -> Option<u64> {
        self.per_row.checked_mul(u64::from(bound))?.checked_add(self.fixed)
    }
}

impl fmt::Display for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.per_row, self.fixed) {
            (0, fixed) => write!(f, "{fixed}"),
            (per_row, 0) => write!(f, "{per_row}*r"),
            (per_row, fixed) => write!(f, "{per_row}*r+{fixed}"),
        }
    }
}

/// What a call counts. The control block starts with these counts, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// Rows of (slot, position) in this call.
    Tokens,
    /// Image tiles in this call.
    Images,
    /// Rows whose logits are wanted.
    Outputs,
}

/// Where a buffer's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In the scratch arena of the call.
    Arena { offset: Affine },
    /// A packed weight or a table of the artifact.
    Weight { weight: WeightId },
    /// The pool of keys and values of one layer; see `CacheSpec` for its layout.
    Cache { layer: u32 },
    /// An array of the control block.
    Control { field: ControlField },
    /// Given by the caller or kept for it, outside the arena.
    Port { port: Port },
    /// Written by tapped functions only: an f32 copy for the person who asked.
    Tap { name: String },
    /// Which of `of` experts each row of a layer goes through, i32; stays until the next call, for
    /// those who count.
    Choice { layer: u32, of: u32 },
    /// Counters through which blocks of a CUDA kernel meet, i32: zeros when a kernel starts, and when
    /// it has ended. All steps have the same.
    Counters,
}

/// Arrays that follow the counts in the control block, each [`ALIGNMENT`]-aligned, i32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlField {
    /// `[tokens]` token ids.
    Ids,
    /// `[tokens][2]`: slot, position.
    Rows,
    /// `[tokens]`: row of the features, or -1 for text.
    ImageRows,
    /// `[outputs]`: which token rows the logits are wanted of.
    OutputRows,
    /// `[outputs][8]`: how tokens are drawn, where the device does; words of [`crate::draw::Draw`].
    Draws,
    /// `[slots][pages]`: page of the pool that holds positions `64·i ..` of the slot.
    PageTable,
}

/// Buffers that outlive a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Port {
    /// `[n, c, s, s]` bf16, input of `vision`.
    Pixels,
    /// `[n, p/4, d]` bf16, output of `vision`, read by `prefill`.
    Features,
    /// `[outputs, v]` bf16, output of `prefill` and `decode`.
    Logits,
    /// `[outputs, 2]` i32, where the device chooses: the token that each row of logits gives, and the
    /// first place of what is no logit.
    Chosen,
    /// `[outputs, v / 32]` i32, where the device draws tokens: a bit for each token of the history.
    Seen,
}

/// A run of bytes that steps read and write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// The value's name in the `kernels` stage.
    pub name: String,
    pub place: Place,
    pub dtype: DType,
    /// Bytes of the buffer at a class's bound.
    pub bytes: Affine,
    /// Sizes after the counted one, for people and taps.
    pub row_dims: Vec<u64>,
    /// What the leading size counts; `None` when every size is fixed.
    pub count: Option<Count>,
}

/// How many work items a step has: `columns` for each started run of `rows_per_block` rows, where
/// there are `count · per` rows. Item `i` is block `i / columns`, column `i % columns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    pub count: Count,
    pub per: u32,
    pub rows_per_block: u32,
    pub columns: u32,
    /// Items of one block that should stay in one call where its rows are many: what is done for
    /// the rows alone is done once a call.
    pub run: u32,
}

impl Grid {
    /// Rows for `count` counted ones.
    #[must_use]
    pub fn rows(&self, count: u32) -> u64 {
        u64::from(count) * u64::from(self.per)
    }

    /// Fewest items that are worth a call, for `count` counted rows: the fewer rows a block has, the
    /// less is done for them alone.
    #[must_use]
    pub fn least_items(&self, count: u32) -> u64 {
        const MANY_ROWS: u64 = 32;
        let rows = self.rows(count).min(u64::from(self.rows_per_block)).min(MANY_ROWS);
        (u64::from(self.run) * rows / MANY_ROWS).max(1)
    }

    /// Items for `count` counted rows.
    #[must_use]
    pub fn items(&self, count: u32) -> u64 {
        self.rows(count).div_ceil(u64::from(self.rows_per_block)) * u64::from(self.columns)
    }
}

/// What the products of a step are multiplied in: which limit of a machine they are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// bf16 or wider, sums in f32.
    #[default]
    Floats,
    /// 8-bit integers, sums in i32.
    Bytes,
}

impl Arithmetic {
    fn is_floats(&self) -> bool {
        *self == Self::Floats
    }
}

/// Least bytes and operations a step cannot do without. A row is a row of the step's [`Grid`]:
/// there are `count · per` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Weights, tables: read once whatever the rows.
    pub weight_bytes: u64,
    /// Part of `weight_bytes` that one row needs, where rows choose (experts); 0 where every row
    /// needs all of them.
    pub row_weight_bytes: u64,
    /// Activations read and written for one row.
    pub row_bytes: u64,
    /// Multiplications and additions for one row, counted one each.
    pub row_operations: u64,
    /// The same, for one row and one cached position it looks at (attention).
    pub position_operations: u64,
    /// Read for one cached position, however many rows look at it.
    pub position_bytes: u64,
    /// What `row_operations` are done in; those of positions are always floats.
    #[serde(default, skip_serializing_if = "Arithmetic::is_floats")]
    pub arithmetic: Arithmetic,
}

impl Cost {
    /// Bytes for `rows` rows that look at `positions` different cached positions.
    #[must_use]
    pub fn bytes(&self, rows: u64, positions: u64) -> u64 {
        let weights = match self.row_weight_bytes {
            _ if rows == 0 => 0,
            0 => self.weight_bytes,
            each => each.saturating_mul(rows).min(self.weight_bytes),
        };
        weights
            .saturating_add(self.row_bytes.saturating_mul(rows))
            .saturating_add(self.position_bytes.saturating_mul(positions))
    }

    /// Multiplications and additions for `rows` rows that look at `looks` cached positions in all:
    /// those in floats, those in 8-bit integers.
    #[must_use]
    pub fn operations_by_kind(&self, rows: u64, looks: u64) -> [u64; 2] {
        let rows = self.row_operations.saturating_mul(rows);
        let positions = self.position_operations.saturating_mul(looks);
        match self.arithmetic {
            Arithmetic::Floats => [rows.saturating_add(positions), 0],
            Arithmetic::Bytes => [positions, rows],
        }
    }
}

/// One kernel over one set of buffers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What this computes, for people and profiles: `layers.0.mlp`.
    pub label: String,
    pub kernel: KernelId,
    pub arguments: Vec<BufferId>,
    pub grid: Grid,
    /// Steps of the same launch whose dependence counters must be full before this one starts.
    /// Steps of earlier launches are always finished.
    pub waits: Vec<StepId>,
    pub cost: Cost,
}

/// A run of steps handed to the device at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Which of the cooperating processes runs it; 0 while there is one.
    pub rank: u32,
    /// First step and one past the last.
    pub steps: [StepId; 2],
}

/// One entry point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    /// What the size class bounds.
    pub count: Count,
    /// Bounds of the size classes, ascending; a call takes the first that holds it.
    pub classes: Vec<u32>,
    /// Largest number of logits rows of one call.
    pub max_outputs: u32,
    pub arena_bytes: Affine,
    /// Private scratch of each thread. Its first word is 0 when the thread first calls a step's kernel.
    pub workspace_bytes: u64,
    pub buffers: IdVec<BufferId, Buffer>,
    pub steps: IdVec<StepId, Step>,
    pub launches: Vec<Launch>,
}

/// A kernel of the code section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    pub symbol: String,
    /// Template family: `linear`, `attention`, …
    pub family: String,
    /// Byte in the code section at which the function starts.
    pub offset: u64,
    /// Number of pointers it takes.
    pub arguments: u32,
    /// Positions of the pointers it writes through, ascending; it only reads the others. What it
    /// writes never overlaps another argument of the same step.
    pub writes: Vec<u32>,
    /// How it is launched on a CUDA target; absent of machine code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<Cuda>,
}

/// How a kernel of a CUDA target is launched: one thread block for each item of the step's grid at
/// the bound of its class, one-dimensional; a block past the counts of the call leaves at once. Where
/// there are `most_blocks`, no more than that, and a block takes several items.
///
/// Parameters: the step's pointers in their order, the control block, then the tensor maps. Code for
/// `sm_90` waits for the kernel before it in the stream itself: every launch may be a programmatic
/// one, but the first of a call starts when all earlier calls have ended. What those wrote may be read
/// before a kernel waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuda {
    /// Its `.entry` in the PTX text.
    pub entry: String,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Blocks of a cluster; absent for none.
    #[serde(default = "one_block", skip_serializing_if = "is_one_block")]
    pub cluster: u32,
    /// Most blocks of a launch; absent where every item has its own.
    #[serde(default, skip_serializing_if = "is_every_item")]
    pub most_blocks: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensor_maps: Vec<TensorMap>,
}

fn one_block() -> u32 {
    1
}

fn is_one_block(cluster: &u32) -> bool {
    *cluster == 1
}

fn is_every_item(most_blocks: &u32) -> bool {
    *most_blocks == 0
}

/// A matrix in device memory as `cp.async.bulk.tensor` reads or writes it, two-dimensional: the
/// runtime encodes it once for each step and size class, where the buffer's address is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMap {
    /// Which pointer of the step holds the matrix.
    pub argument: u32,
    /// Bytes of an element: 2 for bf16, 1 for int8.
    pub element_bytes: u32,
    /// Elements of a row.
    pub columns: u64,
    pub rows: MapRows,
    /// Bytes from one row to the next, a multiple of 16.
    pub row_bytes: u64,
    /// Columns and rows of the box that one copy moves.
    pub block: [u32; 2],
    /// Bytes of the swizzle pattern: 0 (none), 32, 64 or 128.
    pub swizzle: u32,
}

impl TensorMap {
    /// Rows of the matrix for `count` counted ones, in a buffer of `bytes`.
    #[must_use]
    pub fn rows_of(&self, count: u32, bytes: u64) -> u64 {
        match self.rows {
            MapRows::Fixed(rows) => rows,
            MapRows::Counted { per, .. } => u64::from(count) * u64::from(per),
            MapRows::Pages { .. } => bytes / self.row_bytes,
        }
    }
}

/// Rows of a [`TensorMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapRows {
    Fixed(u64),
    /// `per` for each counted one, at the bound of the class.
    Counted {
        count: Count,
        per: u32,
    },
    /// `per` for each page of the cache.
    Pages {
        per: u32,
    },
}

/// A packed weight or a table in the weights section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Checkpoint paths it was made of (empty for a table).
    pub paths: Vec<String>,
    /// Which part of the whole this rank holds, of how many.
    pub shard: [u32; 2],
    /// Layout in words: `bf16 panels of 32, interleaved by 16`.
    pub layout: String,
    /// Byte in the weights section.
    pub offset: u64,
    pub bytes: u64,
}

/// The key/value cache the functions were planned for. The pool is allocated at load.
///
/// A layer's pool is `[page][kv head]` blocks of `block_bytes`, laid out as `scheme` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSpec {
    pub layers: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub scheme: CacheScheme,
    /// Keys and values of one page and kv head.
    pub block_bytes: u64,
    /// Longest sequence; also rows of the RoPE table.
    pub max_positions: u32,
}

/// Everything a device needs to know about an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub functions: Vec<Function>,
    pub kernels: IdVec<KernelId, Kernel>,
    pub weights: IdVec<WeightId, Weight>,
    pub cache: CacheSpec,
}

impl Plan {
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests;
