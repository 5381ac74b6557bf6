//! Weights of a CUDA target: rows along K, one after the other, as `Scheme` draws them.
//!
//! Rows come in runs of [`RUN`]: of gate and up, half a run each, so that the thread which holds the
//! sums of a gate column in a matrix instruction holds those of the up column, too. What a row needs
//! besides its codes (a scale, the words of its groups) stands behind the codes of all rows.

use sail_ir::scheme::Scheme;

use super::{
    Join, Loss, NotFinite, Panels, Sensitivity, Source, fp8, int4, int8, rounded, values_of,
};

/// Rows that are packed together: twice the columns of the narrowest matrix instruction.
pub const RUN: u32 = 16;

/// Pack the rows of one run; `rows` as in [`super::pack_panel`]. `codes` takes `row_bytes` of each,
/// `behind` takes `bytes_behind` of each.
///
/// Refuses values that the scheme cannot hold; `bf16` holds all.
pub fn pack_rows(
    scheme: Scheme,
    k: usize,
    rows: &[Option<&[u8]>],
    sensitivity: Option<&Sensitivity>,
    (codes, behind): (&mut [u8], &mut [u8]),
) -> Result<Loss, NotFinite> {
    let (row_bytes, behind_bytes) = sizes(scheme, k);
    assert_eq!(codes.len(), rows.len() * row_bytes, "codes have the bytes their scheme says");
    assert_eq!(behind.len(), rows.len() * behind_bytes, "and so has what stands behind");
    codes.fill(0);
    behind.fill(0);
    let mut loss = Loss::default();
    for (output, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let codes = &mut codes[output * row_bytes..][..row_bytes];
        match scheme {
            Scheme::Bf16 => codes[..2 * k].copy_from_slice(row),
            Scheme::Int8 | Scheme::Int8Weight => {
                let values = values_of(k, row, output)?;
                let (scale, inverse) = int8::scale_of(&values);
                let stored = int8::round(&values, scale, inverse, sensitivity);
                for (at, value) in stored.iter().enumerate() {
                    codes[place_of_byte(scheme, at)] = int8::integer(*value, inverse) as i8 as u8;
                }
                behind[4 * output..][..4].copy_from_slice(&scale.to_le_bytes());
                loss += Loss::of(&values, &stored);
            }
            Scheme::Fp8 => {
                let values = values_of(k, row, output)?;
                let (scale, inverse) = fp8::scale_of(&values);
                let nearest = |value: f32| fp8::value(fp8::nearest(value * inverse)) * scale;
                let stored = rounded(&values, sensitivity, nearest);
                for (code, value) in codes.iter_mut().zip(&stored) {
                    *code = fp8::nearest(*value * inverse);
                }
                behind[4 * output..][..4].copy_from_slice(&scale.to_le_bytes());
                loss += Loss::of(&values, &stored);
            }
            Scheme::Int4 => {
                let values = values_of(k, row, output)?;
                for (index, group) in values.chunks(Scheme::GROUP as usize).enumerate() {
                    let mut stored = vec![0.0; group.len()];
                    let grid = int4::grid_of(index, group, sensitivity, &mut stored);
                    let first = index * Scheme::GROUP as usize;
                    for (at, value) in stored.iter().enumerate() {
                        let (byte, shift) = place_of_nibble(first + at);
                        codes[byte] |= grid.code(*value) << shift;
                    }
                    let word = &mut behind[4 * (index * rows.len() + output)..][..4];
                    word.copy_from_slice(&grid.word().to_le_bytes());
                    loss += Loss::of(group, &stored);
                }
            }
        }
    }
    Ok(loss)
}

/// Byte of a row where the integer of value `i` is. Of `int8-weight` the words of 16 bytes are pairs
/// and those eight values on, so that a word holds both operands that a thread gives a matrix
/// instruction for 16 values along K.
fn place_of_byte(scheme: Scheme, i: usize) -> usize {
    match scheme {
        Scheme::Int8Weight => i / 16 * 16 + i % 8 / 2 * 4 + i / 8 % 2 * 2 + i % 2,
        _ => i,
    }
}

/// Byte of a row and shift in it of nibble `i`: 16 bytes hold 16 values and, above them, the 16 after
/// those, which again makes a word both operands of a thread.
fn place_of_nibble(i: usize) -> (usize, u32) {
    (i / 32 * 16 + i % 16, if i % 32 < 16 { 0 } else { 4 })
}

