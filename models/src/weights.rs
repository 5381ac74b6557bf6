//! Where the bytes of a model's tensors come from: a checkpoint on disk, or a seed.

use std::collections::HashMap;
use std::str::FromStr;

use crate::checkpoint::Checkpoint;
use crate::error::{ModelError, quoted};
use crate::random::RandomWeights;
use crate::tensor::Tensor;

/// Bytes of two tensors that are compared at a time.
const COMPARED_BYTES: u64 = 1 << 20;

/// What `--weights` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightSource {
    /// The safetensors files of the folder.
    #[default]
    Checkpoint,
    /// `random:SEED`: no weights are read, even if the folder has some.
    Random { seed: u64 },
}

impl FromStr for WeightSource {
    type Err = ModelError;

    /// Refuses everything but `random:SEED`, with SEED in decimal.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text.strip_prefix("random:").map(str::parse) {
            Some(Ok(seed)) => Ok(Self::Random { seed }),
            _ => Err(ModelError::WeightSource { found: quoted(text) }),
        }
    }
}

/// The tensors of one model, checked against its spec.
#[derive(Debug)]
pub struct Weights {
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Checkpoint(Checkpoint),
    Random(RandomWeights),
}

impl Weights {
    /// The weights that `checkpoint` holds for `tensors`. Refuses what [`Checkpoint::check`] does.
    pub fn of_checkpoint(checkpoint: Checkpoint, tensors: Vec<Tensor>) -> Result<Self, ModelError> {
        checkpoint.check(&tensors)?;
        Ok(Self::new(tensors, Source::Checkpoint(checkpoint)))
    }

    /// The weights that `seed` gives `tensors`.
    pub fn of_seed(seed: u64, tensors: Vec<Tensor>) -> Self {
        let random = RandomWeights::new(seed, &tensors);
        Self::new(tensors, Source::Random(random))
    }

    fn new(tensors: Vec<Tensor>, source: Source) -> Self {
        let by_name =
            tensors.iter().enumerate().map(|(at, tensor)| (tensor.name.clone(), at)).collect();
        Self { tensors, by_name, source }
    }

