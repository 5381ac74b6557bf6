//! Grouped products on the simulator, every way of them against the twin.

use sail_ir::plan::Count;
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::super::{Grouped, GroupedProblem, GroupedProduct};
use super::grouped;
use crate::emit::gpu::simulate::Simulated;
use crate::emit::run::{Counts, bf16_bytes, bf16_values, i32_bytes, poisoned, random};
use crate::kernel::{Before, Kernel, Rows};
use crate::packing::{Join, rows};
use crate::ptxas::tests::{MOST_REGISTERS, assemble_all};
use crate::reference::{self, Rounding};
use crate::table::template;

const EXPERTS: usize = 5;
pub(super) const TOP_K: usize = 2;

/// Most tokens of a call: of eight rows at once, of sixteen, of tiles.
pub(super) const EIGHT: u32 = 8;
pub(super) const SIXTEEN: u32 = 20;
pub(super) const MANY: u32 = 4096;

/// Experts of each token: some have none, one has many.
fn uneven(tokens: usize) -> Vec<i32> {
    let choice = |pair: usize| {
        let (token, choice) = (pair / TOP_K, pair % TOP_K);
        if choice == 0 { 1 } else { ((token * 5 + 2 * choice) % (EXPERTS - 2)) as i32 + 2 }
    };
    (0..tokens * TOP_K).map(choice).collect()
}

/// All tokens go through the same experts, the last of all among them.
fn alike(tokens: usize) -> Vec<i32> {
    [2, 4].repeat(tokens)
}

/// A grouped product and what it multiplies.
pub(super) struct Case {
    problem: GroupedProblem,
    ids: Vec<i32>,
    /// Rows of x that a token has: one, or one for each choice.
    x: (Vec<u8>, Vec<f64>),
    /// Gate and up, or down: of each expert.
    weights: Vec<Vec<Vec<u8>>>,
}

fn drawn(seed: u64, count: usize, scale: f32) -> (Vec<u8>, Vec<f64>) {
    let bytes = bf16_bytes(&random(seed, count).iter().map(|v| v * scale).collect::<Vec<_>>());
    let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
    (bytes, values)
}

impl Case {
    pub(super) fn new(
        (what, scheme): (Grouped, Scheme),
        [n, k]: [usize; 2],
        ids: Vec<i32>,
    ) -> Self {
        let rows = Rows { count: Count::Tokens, per: TOP_K as u32 };
        let experts = EXPERTS as u32;
        let (n_32, k_32) = (n as u32, k as u32);
        let problem =
            GroupedProblem { what, rows, experts, n: n_32, k: k_32, scheme, placed: false };
        let (seeds, read) = match what {
            Grouped::GateUpSilu => (vec![100, 200], ids.len() / TOP_K),
            Grouped::Linear => (vec![300], ids.len()),
        };
        let scale = 1.0 / (k as f32).sqrt();
        let part = |seed: u64| (0..EXPERTS as u64).map(move |at| drawn(seed + at, n * k, scale).0);
        let weights = seeds.into_iter().map(|seed| part(seed).collect()).collect();
        Self { problem, ids, x: drawn(1, read * k, 1.0), weights }
    }

    fn join(&self) -> Join {
        match self.problem.what {
            Grouped::GateUpSilu => Join::StackInterleave,
            Grouped::Linear => Join::Stack,
        }
    }

    /// The packed weights, those of expert `stored[0]` first.
    fn packed(&self, stored: &[usize]) -> Vec<u8> {
        let paths = self.weights.iter().flat_map(|part| stored.iter().map(|at| &part[*at]));
        let paths: Vec<_> = paths.map(|path| (&path[..], u64::from(self.problem.n))).collect();
        rows::pack_whole(self.problem.scheme, self.join(), &paths, self.problem.k as usize)
    }

    /// What the twin gives.
    pub(super) fn want(&self) -> Vec<f64> {
        let GroupedProblem { what, n, k, scheme, .. } = self.problem;
        let k = k as usize;
        let parts = vec![u64::from(n); self.weights.len() * EXPERTS];
        let own: Vec<usize> = (0..EXPERTS).collect();
        let packed = self.packed(&own);
        let values = rows::unpack_whole(scheme, self.join(), (&packed, &parts), k);
        let x = match scheme {
            Scheme::Fp8 => reference::float8_rows(&self.x.1, k),
            scheme if scheme.quantizes_activations() => reference::quantized_rows(&self.x.1, k),
            _ => self.x.1.clone(),
        };
        let groups = reference::group_by_expert(&self.ids, EXPERTS);
        match what {
            Grouped::GateUpSilu => {
                let (gate, up) = values.split_at(EXPERTS);
                let (gate, up) = (gate.concat(), up.concat());
                let weights = [&gate[..], &up[..]];
                reference::grouped_gate_up_silu(&x, &groups, weights, k, Rounding::Bf16)
            }
            Grouped::Linear => {
                let down = values.concat();
                reference::grouped_linear(&x, &groups.starts, &down, k, Rounding::Bf16)
            }
        }
    }

