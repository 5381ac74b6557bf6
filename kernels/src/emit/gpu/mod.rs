//! The words of the builder that only a GPU has. A kernel is written for one thread of a block.
//!
//! The block is the work item: [`Builder::item`] says which, [`Builder::for_this_block`] gives its
//! rows and column and leaves at once when the counts of the call do not reach it. Threads share the
//! work through their numbers ([`threads`]), shared memory ([`shared`]), and rows walked together
//! ([`pieces`]). [`matrix`] holds the matrix instructions of both targets; [`bulk`] and
//! [`warpgroup`] hold what only `sm_90` has.
//!
//! What LLVM has an intrinsic for is called as such; the rest is inline assembly ([`asm`]).

pub mod approximate;
pub mod asm;
pub mod bulk;
pub mod matrix;
pub mod memory;
pub mod pieces;
pub mod shared;
#[cfg(test)]
pub mod simulate;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod unpack;
pub mod warpgroup;
pub mod wide;

use inkwell::AddressSpace;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::Context;
use inkwell::module::Linkage;
use inkwell::types::{BasicMetadataTypeEnum, BasicTypeEnum};
use sail_ir::plan::Grid;
use sail_ir::target::Target;

use super::nvptx::entry_name;
use super::{Block, Builder, Frame, Index, Ptr};
use crate::kernel::ThreadBlock;

pub use asm::Effect;
pub use memory::Cache;
pub use pieces::{Deal, Team, piece_width};
pub use shared::Matrices;
pub use warpgroup::{Left, Swizzle, WARPGROUP};

/// Threads of a warp.
pub const WARP: u32 = 32;

/// Number of `ptx_kernel` among LLVM's calling conventions.
const PTX_KERNEL: u32 = 71;

/// Global memory: arguments and the control block.
const GLOBAL: u16 = 1;

/// Shared memory of a block.
const SHARED: u16 = 3;

/// Bytes of an encoded tensor map, and its alignment.
const TENSOR_MAP: (u32, u64) = (128, 64);

/// Alignment of the first byte of shared memory: what the widest swizzle repeats after.
const SHARED_ALIGNMENT: u32 = 1024;

/// What the code of a thread block knows of how it was launched.
pub(super) struct BlockFrame<'c> {
    shape: ThreadBlock,
    tensor_maps: Vec<Ptr<'c>>,
    /// Start of the dynamic shared memory.
    shared: Ptr<'c>,
}

impl<'c> Builder<'c> {
    /// A builder positioned at the start of the entry of `symbol`: parameters are the pointers of
    /// `arguments`, the control block, then the tensor maps.
    pub(crate) fn for_blocks(
        context: &'c Context,
        symbol: &str,
        arguments: &[&str],
        shape: ThreadBlock,
        target: &Target,
    ) -> Self {
        assert!(
            shape.threads.is_multiple_of(WARP) && (WARP..=1024).contains(&shape.threads),
            "`{symbol}` has {} threads",
            shape.threads
        );
        let entry = entry_name(symbol);
        let module = context.create_module(symbol);
        let global = context.ptr_type(AddressSpace::from(GLOBAL));
        let map = context.ptr_type(AddressSpace::default());
        let mut parameters: Vec<BasicMetadataTypeEnum<'c>> =
            vec![global.into(); arguments.len() + 1];
        parameters.extend(shape.tensor_maps.iter().map(|_| BasicMetadataTypeEnum::from(map)));
        let signature = context.void_type().fn_type(&parameters, false);
        let function = module.add_function(&entry, signature, None);
        function.set_call_conventions(PTX_KERNEL);
        let parameter = |at: usize, name: &str| {
            let value = function.get_nth_param(at as u32).expect("the signature above has it");
            value.set_name(name);
            Ptr(value)
        };
        let pointers = arguments.iter().enumerate().map(|(at, name)| parameter(at, name)).collect();
        let control = parameter(arguments.len(), "control");
        let maps = 0..shape.tensor_maps.len();
        let tensor_maps =
            maps.map(|at| parameter(arguments.len() + 1 + at, "tensor_map")).collect();
        let bytes = context.i8_type().array_type(0);
        let shared =
            module.add_global(bytes, Some(AddressSpace::from(SHARED)), &format!("{entry}_shared"));
        shared.set_linkage(Linkage::External);
        shared.set_alignment(SHARED_ALIGNMENT);
        let llvm = context.create_builder();
        llvm.position_at_end(context.append_basic_block(function, "entry"));
        let shared = Ptr(shared.as_pointer_value().into());
        let mut k = Self {
            context,
            control,
            frame: Frame::Blocks(BlockFrame { shape, tensor_maps, shared }),
            module,
            llvm,
            function,
            target: target.clone(),
            arguments: pointers,
            carved: 0,
        };
        k.decorate_entry();
        if !k.shape().waits_itself {
            k.let_successor_start();
            k.wait_for_predecessor();
        }
        k
    }