    /// Every tensor the model reads, in the order of the published modules.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(Tensor::bytes).sum()
    }

    /// Name, shape and spread of one tensor.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|&at| &self.tensors[at])
    }

    /// Copy `rows` rows of a tensor to `out`, bf16, little endian; `out` has just their size.
    ///
    /// A row is one index of the first dimension that is not 1: `[1, 1024, 1536]` has 1,024 rows
    /// of 1,536 elements, `[1536, 3, 14, 14]` has 1,536 rows of 588. Any number of threads may
    /// call this at once.
    ///
    /// Refuses a checkpoint that cannot be read (any more).
    ///
    /// # Panics
    ///
    /// When there is no such tensor, or it has fewer rows: a bug of the caller.
    pub fn rows(
        &self,
        name: &str,
        first_row: u64,
        rows: u64,
        out: &mut [u8],
    ) -> Result<(), ModelError> {
        let Some(tensor) = self.tensor(name) else {
            panic!("broken invariant `weights.known`: no tensor `{name}` in the model")
        };
        let (all, elements) = tensor.rows();
        let asked = first_row.checked_add(rows).filter(|&end| end <= all);
        assert!(
            asked.is_some() && out.len() as u64 == rows * elements * 2,
            "broken invariant `weights.inside`: {rows} rows at {first_row} into {} bytes, `{name}` has {all} of {elements} elements",
            out.len()
        );
        let first = first_row * elements;
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.read(name, first * 2, out),
            Source::Random(random) => {
                random.fill(name, first, out);
                Ok(())
            }
        }
    }

    /// Whether two tensors of one size have the same bytes in a checkpoint; random ones never do.
    /// Reads until the first difference.
    pub fn equal(&self, a: &str, b: &str) -> Result<bool, ModelError> {
        let Source::Checkpoint(checkpoint) = &self.source else { return Ok(false) };
        let (Some(tensor), Some(other)) = (self.tensor(a), self.tensor(b)) else {
            return Ok(false);
        };
        assert_eq!(tensor.bytes(), other.bytes(), "broken invariant `weights.comparable`");
        let mut at = 0;
        let [mut left, mut right] = [(); 2].map(|()| vec![0; COMPARED_BYTES as usize]);
        while at < tensor.bytes() {
            let bytes = COMPARED_BYTES.min(tensor.bytes() - at) as usize;
            checkpoint.read(a, at, &mut left[..bytes])?;
            checkpoint.read(b, at, &mut right[..bytes])?;
            if left[..bytes] != right[..bytes] {
                return Ok(false);
            }
            at += bytes as u64;
        }
        Ok(true)
    }

    /// The same weights without one tensor.
    pub fn without(self, name: &str) -> Self {
        let tensors = self.tensors.into_iter().filter(|tensor| tensor.name != name).collect();
        Self::new(tensors, self.source)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{checkpoint, config};

    fn both() -> (tempfile::TempDir, [Weights; 2]) {
        let (folder, dir) = checkpoint(3);
        let sources = [WeightSource::Checkpoint, WeightSource::Random { seed: 1 }];
        let weights = sources.map(|source| crate::open(&dir, source).unwrap().weights);
        (folder, weights)
    }

    #[test]
    fn a_seed_gives_what_synth_writes_with_it() {
        let (_folder, [stored, drawn]) = both();
        assert_eq!(stored.tensors(), drawn.tensors());
        for tensor in stored.tensors() {
            let mut bytes = vec![0; tensor.bytes() as usize];
            let mut other = vec![0xaa; tensor.bytes() as usize];
            drawn.rows(&tensor.name, 0, tensor.rows().0, &mut bytes).unwrap();
            stored.rows(&tensor.name, 0, tensor.rows().0, &mut other).unwrap();
            assert!(bytes == other, "{}", tensor.name);
        }
    }

    #[test]
    fn rows_are_cut_out_of_the_whole() {
        let (_folder, weights) = both();
        for weights in weights {
            for (name, row_bytes) in [
                ("mlp1.1.weight", 192),
                ("mlp1.1.bias", 2),
                ("vision_model.preprocessor.pos_embed", 48),
                ("vision_model.preprocessor.patchifier.proj.weight", 1176),
            ] {
                let (rows, _) = weights.tensor(name).unwrap().rows();
                let mut whole = vec![0; rows as usize * row_bytes];
                weights.rows(name, 0, rows, &mut whole).unwrap();
                let mut part = vec![0xaa; 3 * row_bytes];
                weights.rows(name, 5, 3, &mut part).unwrap();
                assert_eq!(part, whole[5 * row_bytes..][..3 * row_bytes], "{name}");
                weights.rows(name, rows, 0, &mut []).unwrap();
            }
        }
    }

    #[test]
    #[should_panic = "broken invariant `weights.inside`"]
    fn rows_beyond_the_last_are_a_bug() {
        let (_folder, [stored, _]) = both();
        stored.rows("mlp1.1.bias", 31, 2, &mut [0; 4]).unwrap();
    }

    #[test]
    #[should_panic = "broken invariant `weights.known`"]
    fn a_tensor_of_no_model_is_a_bug() {
        let (_folder, [stored, _]) = both();
        stored.rows("mlp1.9.bias", 0, 1, &mut [0; 2]).unwrap();
    }

    #[test]
    fn random_weights_need_no_shard_and_no_picture_processor() {
        let (folder, dir) = checkpoint(1);
        for name in ["model.safetensors", "preprocessor_config.json", "generation_config.json"] {
            std::fs::remove_file(dir.join(name)).unwrap();
        }
        let model = crate::open(&dir, WeightSource::Random { seed: 0 }).unwrap();
        assert_eq!(model.spec.tiling.max_tiles, 10);
        drop(folder);
        assert_eq!(crate::testing::spec_of(&config()).decoder, model.spec.decoder);
    }

    #[test]
    fn only_random_and_a_seed_is_a_source() {
        assert_eq!("random:7".parse::<WeightSource>().unwrap(), WeightSource::Random { seed: 7 });
        let refusals: Vec<String> = ["random", "random:", "random:-1", "random:1e3", "zeros"]
            .map(|text| text.parse::<WeightSource>().unwrap_err().to_string())
            .into();
        expect![[r#"
            weights `random` are not known
              because only `random:SEED` is, with SEED a whole number below 2^64
            weights `random:` are not known
              because only `random:SEED` is, with SEED a whole number below 2^64
            weights `random:-1` are not known
              because only `random:SEED` is, with SEED a whole number below 2^64
            weights `random:1e3` are not known
              because only `random:SEED` is, with SEED a whole number below 2^64
            weights `zeros` are not known
              because only `random:SEED` is, with SEED a whole number below 2^64"#]]
        .assert_eq(&refusals.join("\n"));
    }
}
