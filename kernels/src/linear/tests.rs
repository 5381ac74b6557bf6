//! What the code of a product looks like, and that a row is alone; `tests/numerics` has the rest.

use super::*;
use crate::emit::run::{Counts, Loaded, bf16_bytes, poisoned, random, targets_here};
use crate::packing::{Join, pack_whole};

const EPS: f64 = 1e-6;

fn tokens(count: usize) -> Counts {
    Counts { tokens: count as u32, ..Counts::default() }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (n, k, rows) = (48, 50, 29);
    for target in targets_here() {
        let problem = LinearProblem {
            rows: Rows::TOKENS,
            n,
            k,
            scheme: Scheme::Bf16,
            prologue: Prologue::RmsNorm { eps: EPS },
            epilogue: Epilogue::NONE,
        };
        let loaded = Loaded::new(&Linear::new(problem, &target), &target);
        let (n, k) = (n as usize, k as usize);
        let mut x = bf16_bytes(&random(1, rows * k));
        let mut norm = bf16_bytes(&random(2, k));
        let w = bf16_bytes(&random(3, n * k));
        let mut packed =
            pack_whole(Scheme::Bf16, Join::One, &[(&w, n as u64)], k, target.limits().panel_width);
        let mut run = |x: &mut [u8], rows: usize| {
            let mut y = poisoned(2 * rows * n);
            loaded.run(tokens(rows), &mut [x, &mut norm, &mut packed, &mut y]);
            y
        };
        let together = run(&mut x, rows);
        for (row, y) in together.chunks_exact(2 * n).enumerate() {
            assert_eq!(run(&mut x[2 * row * k..2 * (row + 1) * k], 1), y, "{target} row {row}");
        }
    }
}

#[test]
fn rows_are_packed_once_for_all_calls_of_a_step() {
    let (n, k, rows) = (96, 64, 20);
    let problem = LinearProblem {
        rows: Rows::TOKENS,
        n,
        k,
        scheme: Scheme::Bf16,
        prologue: Prologue::RmsNorm { eps: EPS },
        epilogue: Epilogue::NONE,
    };
    for target in targets_here() {
        let linear = Linear::new(problem, &target);
        let linear = linear.with(&linear.config().with("block", 12));
        let loaded = Loaded::new(linear.as_ref(), &target);
        let (n, k) = (n as usize, k as usize);
        let values = |seed, count: usize| bf16_bytes(&random(seed, count));
        let (mut first, mut other) = (values(1, rows * k), values(4, rows * k));
        let (mut norm, weight) = (values(2, k), values(3, n * k));
        let panel_width = target.limits().panel_width;
        let mut weight =
            pack_whole(Scheme::Bf16, Join::One, &[(&weight, n as u64)], k, panel_width);
        let mut whole = |x: &mut [u8]| {
            let mut y = poisoned(2 * rows * n);
            loaded.run(tokens(rows), &mut [x, &mut norm, &mut weight, &mut y]);
            y
        };
        let (of_first, of_other) = (whole(&mut first), whole(&mut other));

        let blocks = loaded.items(tokens(rows)) / 2;
        let mut step = |calls: &[(std::ops::Range<u64>, &[u8])]| {
            let (mut x, mut y) = (first.clone(), poisoned(2 * rows * n));
            let buffers = &mut [&mut x[..], &mut norm, &mut weight, &mut y];
            loaded.run_step(tokens(rows), buffers, calls);
            y
        };
        // The rest of the first block's items find its rows packed; the second block's do not.
        let cut = step(&[(0..1, &first), (1..blocks, &other), (blocks..2 * blocks, &other)]);
        let dealt = 12 * 2 * n;
        assert!(cut[..dealt] == of_first[..dealt], "{target}");
        assert!(cut[dealt..] == of_other[dealt..], "{target}");
        assert!(step(&[(0..2 * blocks, &other)]) == of_other, "{target}");
    }
}