fn sizes(scheme: Scheme, k: usize) -> (usize, usize) {
    (scheme.row_bytes(k as u64) as usize, scheme.bytes_behind(k as u64) as usize)
}

/// The values of row `output` of a packed weight of `outputs` rows, as products take them.
#[must_use]
pub fn unpack_row(
    scheme: Scheme,
    k: usize,
    (weight, outputs): (&[u8], usize),
    output: usize,
) -> Vec<f64> {
    let (row_bytes, behind_bytes) = sizes(scheme, k);
    let codes = &weight[output * row_bytes..][..row_bytes];
    let (run, row) = (output / RUN as usize, output % RUN as usize);
    let behind = &weight[outputs * row_bytes + run * RUN as usize * behind_bytes..];
    match scheme {
        Scheme::Bf16 => {
            let values = values_of(k, &codes[..2 * k], output).expect("what was packed is finite");
            values.into_iter().map(f64::from).collect()
        }
        Scheme::Int8 | Scheme::Int8Weight => {
            let scale = behind[4 * row..][..4].try_into().expect("four bytes");
            let scale = f32::from_le_bytes(scale);
            let code = |i| codes[place_of_byte(scheme, i)] as i8;
            (0..k).map(|i| f64::from(code(i)) * f64::from(scale)).collect()
        }
        Scheme::Fp8 => {
            let scale = behind[4 * row..][..4].try_into().expect("four bytes");
            let scale = f64::from(f32::from_le_bytes(scale));
            codes[..k].iter().map(|code| f64::from(fp8::value(*code)) * scale).collect()
        }
        Scheme::Int4 => (0..k)
            .map(|i| {
                let index = i / Scheme::GROUP as usize;
                let word = &behind[4 * (index * RUN as usize + row)..][..4];
                let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
                let (byte, shift) = place_of_nibble(i);
                let nibble = i32::from(codes[byte] >> shift & 15);
                let zero = i32::try_from(word & 0xff).expect("a byte");
                f64::from(nibble - zero) * f64::from(f32::from_bits(word & 0xffff_0000))
            })
            .collect(),
    }
}

/// A whole weight of `[n, k]` bf16 rows as one path, packed; for tests and benchmarks.
#[must_use]
pub fn pack_whole(scheme: Scheme, join: Join, paths: &[(&[u8], u64)], k: usize) -> Vec<u8> {
    let rows: Vec<u64> = paths.iter().map(|(_, rows)| *rows).collect();
    let runs = Panels::new(join, &rows, RUN).expect("paths that can be joined");
    let (row_bytes, behind_bytes) = sizes(scheme, k);
    let (mut all_codes, mut all_behind) = (Vec::new(), Vec::new());
    for run in 0..runs.count() {
        let sources = runs.sources(run);
        let rows: Vec<Option<&[u8]>> = sources
            .iter()
            .map(|source| {
                source.map(|Source { path, row }| &paths[path].0[row as usize * 2 * k..][..2 * k])
            })
            .collect();
        let mut codes = vec![0; rows.len() * row_bytes];
        let mut behind = vec![0; rows.len() * behind_bytes];
        let out = (&mut codes[..], &mut behind[..]);
        pack_rows(scheme, k, &rows, None, out).expect("finite values");
        all_codes.extend(codes);
        all_behind.extend(behind);
    }
    all_codes.extend(all_behind);
    all_codes
}

