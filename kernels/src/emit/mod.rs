//! The structured builder over LLVM IR that every kernel is written with.
//!
//! A kernel's `emit` gets a [`Builder`] positioned in its function and describes the computation:
//! typed values ([`value`]), arithmetic ([`arith`]), loops and branches ([`control`]), memory
//! ([`memory`]), functions of real numbers ([`math`]). What differs between targets (registers,
//! matrix instructions, how the function is called) stays in `x86_64.rs`; a kernel reads
//! `lanes()` and never names an instruction set. A kernel for a GPU is written for one thread of a
//! block with the same words and those of [`gpu`].
//!
//! Nothing here reorders or contracts floating-point arithmetic: what a kernel says is what runs,
//! so a result depends neither on neighbours nor on LLVM's mood.

pub mod arith;
pub mod bytes;
pub mod control;
pub mod gpu;
pub mod machine;
pub mod math;
pub mod memory;
pub mod nvptx;
pub mod object;
pub mod pieces;
#[cfg(any(test, feature = "run"))]
pub mod run;
#[cfg(any(test, feature = "run"))]
pub mod sample;
#[cfg(test)]
mod tests;
pub mod value;
pub mod x86_64;

use inkwell::AddressSpace;
use inkwell::builder::Builder as LlvmBuilder;
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicType, BasicTypeEnum, FunctionType};
use inkwell::values::{BasicValueEnum, FunctionValue};
use sail_ir::plan::{Count, Grid};
use sail_ir::target::Target;

pub use pieces::Piece;
pub use value::{Bf16, Bool, Carried, Element, ElementKind, F32, I32, Index, Number, Ptr, Value};

/// A run of rows of one grid block and the columns of it that this call computes.
#[derive(Debug, Clone, Copy)]
pub struct Block<'c> {
    pub index: Index<'c>,
    pub first_row: Index<'c>,
    /// Rows of this block; none or less than none when the rows before it were all.
    pub rows: Index<'c>,
    pub first_column: Index<'c>,
    /// One past the last column.
    pub end_column: Index<'c>,
}

/// A kernel under construction. See the module for what it offers.
pub struct Builder<'c> {
    pub(crate) context: &'c Context,
    pub(crate) module: Module<'c>,
    pub(crate) llvm: LlvmBuilder<'c>,
    pub(crate) function: FunctionValue<'c>,
    target: Target,
    arguments: Vec<Ptr<'c>>,
    control: Ptr<'c>,
    frame: Frame<'c>,
    carved: u64,
}

