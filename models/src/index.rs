//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::error::ModelError;
use crate::hf_config::{read_text, words};

/// Largest index that is read; that of 30B-A3B has 2 MB.
const INDEX_BYTES: u64 = 256 << 20;

#[derive(Deserialize)]
struct IndexFile {
    weight_map: Pairs<String>,
}

/// The shard of each tensor.
///
/// Refuses a shard that is not a plain file name of letters, digits, `.`, `_` and `-` ending in
/// `.safetensors`: an index never leads out of its folder. Refuses an index without tensors.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refuse = |because| ModelError::Json { file: file.clone(), because };
    let text = read_text(path, INDEX_BYTES)?;
    let IndexFile { weight_map } =
        serde_json::from_str(&text).map_err(|error| refuse(words(&error)))?;
    if weight_map.0.is_empty() {
        return Err(refuse("it names no tensor".to_owned()));
    }
    let mut index = BTreeMap::new();
    for (tensor, shard) in weight_map.0 {
        if !is_plain(&shard) {
            return Err(ModelError::Index {
                what: format!("`{}` is not the name of a shard", shard.escape_debug()),
                because: Some("a shard is a file beside the index, named in letters, digits, `.`, `_` and `-`, ending in `.safetensors`".to_owned()),
            });
        }
        index.insert(tensor, shard);
    }
    Ok(index)
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.bytes().all(plain) && name.ends_with(".safetensors") && !name.starts_with('.')
}

/// A JSON object in the order of the file, refused when a key is there twice.
///
/// The key `__metadata__`, free text in a safetensors header, is left out.
pub struct Pairs<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
        let mut pairs = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{name}` is there twice")));
            }
            pairs.push((name, map.next_value()?));
        }
        Ok(Pairs(pairs))
    }
}