    /// Attributes of the entry: its threads, and no library in sight.
    fn decorate_entry(&self) {
        let shape = self.shape();
        let mut texts =
            vec![("nvvm.reqntid", shape.threads.to_string()), ("no-builtins", String::new())];
        if shape.blocks_per_processor > 0 {
            texts.push(("nvvm.minctasm", shape.blocks_per_processor.to_string()));
        }
        if shape.registers > 0 {
            texts.push(("nvvm.maxnreg", shape.registers.to_string()));
        }
        if shape.cluster > 1 {
            texts.push(("nvvm.cluster_dim", shape.cluster.to_string()));
        }
        for (name, value) in texts {
            let attribute = self.context.create_string_attribute(name, &value);
            self.function.add_attribute(AttributeLoc::Function, attribute);
        }
        for name in ["nounwind", "norecurse"] {
            let kind = Attribute::get_named_enum_kind_id(name);
            let attribute = self.context.create_enum_attribute(kind, 0);
            self.function.add_attribute(AttributeLoc::Function, attribute);
        }
        let (bytes, alignment) = TENSOR_MAP;
        let first = self.arguments.len() as u32 + 1;
        for at in first..first + shape.tensor_maps.len() as u32 {
            let map = self.context.i8_type().array_type(bytes);
            let kind = Attribute::get_named_enum_kind_id;
            for attribute in [
                self.context.create_type_attribute(kind("byval"), map.into()),
                self.context.create_enum_attribute(kind("align"), alignment),
                self.context.create_string_attribute("nvvm.grid_constant", ""),
            ] {
                self.function.add_attribute(AttributeLoc::Param(at), attribute);
            }
        }
    }

    /// Is this a kernel for a GPU?
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        matches!(self.frame, Frame::Blocks(_))
    }

    fn frame(&self) -> &BlockFrame<'c> {
        match &self.frame {
            Frame::Blocks(frame) => frame,
            Frame::Calls { .. } => panic!("x86-64 has no thread blocks"),
        }
    }

    /// How the kernel is launched.
    #[must_use]
    pub fn shape(&self) -> &ThreadBlock {
        &self.frame().shape
    }

    /// Tensor map `at` of the kernel's `tensor_maps`.
    #[must_use]
    pub fn tensor_map(&self, at: usize) -> Ptr<'c> {
        self.frame().tensor_maps[at]
    }

    /// The work item of this thread block.
    pub fn item(&mut self) -> Index<'c> {
        self.special_register("llvm.nvvm.read.ptx.sreg.ctaid.x")
    }

    /// Run `body` with the rows and the column of this thread block's item, if the counts of the
    /// call reach it. Whether they do is the same for all threads of a block: barriers may stand
    /// inside.
    pub fn for_this_block(&mut self, grid: &Grid, body: impl FnOnce(&mut Self, Block<'c>)) {
        let rows = self.rows(grid);
        let item = self.item();
        let (left, block) = self.block_of(grid, rows, item);
        let zero = self.index(0);
        let reached = self.less(zero, left);
        self.when(reached, |k| body(k, block));
    }

    /// The rows and the column of an item of a grid of `rows`, and the rows from its first one on.
    fn block_of(
        &mut self,
        grid: &Grid,
        rows: Index<'c>,
        item: Index<'c>,
    ) -> (Index<'c>, Block<'c>) {
        let columns = u64::from(grid.columns);
        let [index, first_column] = match columns {
            1 => [item, self.index(0)],
            _ => [self.div_constant(item, columns), self.rem_constant(item, columns)],
        };
        let first_row = self.mul_constant(index, u64::from(grid.rows_per_block));
        let left = self.sub(rows, first_row);
        let most = self.index(u64::from(grid.rows_per_block));
        let rows = self.min(left, most);
        let end_column = self.add_constant(first_column, 1);
        (left, Block { index, first_row, rows, first_column, end_column })
    }

    /// Run `body` for every item that is this thread block's: its own, and from there on every one as
    /// many further as there are blocks. `body` is given how many came before. Whether there is one is
    /// the same for all threads of a block.
    pub fn for_items_of_block(
        &mut self,
        grid: &Grid,
        body: impl FnOnce(&mut Self, Index<'c>, Block<'c>),
    ) {
        let rows = self.rows(grid);
        let [per_block, columns] = [grid.rows_per_block, grid.columns].map(u64::from);
        let started = self.add_constant(rows, per_block - 1);
        let started = self.div_constant(started, per_block);
        let items = self.mul_constant(started, columns);
        self.for_turns_of_block(items, |k, turn, item| {
            let (_, block) = k.block_of(grid, rows, item);
            body(k, turn, block);
        });
    }

    /// As [`Builder::for_items_of_block`], of `items` items that are counted when the kernel runs, the
    /// same for all threads. Gives how many of them are this block's.
    pub fn for_turns_of_block(
        &mut self,
        items: Index<'c>,
        body: impl FnOnce(&mut Self, Index<'c>, Index<'c>),
    ) -> Index<'c> {
        let item = self.item();
        let blocks = self.special_register("llvm.nvvm.read.ptx.sreg.nctaid.x");
        // The division rounds towards zero, and there may be more blocks than items.
        let turns = self.sub(items, item);
        let turns = self.add(turns, blocks);
        let turns = self.sub_constant(turns, 1);
        let turns = self.div(turns, blocks);
        let zero = self.index(0);
        self.for_each(zero, turns, 1, |k, turn| {
            let further = k.mul(turn, blocks);
            let item = k.add(item, further);
            body(k, turn, item);
        });
        turns
    }

    /// A special register as a count.
    fn special_register(&mut self, name: &str) -> Index<'c> {
        let value = self.intrinsic(name, &[], &[]).into_int_value();
        let word = self.context.i64_type();
        let wide = self.llvm.build_int_z_extend(value, word, "");
        Index(wide.expect("the builder is positioned").into())
    }

    pub(super) fn word_type(&self) -> BasicTypeEnum<'c> {
        self.context.i32_type().into()
    }

    /// The 32-bit address of a place in shared memory, as instructions take it.
    pub(super) fn shared_address(&mut self, place: Ptr<'c>) -> super::I32<'c> {
        let word = self.context.i32_type();
        let value = self.llvm.build_ptr_to_int(place.pointer(), word, "");
        super::I32(value.expect("the builder is positioned").into())
    }
}
