//! Short kernels, each for one thing: the right result, or the fault it must provoke.

mod bulk;
mod copies;
mod flow;
mod forks;
mod grids;
mod mutants;
mod order;
mod products;
mod registers;
mod warpgroup;
mod words;

use crate::{Device, Fault, Kind, Launch, Module, Options};

/// A kernel around `body`: `%rd1` is the input, `%rd2` the output, `%rd3` the thread's word of the
/// output, `%r0` the thread, `%r1` the lane, `%r2` the block; shared memory is `tile`.
fn text(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 tile[];\n\
         .visible .entry k(.param .u64 .ptr .global .align 16 k_in, .param .u64 k_out, \
         .param .align 64 .b8 k_map[128]) {{\n\
         .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<99>; .reg .f32 %f<40>; .reg .b64 %rd<40>;\n\
         ld.param.u64 %rd1, [k_in];\nld.param.u64 %rd2, [k_out];\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, %laneid; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;\n\
         mad.lo.s32 %r4, %r2, %r3, %r0; mul.wide.u32 %rd3, %r4, 4; add.s64 %rd3, %rd2, %rd3;\n\
         mov.u32 %r5, tile;\n{body}\nret;\n}}\n"
    )
}

/// How a test launches; most need only threads.
struct Setting {
    grid: u32,
    threads: u32,
    cluster: u32,
    input: Vec<u8>,
    out_words: usize,
    map: [u8; 128],
    programmatic: bool,
}

impl Setting {
    fn threads(threads: u32) -> Self {
        Self {
            grid: 1,
            threads,
            cluster: 1,
            input: (0..1024u32).flat_map(u32::to_le_bytes).collect(),
            out_words: threads as usize,
            map: [0; 128],
            programmatic: false,
        }
    }

    fn run(&self, body: &str) -> Result<Vec<u32>, Fault> {
        self.run_text(&text(body))
    }

    fn run_text(&self, text: &str) -> Result<Vec<u32>, Fault> {
        let module = Module::parse(text)?;
        let mut device = Device::new();
        let (input, out) =
            (device.alloc(self.input.len() as u64), device.alloc(4 * self.out_words as u64));
        device.write(input, &self.input)?;
        let mut params = input.to_le_bytes().to_vec();
        params.extend(out.to_le_bytes());
        params.resize(64, 0);
        params.extend(self.map);
        let launch = Launch {
            grid: [self.grid, 1, 1],
            block: [self.threads, 1, 1],
            dynamic_shared: 32768,
            params: &params,
            options: Options {
                cluster: [self.cluster, 1, 1],
                budget: 10_000_000,
                threads: 2,
                programmatic: self.programmatic,
                only: Vec::new(),
                stirred: false,
            },
        };
        module.launch(&device, "k", &launch)?;
        let bytes = device.read(out, 4 * self.out_words as u64)?;
        let words = bytes.chunks_exact(4).map(|it| u32::from_le_bytes(it.try_into().unwrap()));
        Ok(words.collect())
    }
}

/// What each of `threads` threads stores to its word.
fn run(threads: u32, body: &str) -> Vec<u32> {
    Setting::threads(threads).run(body).unwrap_or_else(|fault| panic!("{fault}"))
}

/// The fault that `body` provokes, which must be of `kind`, at the line with `at`.
fn refused(threads: u32, kind: Kind, at: &str, body: &str) -> Fault {
    refused_in(&Setting::threads(threads), kind, at, body)
}

fn refused_in(setting: &Setting, kind: Kind, at: &str, body: &str) -> Fault {
    let fault = setting.run(body).expect_err("the kernel breaks a rule");
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.text.contains(at), "not at `{at}`: {fault}");
    fault
}

/// Threads that nothing orders: whoever comes first in the run, the reader finds a race, a copy under
/// way, or nothing.
fn unordered(threads: u32, body: &str) {
    let fault = Setting::threads(threads).run(body).expect_err("nothing orders the threads");
    let kinds = [Kind::Race, Kind::Uninitialised, Kind::InFlight];
    assert!(kinds.contains(&fault.kind), "{fault}");
}