    pub(super) fn kernel(&self, target: &Target, most: u32) -> Box<dyn Kernel> {
        // The shape for x86-64 does not matter here.
        let host = Target::parse("x86-64-v3").unwrap();
        grouped(&GroupedProduct::new(self.problem, &host), target, most).expect("it has code")
    }

    pub(super) fn tokens(&self) -> u32 {
        (self.ids.len() / TOP_K) as u32
    }

    /// What `kernel` gives.
    pub(super) fn run(
        &self,
        target: &Target,
        kernel: &dyn Kernel,
        stored: Option<&[usize]>,
    ) -> Vec<u8> {
        let buffers = self.buffers(target, kernel, stored);
        let counts = Counts { tokens: self.tokens(), ..Counts::default() };
        Simulated::new(kernel, target).run(counts, &buffers).pop().expect("an output")
    }

    /// The arguments of `kernel`, after what makes its rows.
    pub(super) fn buffers(
        &self,
        target: &Target,
        kernel: &dyn Kernel,
        stored: Option<&[usize]>,
    ) -> Vec<Vec<u8>> {
        let groups = reference::group_by_expert(&self.ids, EXPERTS);
        let own: Vec<usize> = (0..EXPERTS).collect();
        let mut buffers = vec![self.x.0.clone()];
        if self.problem.what == Grouped::GateUpSilu {
            buffers.push(i32_bytes(&groups.order));
        }
        buffers.push(i32_bytes(&groups.starts));
        if let Some(stored) = stored {
            let stored: Vec<i32> = stored.iter().map(|expert| *expert as i32).collect();
            buffers.push(i32_bytes(&stored));
        }
        buffers.push(self.packed(stored.unwrap_or(&own)));
        buffers.push(poisoned(2 * self.ids.len() * self.problem.n as usize));
        // Nothing is not to be had as memory.
        buffers.iter_mut().filter(|bytes| bytes.is_empty()).for_each(|none| *none = poisoned(16));
        if let Some(Before { kernel, takes, row_bytes }) = kernel.before() {
            let made = (kernel.grid().rows(self.tokens()) * row_bytes).max(16);
            let mut given: Vec<_> = takes.iter().map(|at| buffers[*at as usize].clone()).collect();
            given.push(vec![0xff; made as usize]);
            let counts = Counts { tokens: self.tokens(), ..Counts::default() };
            let made = Simulated::new(kernel.as_ref(), target).run(counts, &given);
            buffers[0] = made.last().unwrap().clone();
        }
        buffers
    }

    /// Hold the kernels of calls of at most `most` tokens against the twin.
    fn check(&self, most: u32) {
        let want = self.want();
        for target in targets(self.problem.scheme) {
            let kernel = self.kernel(&target, most);
            let got = bf16_values(&self.run(&target, kernel.as_ref(), None));
            let tolerance = template(kernel.family()).unwrap().tolerance;
            let beyond = tolerance.first_beyond(&got, &want);
            let tokens = self.ids.len() / TOP_K;
            assert_eq!(beyond, None, "{target} `{}`, {tokens} tokens", kernel.symbol());
        }
    }
}

/// The CUDA targets that have `scheme`.
pub(super) fn targets(scheme: Scheme) -> impl Iterator<Item = Target> {
    let targets = ["sm_80", "sm_90"].map(|name| Target::parse(name).unwrap());
    targets.into_iter().filter(move |target| scheme.missing_on(target).is_none())
}

fn each(mut body: impl FnMut(Grouped, Scheme)) {
    for what in [Grouped::GateUpSilu, Grouped::Linear] {
        Scheme::ALL.into_iter().for_each(|scheme| body(what, scheme));
    }
}

#[test]
fn few_rows_meet_the_weight_of_their_expert() {
    each(|what, scheme| {
        for (sizes, tokens, most) in [
            ([7, 5], 1, EIGHT),
            ([48, 64], 1, EIGHT),
            ([33, 70], 6, EIGHT),
            ([96, 520], 8, EIGHT),
            ([40, 300], 13, SIXTEEN),
            ([96, 128], 20, SIXTEEN),
        ] {
            Case::new((what, scheme), sizes, uneven(tokens)).check(most);
            Case::new((what, scheme), sizes, alike(tokens)).check(most);
        }
    });
}

#[test]
fn many_rows_meet_the_weight_of_their_expert() {
    each(|what, scheme| {
        for (sizes, tokens) in
            [([7, 5], 1), ([48, 64], 3), ([33, 70], 40), ([96, 136], 90), ([150, 328], 140)]
        {
            Case::new((what, scheme), sizes, uneven(tokens)).check(MANY);
        }
        Case::new((what, scheme), [40, 80], alike(66)).check(MANY);
    });
}

