//! How tensors are cut into shards, and what a shard's head and the index say.

use std::collections::BTreeMap;

use serde_json::json;

use crate::tensor::Tensor;

/// Largest shard, unless one tensor alone is larger: the published rule, 5 GB.
const SHARD_BYTES: u64 = 5_000_000_000;

/// One weight file.
#[derive(Debug)]
pub struct WeightFile {
    pub name: String,
    /// In the order of the file: by name, as the safetensors library has them.
    pub tensors: Vec<Tensor>,
}

impl WeightFile {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(Tensor::bytes).sum()
    }

    /// Length and JSON, padded with spaces so that the data begin at a multiple of eight.
    pub fn header(&self) -> Vec<u8> {
        let mut entries = BTreeMap::from([("__metadata__", json!({ "format": "pt" }))]);
        let mut at = 0;
        for tensor in &self.tensors {
            let end = at + tensor.bytes();
            let entry =
                json!({ "dtype": "BF16", "shape": tensor.shape(), "data_offsets": [at, end] });
            entries.insert(&tensor.name, entry);
            at = end;
        }
        let mut json = serde_json::to_vec(&entries).expect("a map of JSON values is JSON");
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        header
    }
}

/// Cut `tensors`, which stand in the order of the published modules, into `shards` files of as many
/// tensors each, or into as few files of at most 5 GB as that order allows.
pub fn cut(tensors: Vec<Tensor>, shards: Option<u64>) -> Vec<WeightFile> {
    let parts = match shards {
        Some(shards) => evenly(tensors, shards),
        None => greedily(tensors),
    };
    let count = parts.len();
    parts
        .into_iter()
        .enumerate()
        .map(|(index, mut tensors)| {
            tensors.sort_by(|a, b| a.name.cmp(&b.name));
            let name = match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
            };
            WeightFile { name, tensors }
        })
        .collect()
}

fn evenly(mut tensors: Vec<Tensor>, shards: u64) -> Vec<Vec<Tensor>> {
    let all = tensors.len();
    let count = usize::try_from(shards).unwrap_or(all).clamp(1, all);
    let mut parts: Vec<_> =
        (0..count).rev().map(|index| tensors.split_off(index * all / count)).collect();
    parts.reverse();
    parts
}

fn greedily(tensors: Vec<Tensor>) -> Vec<Vec<Tensor>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        if bytes > 0 && bytes + tensor.bytes() > SHARD_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.bytes();
        parts.last_mut().expect("there is always a part").push(tensor);
    }
    parts
}

/// The text of `model.safetensors.index.json`.
pub fn index(shards: &[WeightFile]) -> String {
    let total: u64 = shards.iter().map(WeightFile::bytes).sum();
    let places: BTreeMap<&str, &str> = shards
        .iter()
        .flat_map(|shard| shard.tensors.iter().map(|tensor| (tensor.name.as_str(), &*shard.name)))
        .collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
    format!("{index:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sail_vl2::names;
    use crate::synth::published;
    use crate::testing::spec_of;

    fn cut_of(size: &str) -> Vec<(usize, u64)> {
        let tensors = names::tensors(&spec_of(published(size).unwrap()));
        cut(tensors, None).iter().map(|shard| (shard.tensors.len(), shard.bytes())).collect()
    }

    #[test]
    fn the_2b_is_cut_as_its_published_index_is() {
        assert_eq!(cut_of("2b"), [(483, 4_805_213_184), (7, 655_917_056)]);
    }

    #[test]
    fn the_8b_is_cut_into_four() {
        let counts: Vec<usize> = cut_of("8b").iter().map(|(tensors, _)| *tensors).collect();
        assert_eq!(counts, [243, 141, 142, 52]);
    }

    #[test]
    fn a_number_of_shards_gives_that_many_and_every_tensor_once() {
        for shards in [1, 2, 3, 7, 51, 52, 53, u64::MAX] {
            let tensors = names::tensors(&spec_of(&crate::testing::config()));
            let all = tensors.len();
            let parts = cut(tensors, Some(shards));
            assert_eq!(parts.len() as u64, shards.clamp(1, all as u64));
            assert!(parts.iter().all(|part| !part.tensors.is_empty()));
            assert_eq!(parts.iter().map(|part| part.tensors.len()).sum::<usize>(), all);
        }
    }
}
