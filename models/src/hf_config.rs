//! What the JSON files of a checkpoint say, before anybody believes it.
//!
//! Unknown keys are let pass (the published files have about a hundred that decide nothing); a key
//! that is read must be there, of the right type and within bounds. No default of the published
//! Python classes is ever filled in: those defaults are of other models.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{ModelError, quoted};

/// The JSON files of one checkpoint folder.
#[derive(Debug, Clone)]
pub struct RawConfig {
    /// `config.json`: the model.
    pub config: JsonObject,
    /// `preprocessor_config.json`: how pictures are cut; absent only in folders without weights.
    pub preprocessor: Option<JsonObject>,
    /// `generation_config.json`, which may be absent: `llm_config` then decides.
    pub generation: Option<JsonObject>,
    /// `tokenizer.json`, as far as token ids go.
    pub tokenizer: RawTokenizer,
    /// The text of `tokenizer.json`.
    pub tokenizer_text: String,
    /// The text of `chat_template.jinja`, which may be absent.
    pub chat_template: Option<String>,
}

const PREPROCESSOR: &str = "preprocessor_config.json";
/// Largest configuration file that is read; the published ones have 5 KB.
const CONFIG_BYTES: u64 = 16 << 20;
/// Largest `tokenizer.json` that is read; the published one has 11 MB.
const TOKENIZER_BYTES: u64 = 256 << 20;

impl RawConfig {
    /// Read the files of `dir`.
    ///
    /// Refuses what is not there, is larger than such a file can be, or is not JSON.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        ModelError::unless_folder(dir)?;
        let tokenizer_text = read_text(&dir.join("tokenizer.json"), TOKENIZER_BYTES)?;
        let template = dir.join("chat_template.jinja");
        Ok(Self {
            config: JsonObject::read(dir, "config.json")?,
            preprocessor: JsonObject::read_if_there(dir, PREPROCESSOR)?,
            generation: JsonObject::read_if_there(dir, "generation_config.json")?,
            tokenizer: RawTokenizer::parse(&tokenizer_text)?,
            tokenizer_text,
            chat_template: match template.exists() {
                true => Some(read_text(&template, CONFIG_BYTES)?),
                false => None,
            },
        })
    }

    /// Refuses a folder without `preprocessor_config.json`, which real weights need.
    pub fn needs_preprocessor(dir: &Path) -> Result<(), ModelError> {
        JsonObject::read(dir, PREPROCESSOR).map(drop)
    }
}

/// One JSON object: a file, or an object inside it.
#[derive(Debug, Clone)]
pub struct JsonObject {
    file: &'static str,
    /// Keys from the top of the file to here, each with its dot: `llm_config.`
    path: String,
    values: Map<String, Value>,
}

impl JsonObject {
    /// The object at the top of `dir/file`.
    pub fn read(dir: &Path, file: &'static str) -> Result<Self, ModelError> {
        Self::parse(file, &read_text(&dir.join(file), CONFIG_BYTES)?)
    }

    fn read_if_there(dir: &Path, file: &'static str) -> Result<Option<Self>, ModelError> {
        dir.join(file).exists().then(|| Self::read(dir, file)).transpose()
    }

    /// The object that `text` is; `file` is its name in messages.
    pub fn parse(file: &'static str, text: &str) -> Result<Self, ModelError> {
        let values = serde_json::from_str(text)
            .map_err(|error| ModelError::Json { file: file.to_owned(), because: words(&error) })?;
        Ok(Self { file, path: String::new(), values })
    }

    /// The file this is of, as named in messages.
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// `key` with the keys around it: `llm_config.hidden_size`.
    pub fn full(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The object under `key`.
    pub fn object(&self, key: &str) -> Result<JsonObject, ModelError> {
        let values = self.get(key, "an object", |value| value.as_object().cloned())?;
        Ok(JsonObject { file: self.file, path: format!("{}{key}.", self.path), values })
    }

    /// Whether `key` is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| !value.is_null())
    }

    /// A whole number within `bounds`.
    pub fn size(&self, key: &str, bounds: RangeInclusive<u64>) -> Result<u64, ModelError> {
        let found = self.get(key, "a whole number", whole)?;
        self.within(key, found, &(i128::from(*bounds.start())..=i128::from(*bounds.end())))
            .map(|found| u64::try_from(found).expect("the bounds are those of a u64"))
    }

    /// A whole number within `bounds`, which may be negative.
    pub fn index(&self, key: &str, bounds: RangeInclusive<i64>) -> Result<i64, ModelError> {
        let found = self.get(key, "a whole number", whole)?;
        self.within(key, found, &(i128::from(*bounds.start())..=i128::from(*bounds.end())))
            .map(|found| i64::try_from(found).expect("the bounds are those of an i64"))
    }