#[test]
fn a_row_is_the_same_among_others() {
    each(|what, scheme| {
        let (sizes, tokens) = ([48, 264], 7);
        let ids = uneven(tokens);
        let all = Case::new((what, scheme), sizes, ids.clone());
        let place = reference::group_by_expert(&ids, EXPERTS).place;
        for target in targets(scheme) {
            for most in [EIGHT, SIXTEEN, MANY] {
                let kernel = all.kernel(&target, most);
                let together = all.run(&target, kernel.as_ref(), None);
                for token in [0, tokens - 1] {
                    let pairs = token * TOP_K..(token + 1) * TOP_K;
                    let mut one = Case::new((what, scheme), sizes, ids[pairs.clone()].to_vec());
                    let of_row = 2 * sizes[1];
                    // The rows of x that are this token's.
                    let own_place = reference::group_by_expert(&one.ids, EXPERTS).place;
                    one.x.0 = match what {
                        Grouped::GateUpSilu => all.x.0[token * of_row..][..of_row].to_vec(),
                        Grouped::Linear => {
                            let mut x = vec![0; TOP_K * of_row];
                            for (pair, own) in pairs.clone().zip(&own_place) {
                                let from = &all.x.0[place[pair] as usize * of_row..][..of_row];
                                x[*own as usize * of_row..][..of_row].copy_from_slice(from);
                            }
                            x
                        }
                    };
                    let alone = one.run(&target, kernel.as_ref(), None);
                    let bytes = 2 * sizes[0];
                    for (pair, own) in pairs.zip(own_place) {
                        let among = &together[place[pair] as usize * bytes..][..bytes];
                        let alone = &alone[own as usize * bytes..][..bytes];
                        assert!(among == alone, "{target} `{}` pair {pair}", kernel.symbol());
                    }
                }
            }
        }
    });
}

#[test]
fn where_experts_are_stored_changes_no_byte() {
    each(|what, scheme| {
        let case = Case::new((what, scheme), [40, 136], uneven(7));
        let placed = GroupedProblem { placed: true, ..case.problem };
        let other = Case { problem: placed, ..Case::new((what, scheme), [40, 136], uneven(7)) };
        for target in targets(scheme) {
            for most in [EIGHT, SIXTEEN, MANY] {
                let kernel = case.kernel(&target, most);
                let want = case.run(&target, kernel.as_ref(), None);
                let kernel = other.kernel(&target, most);
                let got = other.run(&target, kernel.as_ref(), Some(&[3, 1, 4, 0, 2]));
                assert!(got == want, "{target} `{}`", kernel.symbol());
            }
        }
    });
}

#[test]
fn nothing_is_done_without_rows() {
    each(|what, scheme| {
        let case = Case::new((what, scheme), [40, 72], Vec::new());
        for target in targets(scheme) {
            for most in [EIGHT, SIXTEEN, MANY] {
                let kernel = case.kernel(&target, most);
                assert!(case.run(&target, kernel.as_ref(), None) == poisoned(16));
            }
        }
    });
}

#[test]
fn products_of_the_largest_experts_assemble_without_spills() {
    let host = Target::parse("x86-64-v3").unwrap();
    for target in ["sm_80", "sm_90"].map(|name| Target::parse(name).unwrap()) {
        let mut kernels = Vec::new();
        for scheme in Scheme::ALL.into_iter().filter(|it| it.missing_on(&target).is_none()) {
            for (what, n, k, experts, per) in [
                (Grouped::GateUpSilu, 768, 2048, 128, 8),
                (Grouped::Linear, 2048, 768, 128, 8),
                (Grouped::GateUpSilu, 33, 70, 5, 2),
                (Grouped::Linear, 70, 33, 5, 2),
            ] {
                for (most, placed) in [(8, false), (20, true), (4096, false)] {
                    let rows = Rows { count: Count::Tokens, per };
                    let problem = GroupedProblem { what, rows, experts, n, k, scheme, placed };
                    let problem = GroupedProduct::new(problem, &host);
                    kernels.push(grouped(&problem, &target, most).expect("it has code"));
                }
            }
        }
        let text = assemble_all(&target, &kernels, MOST_REGISTERS);
        assert!(!text.contains("call"), "a kernel calls a library");
    }
}

#[test]
fn ways_go_by_rows_of_an_expert() {
    let name = |target, scheme, most| {
        let case = Case::new((Grouped::Linear, scheme), [40, 72], Vec::new());
        let symbol = case.kernel(&Target::parse(target).unwrap(), most).symbol();
        symbol.rsplit('.').next().unwrap().to_owned()
    };
    for target in ["sm_80", "sm_90"] {
        assert!(name(target, Scheme::Bf16, 1).starts_with("rows8x"));
        assert!(name(target, Scheme::Int4, EIGHT).starts_with("rows8x"));
        assert!(name(target, Scheme::Int8, SIXTEEN).starts_with("rows16x"));
    }
    assert_eq!(name("sm_80", Scheme::Int4, SIXTEEN + 1), "tile64x64");
    assert_eq!(name("sm_80", Scheme::Bf16, MANY), "tile64x64");
    assert!(name("sm_90", Scheme::Int4, SIXTEEN + 1).starts_with("mixed"));
    assert!(name("sm_90", Scheme::Int8Weight, MANY).starts_with("mixed"));
    assert_eq!(name("sm_90", Scheme::Bf16, MANY), "wgmma128x64");
    assert_eq!(name("sm_90", Scheme::Int8, MANY), "wgmma128x64");
}
