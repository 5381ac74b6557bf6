//! What this machine can do at best, measured: bytes read in a second, operations in a second.
//!
//! Both probes run on as many threads as the host device has, pinned alike, and take some tenths
//! of a second. Neighbours on a shared machine change the answer within seconds, so measure beside
//! what is to be judged.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use sail_ir::Target;
use sail_ir::plan::Arithmetic;

use super::DeviceError;
use super::host::Memory;
use super::host::pin;

/// More than any cache.
const READ_BYTES: u64 = 512 << 20;
/// Runs of each probe. The best counts: a limit is what was reached once.
const RUNS: usize = 5;
/// Rounds of the arithmetic loop: some hundredths of a second.
const ROUNDS: u64 = 2_000_000;
/// Independent sums in one round.
const SUMS: u64 = 12;

/// Memory of its own, read as fast as `threads` threads can.
pub struct ReadProbe {
    memory: Memory,
    threads: usize,
}

impl ReadProbe {
    /// Takes half a gigabyte, touched, in large pages where the system has them.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        let memory = Memory::new("the read probe", READ_BYTES)?;
        let (start, words) = memory.parts::<u32>();
        // SAFETY: the memory was made above and nobody else knows of it.
        unsafe { std::slice::from_raw_parts_mut(start, words) }.fill(1);
        Ok(Self { memory, threads: threads.max(1) })
    }

    /// Bytes read in a second by all threads together.
    #[must_use]
    pub fn measure(&self) -> f64 {
        // SAFETY: nobody writes after `new`.
        let words = unsafe { self.memory.values::<u32>() };
        let part = words.len().div_ceil(self.threads);
        let seconds = timed(self.threads, |thread| {
            let mine =
                &words[(thread * part).min(words.len())..((thread + 1) * part).min(words.len())];
            touch(mine);
        });
        READ_BYTES as f64 / seconds
    }
}

/// Read all words once, as fast as one thread can.
fn touch(words: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    {
        let (chunks, rest) = words.as_chunks::<{ x86_64::CHUNK_WORDS }>();
        black_box(rest.iter().fold(0, |sum, word| sum | word));
        if std::arch::is_x86_feature_detected!("avx512f") {
            return x86_64::read_512(chunks);
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return x86_64::read_256(chunks);
        }
    }
    black_box(words.iter().fold(0, |sum, word| sum | word));
}

/// Multiplications and additions in a second by `threads` threads together, in registers, with the
/// widest instruction that code for `target` may use: on bf16 values `vdpbf16ps`, else f32 `fma`; on
/// 8-bit integers `vpdpbusd`, else `vpmaddwd` of values that were widened.
///
/// 0 on a machine that cannot run code for `target`.
#[must_use]
pub fn operations(target: &Target, arithmetic: Arithmetic, threads: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as detected;

        let vnni = target.has("avx512vnni");
        let bf16 = target.has("avx512bf16");
        let wide = target.has("avx512f");
        let (runs, round, each): (bool, fn(u64), u64) = match arithmetic {
            Arithmetic::Floats if bf16 => (detected!("avx512bf16"), x86_64::dot_bf16, 64),
            Arithmetic::Floats if wide => (detected!("avx512f"), x86_64::fma_512, 32),
            Arithmetic::Floats => (detected!("fma"), x86_64::fma_256, 16),
            Arithmetic::Bytes if vnni => (detected!("avx512vnni"), x86_64::dot_bytes, 128),
            Arithmetic::Bytes if wide => (detected!("avx512bw"), x86_64::dot_shorts_512, 64),
            Arithmetic::Bytes => (detected!("avx2"), x86_64::dot_shorts_256, 32),
        };
        if !runs {
            return 0.0;
        }
        let threads = threads.max(1);
        let seconds = timed(threads, |_| round(ROUNDS));
        (ROUNDS * SUMS * each * threads as u64) as f64 / seconds
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (target, arithmetic, threads);
        0.0
    }
}