    /// A number within `bounds`.
    pub fn real(&self, key: &str, bounds: RangeInclusive<f64>) -> Result<f64, ModelError> {
        let found = self.get(key, "a number", Value::as_f64)?;
        self.within(key, found, &bounds)
    }

    /// Three numbers within `bounds`, one for each of red, green and blue.
    pub fn colour(&self, key: &str, bounds: RangeInclusive<f64>) -> Result<[f64; 3], ModelError> {
        let found = self.get(key, "a list of three numbers", |value| {
            let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
            <[f64; 3]>::try_from(numbers?).ok()
        })?;
        for value in found {
            self.within(key, value, &bounds)?;
        }
        Ok(found)
    }

    /// A list of whole numbers, each within `bounds`.
    pub fn sizes(&self, key: &str, bounds: RangeInclusive<u64>) -> Result<Vec<u64>, ModelError> {
        let found: Vec<i128> = self.get(key, "a list of whole numbers", |value| {
            value.as_array()?.iter().map(whole).collect()
        })?;
        let bounds = i128::from(*bounds.start())..=i128::from(*bounds.end());
        found
            .into_iter()
            .map(|value| self.within(key, value, &bounds))
            .map(|value| value.map(|v| u64::try_from(v).expect("the bounds are those of a u64")))
            .collect()
    }