/// The rows of each path of a weight packed by [`pack_whole`], as products take them: `[n, k]`
/// values a path.
#[must_use]
pub fn unpack_whole(
    scheme: Scheme,
    join: Join,
    (packed, rows): (&[u8], &[u64]),
    k: usize,
) -> Vec<Vec<f64>> {
    let runs = Panels::new(join, rows, RUN).expect("paths that can be joined");
    let outputs = (runs.count() * u64::from(RUN)) as usize;
    let mut paths: Vec<Vec<f64>> = rows.iter().map(|rows| vec![0.0; *rows as usize * k]).collect();
    for run in 0..runs.count() {
        for (at, source) in runs.sources(run).into_iter().enumerate() {
            let Some(Source { path, row }) = source else { continue };
            let output = (run * u64::from(RUN)) as usize + at;
            let values = unpack_row(scheme, k, (packed, outputs), output);
            paths[path][row as usize * k..][..k].copy_from_slice(&values);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::run::{bf16_bytes, random};
    use crate::packing;

    #[test]
    fn rows_hold_the_values_that_panels_hold() {
        for (n, k) in [(1, 1), (3, 7), (17, 130), (33, 300)] {
            let path = bf16_bytes(&random(n + k, (n * k) as usize));
            for scheme in Scheme::EVERYWHERE {
                let paths = [(&path[..], n)];
                let panels = packing::pack_whole(scheme, Join::One, &paths, k as usize, 16);
                let want =
                    packing::unpack_whole(scheme, Join::One, (&panels, &[n]), k as usize, 16);
                let rows = pack_whole(scheme, Join::One, &paths, k as usize);
                let got = unpack_whole(scheme, Join::One, (&rows, &[n]), k as usize);
                assert_eq!(got, want, "{scheme} {n} x {k}");
            }
        }
    }

    #[test]
    fn a_float_comes_back_within_half_a_step_of_its_exponent_or_of_the_row() {
        let k = 130;
        let values = random(9, k);
        let path = bf16_bytes(&values);
        let packed = pack_whole(Scheme::Fp8, Join::One, &[(&path, 1)], k);
        let got = unpack_whole(Scheme::Fp8, Join::One, (&packed, &[1]), k).remove(0);
        let want = values_of(k, &path, 0).unwrap();
        let most = want.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let least = f64::from(most) / 448.0 * 2.0_f64.powi(-10);
        for (got, want) in got.iter().zip(&want) {
            let want = f64::from(*want);
            assert!((got - want).abs() <= (want.abs() / 16.0 * 1.0001).max(least), "{got} {want}");
        }
    }

    #[test]
    fn gate_and_up_alternate_by_eights_and_rows_start_at_128_bytes() {
        let (n, k) = (11_u64, 70_usize);
        let paths = [1, 2].map(|seed| bf16_bytes(&random(seed, n as usize * k)));
        let packed =
            pack_whole(Scheme::Bf16, Join::Interleave, &[(&paths[0], n), (&paths[1], n)], k);
        let pitch = 256;
        assert_eq!(packed.len(), 2 * 16 * pitch);
        assert_eq!(packed[..2 * k], paths[0][..2 * k]);
        assert_eq!(packed[8 * pitch..][..2 * k], paths[1][..2 * k]);
        assert_eq!(packed[16 * pitch..][..2 * k], paths[0][8 * 2 * k..][..2 * k]);
        assert!(packed[2 * k..pitch].iter().all(|byte| *byte == 0), "what a row lacks is zeros");
    }

    #[test]
    fn a_word_of_nibbles_gives_two_runs_of_four_by_a_mask() {
        // Points of a grid of step 1: their codes are their values.
        let values: Vec<f32> = (0..16).map(|v| v as f32).chain([3.0, 2.0, 1.0, 5.0]).collect();
        let packed = pack_whole(Scheme::Int4, Join::One, &[(&bf16_bytes(&values), 1)], 20);
        let word = u32::from_le_bytes(packed[..4].try_into().unwrap());
        assert_eq!(word & 0x0f0f_0f0f, 0x0302_0100);
        assert_eq!(word >> 4 & 0x0f0f_0f0f, 0x0501_0203);
        assert_eq!(packed[4..8], [4, 5, 6, 7]);
    }

    #[test]
    fn the_words_of_a_group_stand_together_for_a_run_of_rows() {
        let (n, k) = (17, 130);
        let path = bf16_bytes(&random(3, n * k));
        let packed = pack_whole(Scheme::Int4, Join::One, &[(&path, n as u64)], k);
        // Behind 32 rows: of each run two groups of 16 words; the last values are a short group.
        let words = &packed[32 * Scheme::Int4.row_bytes(k as u64) as usize..];
        assert_eq!(words.len(), 2 * 2 * 16 * 4);
        let last = half::bf16::from_le_bytes(path[2 * (n * k - 1)..].try_into().unwrap());
        let scale = u32::from_le_bytes(words[4 * (2 * 16 + 16)..][..4].try_into().unwrap());
        let steps = last.to_f32() / f32::from_bits(scale & 0xffff_0000);
        assert!((1.0..=15.5).contains(&steps.abs()), "{steps} steps");
    }
}
