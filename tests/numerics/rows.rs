//! Kernels that pick, place or copy rows, against their twins.

use sail_ir::Scheme;
use sail_kernels::emit::run::{Counts, Loaded, f32_values, i32_bytes, poisoned, targets_here};
use sail_kernels::packing::{self, Join, pack_whole};
use sail_kernels::reference;
use sail_kernels::rows::{Columns, Embed, EmbedPacked, EmbedPitched, SelectRows, Splice, Tap};
use sail_kernels::{Kernel, Rows};
use sail_tests::harness::Test;

use super::check::{close, drawn, run, run_loaded, tokens};
use super::simulated::{gpu_targets, run_simulated};

/// Rows and widths: one, primes, whole vectors, a model's.
const SIZES: [(usize, usize); 5] = [(1, 1), (3, 7), (17, 64), (37, 67), (19, 2048)];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("embed gives the rows of the table that the ids name", embed),
        Test::new("embed_packed gives the same rows out of the head's panels", embed_packed),
        Test::new("embed_packed of GPUs gives the same rows out of the head's own", embed_pitched),
        Test::new("select_rows gives the rows that the index names, counted like it", select_rows),
        Test::new("splice replaces the rows that have an image row and no other", splice),
        Test::new("columns gives any range of columns", columns),
        Test::new("tap gives an f32 copy", tap),
    ]
}

fn embed() {
    for (rows, width) in SIZES {
        let kernel = Embed { width: width as u32 };
        let vocabulary = 23;
        let ids: Vec<i32> = (0..rows as i32).map(|t| t * 7 % vocabulary).collect();
        let (table, values) = drawn(1, vocabulary as usize * width);
        let want = reference::embed(&ids, &values, width);
        let buffers = vec![i32_bytes(&ids), table, poisoned(2 * want.len())];
        for (target, after) in run(&kernel, tokens(rows), &buffers) {
            close(&kernel, &target, &after[2], &want);
        }
    }
}

fn embed_packed() {
    for (rows, width) in SIZES {
        for vocabulary in [1, 23, 96] {
            let ids: Vec<i32> =
                (0..rows as i32).map(|t| (t * 7 + vocabulary - 1) % vocabulary).collect();
            let (table, values) = drawn(1, vocabulary as usize * width);
            let want = reference::embed(&ids, &values, width);
            for target in targets_here() {
                let kernel = EmbedPacked::new(width as u32, &target);
                let panel_width = target.limits().panel_width;
                let paths = [(table.as_slice(), vocabulary as u64)];
                let packed = pack_whole(Scheme::Bf16, Join::One, &paths, width, panel_width);
                let buffers = vec![i32_bytes(&ids), packed, poisoned(2 * want.len())];
                let loaded = Loaded::new(&kernel, &target);
                let after = run_loaded(&kernel, &loaded, tokens(rows), &buffers);
                close(&kernel, &target, &after[2], &want);
            }
        }
    }
}

/// On CUDA targets the head's rows stand as products with it read them.
fn embed_pitched() {
    for (rows, width) in SIZES {
        let vocabulary = 23;
        let pitch = Scheme::Bf16.row_bytes(width as u64) / 2;
        let kernel = EmbedPitched { width: width as u32, pitch: pitch as u32 };
        let ids: Vec<i32> = (0..rows as i32).map(|t| (t * 7 + 22) % vocabulary).collect();
        let (table, values) = drawn(1, vocabulary as usize * width);
        let want = reference::embed(&ids, &values, width);
        let paths = [(table.as_slice(), vocabulary as u64)];
        let packed = packing::rows::pack_whole(Scheme::Bf16, Join::One, &paths, width);
        let buffers = vec![i32_bytes(&ids), packed, poisoned(2 * want.len())];
        for target in gpu_targets() {
            let after = run_simulated(&kernel, &target, tokens(rows), &buffers);
            close(&kernel, &target, &after[2], &want);
        }
    }
}

fn select_rows() {
    for (rows, width) in SIZES {
        for index in [vec![rows as i32 - 1], (0..rows as i32).rev().collect()] {
            let kernel = SelectRows { width: width as u32 };
            let (x, values) = drawn(2, rows * width);
            let want = reference::select_rows(&values, &index, width);
            let buffers = vec![x, i32_bytes(&index), poisoned(2 * want.len())];
            let counts =
                Counts { tokens: rows as u32, outputs: index.len() as u32, ..Counts::default() };
            for (target, after) in run(&kernel, counts, &buffers) {
                close(&kernel, &target, &after[2], &want);
            }
        }
    }
}

fn splice() {
    for (rows, width) in SIZES {
        let kernel = Splice { width: width as u32 };
        let image_rows: Vec<i32> =
            (0..rows as i32).map(|t| if t % 3 == 1 { -1 } else { t / 2 }).collect();
        let (x, x_values) = drawn(3, rows * width);
        let (features, values) = drawn(4, (rows / 2 + 1) * width);
        let want = reference::splice(&x_values, &values, &image_rows, width);
        let buffers = vec![x, features, i32_bytes(&image_rows), poisoned(2 * want.len())];
        for (target, after) in run(&kernel, tokens(rows), &buffers) {
            close(&kernel, &target, &after[3], &want);
        }
    }
}

fn columns() {
    for (rows, width) in SIZES {
        for (first, count) in [(0, width), (width / 3, width - width / 3), (width / 2, 1)] {
            let kernel = Columns {
                rows: Rows::TOKENS,
                width: width as u32,
                first: first as u32,
                count: count as u32,
            };
            let (x, values) = drawn(5, rows * width);
            let want = reference::columns(&values, width, first, count);
            let buffers = vec![x, poisoned(2 * want.len())];
            for (target, after) in run(&kernel, tokens(rows), &buffers) {
                close(&kernel, &target, &after[1], &want);
            }
        }
    }
}

fn tap() {
    for (rows, width) in SIZES {
        let kernel = Tap { rows: Rows::TOKENS, width: width as u32 };
        let (x, values) = drawn(6, rows * width);
        let buffers = vec![x, poisoned(4 * values.len())];
        for (target, after) in run(&kernel, tokens(rows), &buffers) {
            let got: Vec<f64> = f32_values(&after[1]).into_iter().map(f64::from).collect();
            assert_eq!(got, reference::tap(&values), "{target}, `{}`", kernel.symbol());
        }
    }
}
