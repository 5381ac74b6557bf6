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

use super::DeviceError;
use super::host::Memory;
use super::host::pin;

/// More than any cache.
const READ_BYTES: u64 = 512 << 20;
/// Runs of each probe; the median counts.
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
            black_box(sum(mine));
        });
        READ_BYTES as f64 / seconds
    }
}

/// Bitwise or of all words: one load and one operation for each vector.
fn sum(words: &[u32]) -> u32 {
    let mut sums = [0_u32; 64];
    let chunks = words.chunks_exact(sums.len());
    let rest = chunks.remainder().iter().fold(0, |sum, word| sum | word);
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum |= word;
        }
    }
    sums.iter().fold(rest, |sum, word| sum | word)
}

/// Multiplications and additions in a second by `threads` threads together, in registers, with the
/// widest instruction that code for `target` may use on bf16 values: `vdpbf16ps`, else f32 `fma`.
///
/// 0 on a machine that cannot run code for `target`.
#[must_use]
pub fn operations(target: &Target, threads: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as detected;

        let (round, each): (fn(u64), u64) = if target.has("avx512bf16") {
            if !detected!("avx512bf16") {
                return 0.0;
            }
            (|rounds| x86_64::dot_bf16(rounds), 64)
        } else if target.has("avx512f") {
            if !detected!("avx512f") {
                return 0.0;
            }
            (|rounds| x86_64::fma_512(rounds), 32)
        } else {
            if !detected!("fma") {
                return 0.0;
            }
            (|rounds| x86_64::fma_256(rounds), 16)
        };
        let threads = threads.max(1);
        let seconds = timed(threads, |_| round(ROUNDS));
        (ROUNDS * SUMS * each * threads as u64) as f64 / seconds
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (target, threads);
        0.0
    }
}

/// Median time of `work` on all threads at once.
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
        times.sort_by(f64::total_cmp);
        times[RUNS / 2]
    };
    thread::scope(|scope| {
        let measure = &measure;
        let others: Vec<_> = (0..threads).map(|j| scope.spawn(move || measure(j))).collect();
        let times = others.into_iter().map(|thread| thread.join().unwrap_or(f64::INFINITY));
        times.fold(0.0, f64::max)
    })
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    //! Loops of twelve independent sums, in registers.

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

    pub fn dot_bf16(rounds: u64) {
        rounds!(rounds, "vdpbf16ps", "zmm");
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
        assert!(operations(&target, 2) > 1e9);
    }
}
