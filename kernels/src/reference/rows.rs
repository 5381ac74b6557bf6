//! Meanings of the ops that pick, place or copy rows. They round nothing.

use super::rows_of;

/// Rows of the embedding table: `ids [t]`, `table [v, width]` to `[t, width]`.
///
/// # Panics
///
/// When an id is no row of the table: requests are checked before.
#[must_use]
pub fn embed(ids: &[i32], table: &[f64], width: usize) -> Vec<f64> {
    select_rows(table, ids, width)
}

/// The rows of `x [rows, width]` that `index` names, `[index.len(), width]`.
///
/// # Panics
///
/// When an index names no row.
#[must_use]
pub fn select_rows(x: &[f64], index: &[i32], width: usize) -> Vec<f64> {
    rows_of(x, width);
    index.iter().flat_map(|&row| &x[row as usize * width..][..width]).copied().collect()
}

/// Row `t` of `x [t, width]` becomes row `image_rows[t]` of `features` where that is not negative.
#[must_use]
pub fn splice(x: &[f64], features: &[f64], image_rows: &[i32], width: usize) -> Vec<f64> {
    assert_eq!(rows_of(x, width), image_rows.len(), "an image row for every token");
    let mut y = x.to_vec();
    for (row, &from) in y.chunks_exact_mut(width).zip(image_rows) {
        if let Ok(from) = usize::try_from(from) {
            row.copy_from_slice(&features[from * width..][..width]);
        }
    }
    y
}

/// Columns `first .. first + count` of `x [rows, width]`.
#[must_use]
pub fn columns(x: &[f64], width: usize, first: usize, count: usize) -> Vec<f64> {
    rows_of(x, width);
    x.chunks_exact(width).flat_map(|row| &row[first..][..count]).copied().collect()
}

/// A copy for the person who asked.
#[must_use]
pub fn tap(x: &[f64]) -> Vec<f64> {
    x.to_vec()
}

/// The sum over ranks; there is one rank.
#[must_use]
pub fn all_reduce(x: &[f64]) -> Vec<f64> {
    x.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [f64; 6] = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0];

    #[test]
    fn rows_are_picked_by_index_and_may_repeat() {
        assert_eq!(embed(&[2, 0, 2], &TABLE, 2), [20.0, 21.0, 0.0, 1.0, 20.0, 21.0]);
        assert_eq!(select_rows(&TABLE, &[1], 2), [10.0, 11.0]);
        assert!(select_rows(&TABLE, &[], 2).is_empty());
    }

    #[test]
    fn splice_replaces_the_rows_with_an_image_row_and_no_other() {
        let y = splice(&TABLE, &[5.0, 6.0, 7.0, 8.0], &[1, -1, 0], 2);
        assert_eq!(y, [7.0, 8.0, 10.0, 11.0, 5.0, 6.0]);
    }

    #[test]
    fn columns_are_a_range_of_every_row() {
        assert_eq!(columns(&TABLE, 3, 1, 2), [1.0, 10.0, 20.0, 21.0]);
    }
}