    /// One whole number or a list of them, each within `bounds`.
    pub fn size_or_sizes(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Vec<u64>, ModelError> {
        match self.values.get(key) {
            Some(Value::Array(_)) => self.sizes(key, bounds),
            _ => self.size(key, bounds).map(|value| vec![value]),
        }
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<bool, ModelError> {
        self.get(key, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<String, ModelError> {
        self.get(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, ModelError> {
        self.get(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// Refuses every value of `key` but `supported`, and its absence.
    pub fn only_flag(&self, key: &str, supported: bool) -> Result<(), ModelError> {
        self.only(key, self.flag(key)?, supported)
    }

    /// Refuses every value of `key` but `supported`, and its absence.
    pub fn only_text(&self, key: &str, supported: &str) -> Result<(), ModelError> {
        self.only(key, self.text(key)?.as_str(), supported)
    }

    /// Refuses every value of `key` but `supported`, and its absence.
    pub fn only_real(&self, key: &str, supported: f64) -> Result<(), ModelError> {
        self.only(key, self.real(key, f64::MIN..=f64::MAX)?, supported)
    }

    /// Refuses every value of `key` but null; `absent_too` says whether it must be there.
    pub fn only_null(&self, key: &str, absent_too: bool) -> Result<(), ModelError> {
        match self.values.get(key) {
            None if !absent_too => Err(self.missing(key)),
            None | Some(Value::Null) => Ok(()),
            Some(value) => Err(self.unsupported(key, &shown(value), "`null`".to_owned())),
        }
    }

    fn only<T: PartialEq + Debug>(
        &self,
        key: &str,
        found: T,
        supported: T,
    ) -> Result<(), ModelError> {
        if found == supported {
            return Ok(());
        }
        let shown = |value: T| quoted(format!("{value:?}").trim_matches('"'));
        Err(self.unsupported(key, &shown(found), shown(supported)))
    }

    /// The refusal of `key` for what it says.
    pub fn unsupported(&self, key: &str, found: &str, supported: String) -> ModelError {
        let (file, key) = (self.file, self.full(key));
        ModelError::Unsupported { file, key, found: found.to_owned(), supported }
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingKey { file: self.file, key: self.full(key) }
    }

    fn get<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, ModelError> {
        let value = self.values.get(key).ok_or_else(|| self.missing(key))?;
        convert(value).ok_or_else(|| ModelError::KeyType {
            file: self.file,
            key: self.full(key),
            found: shown(value),
            expected,
        })
    }

    fn within<T: PartialOrd + Debug>(
        &self,
        key: &str,
        found: T,
        bounds: &RangeInclusive<T>,
    ) -> Result<T, ModelError> {
        if bounds.contains(&found) {
            return Ok(found);
        }
        Err(ModelError::Range {
            file: self.file,
            key: self.full(key),
            found: format!("`{found:?}`"),
            low: format!("{:?}", bounds.start()),
            high: format!("{:?}", bounds.end()),
        })
    }
}

/// Whole numbers of any size JSON's own parser keeps; `448.0` is not one.
fn whole(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

/// A value as it stands in the file, cut to a length that fits a line.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) if items.len() > 8 => format!("a list of {}", items.len()),
        other => quoted(&other.to_string()),
    }
}

/// The parser's words, without the list of all it would have taken.
pub(crate) fn words(error: &serde_json::Error) -> String {
    let text = error.to_string().replace("expected a map", "expected an object");
    let text = text.replace("missing field", "there is no key");
    match (text.split_once(", expected one of"), text.split_once(" at line ")) {
        (Some((start, _)), Some((_, place))) => format!("{start} at line {place}"),
        _ => text,
    }
}

/// The text of an ordinary file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ModelError> {
    let refuse = |because: String| ModelError::Read { path: path.to_owned(), because };
    let facts = fs::metadata(path).map_err(|error| ModelError::read(path, &error))?;
    if !facts.is_file() {
        return Err(refuse("it is not an ordinary file".to_owned()));
    }
    if facts.len() > limit {
        return Err(refuse(format!("it has {} bytes, more than {limit}", facts.len())));
    }
    let bytes = fs::read(path).map_err(|error| ModelError::read(path, &error))?;
    String::from_utf8(bytes).map_err(|_| ModelError::Json {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        because: "it is not UTF-8 text".to_owned(),
    })
}

/// What `tokenizer.json` says about ids; how text is cut into tokens is the runtime's business.
#[derive(Debug, Clone, Default)]
pub struct RawTokenizer {
    /// Ids of the added tokens, by their text.
    pub added: BTreeMap<String, u64>,
    /// The largest id of the vocabulary or of an added token.
    pub largest_id: u64,
}

impl RawTokenizer {
    /// Read ids out of the text of a `tokenizer.json`, keeping nothing else of it.
    ///
    /// Refuses a text of another shape, and an added token that is listed with two ids.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let refuse = |because| ModelError::Json { file: "tokenizer.json".to_owned(), because };
        let file: TokenizerFile =
            serde_json::from_str(text).map_err(|error| refuse(words(&error)))?;
        let mut added = BTreeMap::new();
        let mut largest_id = file.model.vocab.0;
        for AddedToken { id, content } in file.added_tokens {
            largest_id = largest_id.max(id);
            match added.insert(content.clone(), id) {
                Some(other) if other != id => {
                    return Err(refuse(format!(
                        "added token `{content}` has ids {other} and {id}"
                    )));
                }
                _ => {}
            }
        }
        Ok(Self { added, largest_id })
    }
}

#[derive(Deserialize)]
struct TokenizerFile {
    added_tokens: Vec<AddedToken>,
    model: TokenizerModel,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
    content: String,
}

#[derive(Deserialize)]
struct TokenizerModel {
    vocab: LargestId,
}

/// The largest value of an object of ids; its 151,643 keys are not kept.
struct LargestId(u64);

impl<'de> Deserialize<'de> for LargestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Largest;
        impl<'de> Visitor<'de> for Largest {
            type Value = LargestId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LargestId, A::Error> {
                let mut largest = 0;
                while let Some((_, id)) = map.next_entry::<serde::de::IgnoredAny, u64>()? {
                    largest = largest.max(id);
                }
                Ok(LargestId(largest))
            }
        }
        deserializer.deserialize_map(Largest)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&sail_ir::help::report(&RawTokenizer::parse(text).unwrap_err()));
    }

    #[test]
    fn ids_are_read_and_nothing_else() {
        let text = r#"{"added_tokens": [{"id": 7, "content": "<img>", "special": true}],
                       "model": {"type": "BPE", "vocab": {"a": 0, "b": 9, "c": 4}, "merges": []}}"#;
        let tokenizer = RawTokenizer::parse(text).unwrap();
        assert_eq!(tokenizer.added.into_iter().collect::<Vec<_>>(), [("<img>".to_owned(), 7)]);
        assert_eq!(tokenizer.largest_id, 9);
    }

    #[test]
    fn a_tokenizer_of_another_shape_is_refused() {
        check(
            r#"{"added_tokens": [], "model": {}}"#,
            expect![[r#"
            error[SC0202]: `tokenizer.json` is not what it should be
              because there is no key `vocab` at line 1 column 32"#]],
        );
        check(
            r#"{"added_tokens": [], "model": {"vocab": ["a"]}}"#,
            expect![[r#"
            error[SC0202]: `tokenizer.json` is not what it should be
              because invalid type: sequence, expected an object of token ids at line 1 column 40"#]],
        );
        check(
            r#"{"added_tokens": [], "model": {"vocab": {"a": -1}}}"#,
            expect![[r#"
            error[SC0202]: `tokenizer.json` is not what it should be
              because invalid value: integer `-1`, expected u64 at line 1 column 48"#]],
        );
        check(
            r#"{"added_tokens": [{"id": "7"}], "model": {"vocab": {}}}"#,
            expect![[r#"
            error[SC0202]: `tokenizer.json` is not what it should be
              because invalid type: string "7", expected u64 at line 1 column 28"#]],
        );
        let twice = r#"[{"id": 7, "content": "<img>"}, {"id": 8, "content": "<img>"}]"#;
        check(
            &format!(r#"{{"added_tokens": {twice}, "model": {{"vocab": {{}}}}}}"#),
            expect![[r#"
            error[SC0202]: `tokenizer.json` is not what it should be
              because added token `<img>` has ids 7 and 8"#]],
        );
    }
}