/// The inner loops of a large product that multiplies `rows` rows at once, as lines of assembly.
fn inner_loops(scheme: Scheme, target: &Target, rows: u32) -> Vec<Vec<String>> {
    let problem = LinearProblem {
        rows: Rows::TOKENS,
        n: 4096,
        k: 2048,
        scheme,
        prologue: Prologue::Direct,
        epilogue: Epilogue::NONE,
    };
    let linear = Linear::new(problem, target);
    let linear = linear.with(&linear.config().with("rows", rows));
    let text = crate::assembly(linear.as_ref(), target).unwrap();
    let mut blocks: Vec<Vec<String>> = vec![Vec::new()];
    for line in text.lines().map(str::trim) {
        if line.starts_with(".LBB") {
            blocks.push(Vec::new());
        }
        blocks.last_mut().unwrap().push(line.to_owned());
        if line.starts_with('j') {
            blocks.push(Vec::new());
        }
    }
    let products: &[&str] = match scheme {
        Scheme::Bf16 | Scheme::Int8Weight => &["vdpbf16ps", "vfmadd"],
        Scheme::Int8 | Scheme::Int4 => &["vpdpbusd", "vpmaddwd"],
        Scheme::Fp8 => panic!("no x86-64 target has `fp8`"),
    };
    let multiplies = |line: &String| products.iter().any(|name| line.starts_with(name));
    blocks.retain(|block| block.iter().any(multiplies));
    blocks
}

/// Every scheme on every level.
fn all() -> impl Iterator<Item = (Scheme, Target)> {
    let levels = ["x86-64-v3", "x86-64-v4", "x86-64-v4+avx512vnni+avx512bf16"];
    let levels = levels.map(|name| Target::parse(name).unwrap());
    Scheme::EVERYWHERE
        .into_iter()
        .flat_map(move |scheme| levels.clone().map(|level| (scheme, level)))
}

#[test]
fn inner_loops_keep_all_sums_in_registers() {
    for (scheme, target) in all() {
        let product = Product::new(2048, scheme, &target);
        let [rows, _] = product.space();
        for most in rows.values {
            let loops = inner_loops(scheme, &target, most);
            // One for each number of rows that are multiplied at once.
            let sizes = |most: u32| 1 + [8, 4, 2, 1].iter().filter(|size| **size < most).count();
            let direct = match scheme {
                Scheme::Int8Weight => {
                    sizes(inner::int8_weight::most_direct_rows(&product).min(most))
                }
                _ => 0,
            };
            assert_eq!(loops.len(), sizes(most) + direct, "{scheme} {target} {most}");
            for line in loops.iter().flatten() {
                let spills = line.contains("%rsp") && line.contains("mm");
                assert!(!spills, "{scheme} {target} {most} spills: {line}");
            }
        }
    }
}

#[test]
fn inner_loops_read_the_weights_in_the_order_of_their_bytes() {
    for (scheme, target) in all() {
        let most = Product::new(2048, scheme, &target).most_rows;
        for block in inner_loops(scheme, &target, most) {
            let offsets: Vec<(String, i64)> =
                block.iter().filter_map(|line| panel_load(line)).collect();
            // Four steps a turn, each of two vectors or, of nibbles, one.
            let least = if scheme == Scheme::Int4 { 4 } else { 8 };
            assert!(offsets.len() >= least, "{scheme} {target}: {block:#?}");
            for pair in offsets.windows(2) {
                let [(base, one), (other_base, other)] = pair else { unreachable!() };
                assert_eq!(base, other_base, "{scheme} {target}: {block:#?}");
                let vector = i64::from(4 * target.limits().lanes);
                assert_eq!(*other, one + vector, "{scheme} {target}: {block:#?}");
            }
        }
    }
}

/// Base register and offset of a whole vector that comes from memory, alone or with what is done
/// to it.
fn panel_load(line: &str) -> Option<(String, i64)> {
    let (name, operands) = line.split_once('\t')?;
    let (place, _) = operands.split_once("),")?;
    let (offset, base) = place.split_once('(')?;
    let loads = ["vmov", "vpxor"].iter().any(|load| name.starts_with(load));
    (loads && !base.contains("rip")).then(|| (base.to_owned(), offset.parse().unwrap_or(0)))
}
