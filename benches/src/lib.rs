//! Kernels at the sizes of the published models, each with the bytes or operations it cannot do without, and
//! how criterion times them.

pub mod cases;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use sail_ir::plan::Count;
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::cost::Estimate;
use sail_kernels::emit::run::{Counts, Prepared, bf16_bytes, host, random};

/// Above this many operations a byte, a kernel is bound by arithmetic on every machine at hand.
const ARITHMETIC: u64 = 16;

/// Makes an argument by its name.
type BufferOf = dyn Fn(&str) -> Vec<u8>;

/// A kernel of this machine's own target and a call of it.
pub struct Case {
    pub kernel: Box<dyn Kernel>,
    counts: Counts,
    /// Mean number of cached positions that a row attends to. All rows are of one slot, so that a perfect
    /// cache reads these once.
    positions: u64,
    buffer: Box<BufferOf>,
}

impl Case {
    /// `buffer` makes the argument of a name; it is asked only when the case is timed.
    pub fn new(
        kernel: impl Kernel + 'static,
        counts: Counts,
        buffer: impl Fn(&str) -> Vec<u8> + 'static,
    ) -> Self {
        Self { kernel: Box::new(kernel), counts, positions: 0, buffer: Box::new(buffer) }
    }

    /// The same, of rows that attend to so many positions.
    #[must_use]
    pub fn attending(self, positions: u64) -> Self {
        Self { positions, ..self }
    }

    /// Symbol, rows of the call, cached positions.
    #[must_use]
    pub fn name(&self) -> String {
        let (rows, positions) = (self.rows(), self.positions);
        format!("{} rows={rows} positions={positions}", self.kernel.symbol())
    }

    fn rows(&self) -> u64 {
        let grid = self.kernel.grid();
        grid.rows(match grid.count {
            Count::Tokens => self.counts.tokens,
            Count::Images => self.counts.images,
            Count::Outputs => self.counts.outputs,
        })
    }

    /// Time it with one thread, where its name is asked for.
    ///
    /// Criterion's throughput is that of the kernel's own estimate: bytes a second, or operations a
    /// second where there are many for each byte.
    pub fn time(&self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let (cost, positions) = (self.kernel.cost(), self.positions);
        let operations = Estimate::of(&cost, self.rows(), positions).operations;
        let bytes = Estimate::of(&cost, self.rows(), 0).bytes + cost.position_bytes * positions;
        group.throughput(if operations > ARITHMETIC * bytes {
            Throughput::Elements(operations)
        } else {
            Throughput::BytesDecimal(bytes)
        });
        let mut prepared = None;
        group.bench_function(self.name(), |bencher| {
            let prepared = prepared.get_or_insert_with(|| self.prepared());
            bencher.iter(|| prepared.run());
        });
        let intact = prepared.is_none_or(|prepared| prepared.is_intact());
        assert!(intact, "`{}` writes beside its buffers, which are too small", self.name());
    }

    fn prepared(&self) -> Prepared {
        let names = self.kernel.arguments().iter();
        let buffers: Vec<Vec<u8>> = names.map(|name| (self.buffer)(name)).collect();
        Prepared::new(self.kernel.as_ref(), &machine(), self.counts, &buffers)
    }
}

/// The target of this machine.
///
/// # Panics
///
/// On a machine below `x86-64-v3`.
#[must_use]
pub fn machine() -> Target {
    host().expect("kernels need at least x86-64-v3")
}

/// Random bf16 values.
#[must_use]
pub fn drawn(seed: u64, count: u32) -> Vec<u8> {
    bf16_bytes(&random(seed, count as usize))
}

/// Counts of a call over `tokens` rows.
#[must_use]
pub fn tokens(tokens: u32) -> Counts {
    Counts { tokens, ..Counts::default() }
}

/// Counts of a call over `images` image tiles.
#[must_use]
pub fn images(images: u32) -> Counts {
    Counts { images, ..Counts::default() }
}

/// Counts of a call that asks for the logits of `outputs` rows.
#[must_use]
pub fn outputs(outputs: u32) -> Counts {
    Counts { outputs, ..Counts::default() }
}