/// How the code under construction is called.
enum Frame<'c> {
    /// For a range of work items, with scratch of the thread that calls (x86-64).
    Calls { begin: Index<'c>, end: Index<'c>, workspace: Ptr<'c> },
    /// By every thread of a block that has one work item (CUDA).
    Blocks(gpu::BlockFrame<'c>),
}

impl<'c> Builder<'c> {
    /// A builder positioned at the start of `symbol`, with the pointers of `arguments` loaded.
    pub(crate) fn for_calls(
        context: &'c Context,
        symbol: &str,
        arguments: &[&str],
        target: &Target,
    ) -> Self {
        let module = context.create_module(symbol);
        let pointer = context.ptr_type(AddressSpace::default());
        let word = context.i64_type();
        let signature: FunctionType<'c> = context.void_type().fn_type(
            &[pointer.into(), pointer.into(), word.into(), word.into(), pointer.into()],
            false,
        );
        let function = module.add_function(symbol, signature, None);
        let parameter = |at: u32, name: &str| {
            let value = function.get_nth_param(at).expect("the signature above has five");
            value.set_name(name);
            value
        };
        let table = Ptr(parameter(0, "arguments"));
        let llvm = context.create_builder();
        llvm.position_at_end(context.append_basic_block(function, "entry"));
        let mut k = Self {
            context,
            control: Ptr(parameter(1, "control")),
            frame: Frame::Calls {
                begin: Index(parameter(2, "begin")),
                end: Index(parameter(3, "end")),
                workspace: Ptr(parameter(4, "workspace")),
            },
            module,
            llvm,
            function,
            target: target.clone(),
            arguments: Vec::new(),
            carved: 0,
        };
        x86_64::decorate(&k);
        for (at, name) in arguments.iter().enumerate() {
            let place = k.at_bytes_constant(table, at as u64 * 8);
            let loaded = k.llvm.build_load(pointer, place.pointer(), name);
            k.arguments.push(Ptr(loaded.expect("the builder is positioned")));
        }
        k
    }

    /// Close the function; the module is complete.
    pub(crate) fn finish(self) -> Module<'c> {
        self.llvm.build_return(None).expect("the builder is positioned");
        self.module
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// f32 values in one vector register of the target.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.target.limits().lanes
    }

    /// The pointers of the kernel's arguments, in their order.
    ///
    /// Panics when `N` is not their number.
    #[must_use]
    pub fn arguments<const N: usize>(&self) -> [Ptr<'c>; N] {
        self.arguments
            .clone()
            .try_into()
            .unwrap_or_else(|all: Vec<_>| panic!("the kernel has {} arguments, not {N}", all.len()))
    }

    /// The pointer of argument `at`.
    #[must_use]
    pub fn argument(&self, at: usize) -> Ptr<'c> {
        self.arguments[at]
    }

    /// First work item of this call.
    #[must_use]
    pub fn begin(&self) -> Index<'c> {
        match &self.frame {
            Frame::Calls { begin, .. } => *begin,
            Frame::Blocks(_) => panic!("a thread block has one work item: `k.item()`"),
        }
    }

    /// One past the last work item of this call.
    #[must_use]
    pub fn end(&self) -> Index<'c> {
        match &self.frame {
            Frame::Calls { end, .. } => *end,
            Frame::Blocks(_) => panic!("a thread block has one work item: `k.item()`"),
        }
    }

    /// `bytes` of the thread's workspace, 64-byte aligned, contents undefined.
    ///
    /// What all calls take together must be within the kernel's `workspace_bytes`.
    pub fn carve(&mut self, bytes: u64) -> Ptr<'c> {
        let Frame::Calls { workspace, .. } = self.frame else {
            panic!("threads of a GPU have no workspace: `k.shared()`");
        };
        let place = self.at_bytes_constant(workspace, self.carved);
        self.carved += bytes.next_multiple_of(64);
        place
    }

    pub(crate) fn carved(&self) -> u64 {
        self.carved
    }

    /// What the call counts: tokens, images, outputs.
    pub fn count(&mut self, count: Count) -> Index<'c> {
        let at = match count {
            Count::Tokens => 0,
            Count::Images => 1,
            Count::Outputs => 2,
        };
        self.control_word(at)
    }

    /// i32 elements between the page lists of two slots in the page table.
    pub fn pages_per_slot(&mut self) -> Index<'c> {
        self.control_word(3)
    }

    fn control_word(&mut self, at: u64) -> Index<'c> {
        let place = self.at_bytes_constant(self.control, at * 4);
        let word = self.load::<I32>(place, 1);
        self.index_of(word)
    }

    /// Rows of the grid in this call.
    pub fn rows(&mut self, grid: &Grid) -> Index<'c> {
        let count = self.count(grid.count);
        self.mul_constant(count, u64::from(grid.per))
    }

    /// Run `body` for each block of rows that items `begin .. end` touch.
    ///
    /// A block comes once, with the columns of it that this call has to compute, so that work for
    /// the rows alone is done once per block. The rows are dealt evenly to the grid's blocks: items
    /// of a call are about equal, and none has more than `rows_per_block`.
    pub fn for_each_block(&mut self, grid: &Grid, body: impl FnOnce(&mut Self, Block<'c>)) {
        let rows = self.rows(grid);
        let columns = self.index(u64::from(grid.columns));
        let per_block = self.even_rows(rows, grid);
        let (begin, end) = (self.begin(), self.end());
        let first = self.div(begin, columns);
        let past = self.add_constant(end, u64::from(grid.columns) - 1);
        let past = self.div(past, columns);
        self.for_each(first, past, 1, |k, index| {
            let item = k.mul(index, columns);
            let zero = k.index(0);
            let skipped = k.sub(begin, item);
            let first_column = k.max(skipped, zero);
            let left = k.sub(end, item);
            let end_column = k.min(left, columns);
            let first_row = k.mul(index, per_block);
            let left = k.sub(rows, first_row);
            let rows = k.min(left, per_block);
            body(k, Block { index, first_row, rows, first_column, end_column });
        });
    }

    /// Rows of a block when `rows` are dealt evenly, in runs of four where the grid's blocks are.
    fn even_rows(&mut self, rows: Index<'c>, grid: &Grid) -> Index<'c> {
        let most = u64::from(grid.rows_per_block);
        let run = if most.is_multiple_of(4) { 4 } else { 1 };
        let blocks = self.add_constant(rows, most - 1);
        let blocks = self.div_constant(blocks, most);
        let one = self.index(1);
        let blocks = self.max(blocks, one);
        let even = self.add(rows, blocks);
        let even = self.sub(even, one);
        let even = self.div(even, blocks);
        let even = self.add_constant(even, run - 1);
        let even = self.div_constant(even, run);
        self.mul_constant(even, run)
    }

    /// Run `body` for each row that items `begin .. end` of a grid with one column hold.
    pub fn for_each_row(&mut self, grid: &Grid, body: impl FnOnce(&mut Self, Index<'c>)) {
        assert_eq!(grid.columns, 1, "items of this grid are not whole rows");
        let rows = self.rows(grid);
        let per_block = self.index(u64::from(grid.rows_per_block));
        let first = self.mul(self.begin(), per_block);
        let past = self.mul(self.end(), per_block);
        let past = self.min(past, rows);
        self.for_each(first, past, 1, body);
    }

    /// Name the phase that begins here; it shows as a block label in the printed IR.
    pub fn note(&mut self, phase: &str) {
        let block = self.context.append_basic_block(self.function, phase);
        self.llvm.build_unconditional_branch(block).expect("the builder is positioned");
        self.llvm.position_at_end(block);
    }

    pub(crate) fn vector_type(&self, kind: ElementKind, width: u32) -> BasicTypeEnum<'c> {
        let one: BasicTypeEnum<'c> = match kind {
            ElementKind::F32 => self.context.f32_type().into(),
            ElementKind::I32 => self.context.i32_type().into(),
            ElementKind::Bf16 => self.context.i16_type().into(),
        };
        widened(one, width)
    }

    /// Call an LLVM intrinsic that gives a value.
    pub(crate) fn intrinsic(
        &mut self,
        name: &str,
        types: &[BasicTypeEnum<'c>],
        values: &[BasicValueEnum<'c>],
    ) -> BasicValueEnum<'c> {
        let call = self.call_intrinsic(name, types, values);
        call.try_as_basic_value().basic().unwrap_or_else(|| panic!("`{name}` gives no value"))
    }

    pub(crate) fn call_intrinsic(
        &mut self,
        name: &str,
        types: &[BasicTypeEnum<'c>],
        values: &[BasicValueEnum<'c>],
    ) -> inkwell::values::CallSiteValue<'c> {
        let declaration = Intrinsic::find(name)
            .and_then(|intrinsic| intrinsic.get_declaration(&self.module, types))
            .unwrap_or_else(|| panic!("LLVM has no intrinsic `{name}` for these types"));
        let values: Vec<_> = values.iter().map(|value| (*value).into()).collect();
        self.llvm.build_call(declaration, &values, "").expect("the builder is positioned")
    }
}

fn widened(one: BasicTypeEnum<'_>, width: u32) -> BasicTypeEnum<'_> {
    match (one, width) {
        (one, 1) => one,
        (BasicTypeEnum::FloatType(one), width) => one.vec_type(width).as_basic_type_enum(),
        (BasicTypeEnum::IntType(one), width) => one.vec_type(width).as_basic_type_enum(),
        (other, _) => panic!("no vectors of {other}"),
    }
}