/// Least time of `work` on all threads at once.
fn timed(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let processors = pin::processors();
    let measure = |thread: usize| {
        if threads <= processors.len() {
            pin::to(processors[thread]);
        }
        let mut times = [0.0; RUNS];
        for time in &mut times {
            barrier.wait();
            let start = Instant::now();
            work(thread);
            barrier.wait();
            *time = start.elapsed().as_secs_f64();
        }
        times
    };
    thread::scope(|scope| {
        let measure = &measure;
        let others: Vec<_> = (0..threads).map(|j| scope.spawn(move || measure(j))).collect();
        // A run lasts as long as its slowest thread.
        let mut slowest = [0.0_f64; RUNS];
        for thread in others {
            let times = thread.join().unwrap_or([f64::INFINITY; RUNS]);
            for (slowest, time) in slowest.iter_mut().zip(times) {
                *slowest = slowest.max(time);
            }
        }
        slowest.into_iter().fold(f64::INFINITY, f64::min)
    })
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    //! Loops over memory, and of twelve independent sums in registers.

    use std::arch::asm;

    /// `rounds` of twelve `INSTRUCTION` on registers of this width.
    macro_rules! rounds {
        ($rounds:ident, $instruction:literal, $width:literal) => {{
            let mut rounds = $rounds;
            // SAFETY: the features of the instruction were detected by the caller, as the function's
            // attribute demands. Only registers that are declared here change; no memory does.
            unsafe {
                asm!(
                    "vpxor xmm0, xmm0, xmm0",
                    "vpxor xmm1, xmm1, xmm1",
                    "vpxor xmm2, xmm2, xmm2",
                    "vpxor xmm3, xmm3, xmm3",
                    "vpxor xmm4, xmm4, xmm4",
                    "vpxor xmm5, xmm5, xmm5",
                    "vpxor xmm6, xmm6, xmm6",
                    "vpxor xmm7, xmm7, xmm7",
                    "vpxor xmm8, xmm8, xmm8",
                    "vpxor xmm9, xmm9, xmm9",
                    "vpxor xmm10, xmm10, xmm10",
                    "vpxor xmm11, xmm11, xmm11",
                    "vpxor xmm12, xmm12, xmm12",
                    "2:",
                    concat!($instruction, " ", $width, "0, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "1, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "2, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "3, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "4, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "5, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "6, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "7, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "8, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "9, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "10, ", $width, "12, ", $width, "12"),
                    concat!($instruction, " ", $width, "11, ", $width, "12, ", $width, "12"),
                    "dec {rounds}",
                    "jnz 2b",
                    "vzeroupper",
                    rounds = inout(reg) rounds,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                    out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                    out("xmm10") _, out("xmm11") _, out("xmm12") _,
                    options(nomem, nostack),
                );
            }
            let _ = rounds;
        }};
    }

    /// Words of eight of the widest vectors.
    pub const CHUNK_WORDS: usize = 128;

    /// Read whole chunks with vectors of this width.
    macro_rules! read {
        ($chunks:ident, $instruction:literal, $width:literal, $bytes:literal) => {{
            let range = $chunks.as_ptr_range();
            if range.is_empty() {
                return;
            }
            // SAFETY: the features of the instruction were detected by the caller. The loop reads
            // from the first byte of the chunks to the last, in steps that divide a chunk, and
            // writes no memory; the registers it changes are declared.
            unsafe {
                asm!(
                    "2:",
                    concat!($instruction, " ", $width, "0, ", $width, "0, [{at}]"),
                    concat!($instruction, " ", $width, "1, ", $width, "1, [{at} + ", $bytes, "]"),
                    concat!($instruction, " ", $width, "2, ", $width, "2, [{at} + 2*", $bytes, "]"),
                    concat!($instruction, " ", $width, "3, ", $width, "3, [{at} + 3*", $bytes, "]"),
                    concat!("add {at}, 4*", $bytes),
                    "cmp {at}, {end}",
                    "jb 2b",
                    "vzeroupper",
                    at = inout(reg) range.start => _,
                    end = in(reg) range.end,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    options(readonly, nostack),
                );
            }
        }};
    }

    pub fn read_512(chunks: &[[u32; CHUNK_WORDS]]) {
        read!(chunks, "vporq", "zmm", "64");
    }

    pub fn read_256(chunks: &[[u32; CHUNK_WORDS]]) {
        read!(chunks, "vpor", "ymm", "32");
    }

    pub fn dot_bf16(rounds: u64) {
        rounds!(rounds, "vdpbf16ps", "zmm");
    }

    pub fn dot_bytes(rounds: u64) {
        rounds!(rounds, "vpdpbusd", "zmm");
    }

    pub fn dot_shorts_512(rounds: u64) {
        rounds!(rounds, "vpmaddwd", "zmm");
    }

    pub fn dot_shorts_256(rounds: u64) {
        rounds!(rounds, "vpmaddwd", "ymm");
    }

    pub fn fma_512(rounds: u64) {
        rounds!(rounds, "vfmadd231ps", "zmm");
    }

    pub fn fma_256(rounds: u64) {
        rounds!(rounds, "vfmadd231ps", "ymm");
    }
}

#[cfg(test)]
mod tests {
    use sail_ir::artifact::Machine;

    use super::*;

    #[test]
    fn this_machine_reads_and_computes() {
        assert!(ReadProbe::new(2).unwrap().measure() > 1e8);
        let target = Machine::this().target().unwrap();
        let [floats, bytes] =
            [Arithmetic::Floats, Arithmetic::Bytes].map(|kind| operations(&target, kind, 2));
        assert!(floats > 1e9 && bytes > 1e9, "{floats} {bytes}");
    }
}
