//! What the manifest says of launches on a GPU makes sense, so that a device may rely on it.

use super::{ArtifactError, Manifest};
use crate::plan::{Cuda, TensorMap};

/// Most threads of a block, and blocks of a cluster.
const MAX_THREADS: u32 = 1024;
const MAX_CLUSTER: u32 = 16;

/// Refuse a manifest for a GPU whose kernels cannot be launched as it says.
pub(super) fn check(manifest: &Manifest) -> Result<(), ArtifactError> {
    if manifest.target.gpu().is_none() {
        return Ok(());
    }
    let wrong = |place: &str, because: String| ArtifactError::malformed(place, because);
    if manifest.cuda.is_none() {
        return Err(wrong("manifest", "it says nothing of its code for a GPU".to_owned()));
    }
    for (_, kernel) in manifest.plan.kernels.iter() {
        let place = format!("kernel `{}`", kernel.symbol);
        let cuda = kernel.cuda.as_ref();
        let cuda = cuda.ok_or_else(|| wrong(&place, "it has no launch on a GPU".to_owned()))?;
        launch(cuda, kernel.arguments).map_err(|because| wrong(&place, because))?;
    }
    Ok(())
}

pub(super) fn launch(cuda: &Cuda, arguments: u32) -> Result<(), String> {
    let Cuda { entry, threads, shared_bytes: _, cluster, most_blocks: _, tensor_maps } = cuda;
    if entry.is_empty() || entry.contains('\0') {
        return Err(format!("`{entry}` is no name of an entry"));
    }
    if !(1..=MAX_THREADS).contains(threads) {
        return Err(format!("a block has {threads} threads, not 1 to {MAX_THREADS}"));
    }
    if !(1..=MAX_CLUSTER).contains(cluster) {
        return Err(format!("a cluster has {cluster} blocks, not 1 to {MAX_CLUSTER}"));
    }
    tensor_maps.iter().try_for_each(|map| matrix(map, arguments))
}

fn matrix(map: &TensorMap, arguments: u32) -> Result<(), String> {
    let TensorMap { argument, element_bytes, columns, rows: _, row_bytes, block: _, swizzle } = map;
    if *argument >= arguments {
        return Err(format!("a matrix is argument {argument} of {arguments}"));
    }
    let row = columns.checked_mul(u64::from(*element_bytes));
    let fits = [1, 2].contains(element_bytes)
        && [0, 32, 64, 128].contains(swizzle)
        && row_bytes.is_multiple_of(16)
        && row.is_some_and(|row| row <= *row_bytes);
    match fits {
        true => Ok(()),
        false => Err(format!("its matrix makes no sense: {map:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MapRows;

    fn cuda() -> Cuda {
        let map = TensorMap {
            argument: 1,
            element_bytes: 2,
            columns: 64,
            rows: MapRows::Fixed(3),
            row_bytes: 128,
            block: [64, 3],
            swizzle: 128,
        };
        Cuda {
            entry: "add".to_owned(),
            threads: 128,
            shared_bytes: 0,
            cluster: 1,
            most_blocks: 0,
            tensor_maps: vec![map],
        }
    }

    #[test]
    fn what_can_be_launched_is_taken() {
        assert_eq!(launch(&cuda(), 2), Ok(()));
    }

    #[test]
    fn what_cannot_be_launched_is_named() {
        type Change = fn(&mut Cuda);
        let changes: [(Change, &str); 5] = [
            (|cuda| cuda.threads = 2048, "2048 threads"),
            (|cuda| cuda.cluster = 0, "0 blocks"),
            (|cuda| cuda.entry.clear(), "no name"),
            (|cuda| cuda.tensor_maps[0].argument = 2, "argument 2 of 2"),
            (|cuda| cuda.tensor_maps[0].row_bytes = 100, "makes no sense"),
        ];
        for (change, word) in changes {
            let mut cuda = cuda();
            change(&mut cuda);
            let because = launch(&cuda, 2).unwrap_err();
            assert!(because.contains(word), "{because}");
        }
    }
}
