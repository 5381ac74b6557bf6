//! The weights of a checkpoint on disk: one safetensors file, or shards with an index.
//!
//! Opening reads headers only, whatever the size of the checkpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use safetensors::Dtype;

use crate::error::{ModelError, Shapes};
use crate::index;
use crate::shard::{Entry, Shard};
use crate::tensor::Tensor;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Every tensor of a checkpoint, by name.
#[derive(Debug)]
pub struct Checkpoint {
    shards: Vec<Shard>,
    places: HashMap<String, Place>,
    /// The file that says which tensors there are, as named in messages.
    list: &'static str,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    entry: Entry,
}

impl Checkpoint {
    /// Open the weight files of `dir` and read their headers.
    ///
    /// Refuses a folder without weights or with two sets of them, an index that names files
    /// outside the folder or tensors that are not where it says, what [`Shard::open`] refuses,
    /// and a name that is there twice. Whether the tensors are those of a model is [`Self::check`].
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let index = match (dir.join(SINGLE).exists(), dir.join(INDEX).exists()) {
            (true, true) => {
                return Err(ModelError::Index {
                    what: format!("both `{SINGLE}` and `{INDEX}` are there"),
                    because: Some("one checkpoint has one set of weights".to_owned()),
                });
            }
            (false, false) => return Err(no_weights(dir)),
            (true, false) => BTreeMap::new(),
            (false, true) => index::read(&dir.join(INDEX))?,
        };
        let single = index.is_empty();
        let names: BTreeSet<&str> =
            if single { [SINGLE].into() } else { index.values().map(String::as_str).collect() };
        let list = if single { SINGLE } else { INDEX };
        let mut checkpoint = Self { shards: Vec::new(), places: HashMap::new(), list };
        for name in names {
            if !single && !dir.join(name).exists() {
                return Err(ModelError::NoShard { shard: name.to_owned() });
            }
            checkpoint.add(Shard::open(dir, name)?)?;
        }
        checkpoint.agrees_with(&index)?;
        Ok(checkpoint)
    }

    fn add(&mut self, (shard, entries): (Shard, Vec<Entry>)) -> Result<(), ModelError> {
        for entry in entries {
            let place = Place { shard: self.shards.len(), entry };
            let tensor = place.entry.name.clone();
            if let Some(other) = self.places.insert(tensor.clone(), place) {
                let place = format!("`{}` and `{}`", self.shards[other.shard].name, shard.name);
                return Err(ModelError::Duplicate { tensor, place });
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    fn agrees_with(&self, index: &BTreeMap<String, String>) -> Result<(), ModelError> {
        for (tensor, shard) in index {
            let found = self.places.get(tensor).map(|place| &self.shards[place.shard].name);
            if found != Some(shard) {
                return Err(ModelError::Index {
                    what: format!("tensor `{tensor}` is not in `{shard}`"),
                    because: found.map(|found| format!("it is in `{found}`")),
                });
            }
        }
        Ok(())
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, tensor: &str) -> bool {
        self.places.contains_key(tensor)
    }

    /// Fill `out` with the bytes of a tensor from byte `at` of it on, row-major, little endian.
    ///
    /// Refuses a file that cannot be read (any more).
    ///
    /// # Panics
    ///
    /// When there is no such tensor, or it has fewer bytes: a bug of the caller.
    pub fn read(&self, tensor: &str, at: u64, out: &mut [u8]) -> Result<(), ModelError> {
        let Some(Place { shard, entry }) = self.places.get(tensor) else {
            panic!("broken invariant `checkpoint.known`: no tensor `{tensor}`")
        };
        let (bytes, wanted) = (entry.end - entry.start, out.len() as u64);
        assert!(
            at <= bytes && wanted <= bytes - at,
            "broken invariant `checkpoint.inside`: {wanted} bytes at {at} of `{tensor}`, which has {bytes}"
        );
        self.shards[*shard].read_at(entry.start + at, out)
    }

    /// Refuses a checkpoint that lacks one of `expected`, has it in another shape or element type,
    /// or has a tensor that is not among them: what nobody reads may be what changes the result.
    pub fn check(&self, expected: &[Tensor]) -> Result<(), ModelError> {
        for tensor in expected {
            match self.places.get(&tensor.name) {
                Some(place) => self.check_one(tensor, place)?,
                None => return Err(self.missing(expected)),
            }
        }
        let unread = self.unread(expected);
        match unread.first() {
            None => Ok(()),
            Some(&tensor) => Err(ModelError::Unread {
                tensor: tensor.to_owned(),
                shard: self.shards[self.places[tensor].shard].name.clone(),
                others: unread.len() - 1,
            }),
        }
    }

    fn check_one(&self, tensor: &Tensor, place: &Place) -> Result<(), ModelError> {
        let shard = || self.shards[place.shard].name.clone();
        let Entry { shape, dtype, .. } = &place.entry;
        let expected = tensor.shape();
        if *shape != expected {
            return Err(ModelError::Shape {
                tensor: tensor.name.clone(),
                shard: shard(),
                shapes: Box::new(Shapes { found: shape.clone(), expected }),
                because: tensor.because(),
            });
        }
        if *dtype != Dtype::BF16 {
            return Err(ModelError::Dtype {
                tensor: tensor.name.clone(),
                shard: shard(),
                found: format!("{dtype:?}"),
            });
        }
        Ok(())
    }

    fn missing(&self, expected: &[Tensor]) -> ModelError {
        let mut missing = expected.iter().map(|tensor| &tensor.name).filter(|name| !self.has(name));
        let tensor = missing.next().expect("the caller found one that is missing").clone();
        let similar = nearest(&tensor, &self.unread(expected));
        let because = match tensor.ends_with("lm_head.weight") {
            true => "`llm_config.tie_word_embeddings` is false",
            false => "`config.json` describes a model that reads it",
        };
        let (place, others) = (self.list.to_owned(), missing.count());
        ModelError::Missing { tensor, place, others, because, similar }
    }

    /// Names that the model does not read, sorted. Rotary frequencies, which old exports carry
    /// along, are computed and never read by any version of the model; they are let pass.
    fn unread(&self, expected: &[Tensor]) -> Vec<&str> {
        let known: HashSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut names: Vec<&str> = self.places.keys().map(String::as_str).collect();
        names.retain(|name| !known.contains(name) && !name.ends_with(".rotary_emb.inv_freq"));
        names.sort_unstable();
        names
    }
}

fn no_weights(dir: &Path) -> ModelError {
    if let Err(error) = fs::read_dir(dir) {
        return ModelError::read(dir, &error);
    }
    let others = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf", "weights.npz"];
    let found = others.into_iter().find(|name| dir.join(name).exists()).map(str::to_owned);
    ModelError::NoWeights { dir: dir.to_owned(), found }
}

/// Most names that are compared with one that is missing.
const COMPARED: usize = 20_000;

/// The name nearest to `wanted`, if one is nearer than half of it; ties go to the first by letter.
fn nearest(wanted: &str, names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter(|name| name.len() <= 2 * wanted.len())
        .take(COMPARED)
        .map(|name| match wanted.ends_with(name) || name.ends_with(wanted) {
            true => (0, *name), // only a prefix is other
            false => (distance(wanted, name), *name),
        })
        .filter(|(distance, _)| 2 * distance < wanted.len())
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Single bytes to insert, leave out or change to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
