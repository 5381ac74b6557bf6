//! A tokenizer from the contents of its `tokenizer.json`.
//!
//! The library reads such a file as a tree of values first, from which it makes the vocabulary and the
//! merges; a program with 151,643 words and as many merges opened in 0.36 to 0.42 s that way. Here both are
//! read where they end up, beside each other, and all else is left to the library; and what the words are is
//! noted on the way, since the library only gives a copy of all of them. That makes it 0.18 to 0.25 s.

use std::fmt;
use std::ops::Range;
use std::thread;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer,
};

/// Largest id a tokenizer may use; the released ones end at 151,677.
pub(super) const MAX_ID: u32 = 0xff_ffff;

/// A tokenizer, and the words that its model knows.
///
/// Refuses, without a reason, what the library refuses, and ids beyond [`MAX_ID`].
pub(super) fn read(json: &[u8]) -> Option<(Tokenizer, Learned)> {
    let file = serde_json::from_slice::<File<'_>>(json).ok();
    file.and_then(File::tokenizer).or_else(|| {
        // Not byte-pair encoding, or no tokenizer at all.
        let tokenizer = Tokenizer::from_bytes(json).ok()?;
        let mut learned = Learned::default();
        for (word, id) in tokenizer.get_vocab(false) {
            learned.note(&word, id)?;
        }
        Some((tokenizer, learned))
    })
}

/// Words by id, in one text.
#[derive(Default)]
pub(super) struct Learned {
    text: String,
    spans: Vec<Range<usize>>,
}

impl Learned {
    /// Refuses an id beyond [`MAX_ID`].
    fn note(&mut self, word: &str, id: u32) -> Option<()> {
        if id > MAX_ID {
            return None;
        }
        let (id, start) = (id as usize, self.text.len());
        self.text.push_str(word);
        if id >= self.spans.len() {
            self.spans.resize(id + 1, 0..0);
        }
        self.spans[id] = start..self.text.len();
        Some(())
    }

    /// The word of each id from 0 on; empty for an id without one.
    pub fn words(&self) -> Vec<&str> {
        self.spans.iter().map(|span| &self.text[span.clone()]).collect()
    }
}

#[derive(Deserialize)]
struct File<'a> {
    version: String,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    #[serde(borrow)]
    model: Model<'a>,
}

/// The model `BPE`.
#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    /// Read later, one beside the other: they are nearly all of the file.
    #[serde(borrow)]
    vocab: &'a RawValue,
    #[serde(borrow)]
    merges: &'a RawValue,
}

#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "BPE")]
    BytePairs,
}

impl File<'_> {
    fn tokenizer(self) -> Option<(Tokenizer, Learned)> {
        if self.version != "1.0" {
            return None;
        }
        let (model, learned) = self.model.build()?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(self.normalizer).ok()?;
        tokenizer.with_pre_tokenizer(self.pre_tokenizer);
        tokenizer.with_post_processor(self.post_processor);
        tokenizer.with_decoder(self.decoder);
        // Their ids follow from the model, which must be there before.
        tokenizer.add_tokens(self.added_tokens).ok()?;
        Some((tokenizer, learned))
    }
}

impl Model<'_> {
    fn build(self) -> Option<(BPE, Learned)> {
        let Kind::BytePairs = self.kind;
        let merges = || serde_json::from_str::<Vec<Merge>>(self.merges.get()).ok();
        let (words, merges) = thread::scope(|scope| {
            let beside = thread::Builder::new().spawn_scoped(scope, merges);
            let words = serde_json::from_str::<Words>(self.vocab.get()).ok();
            // Where the system starts no thread, one after the other.
            (words, beside.map_or_else(|_| merges(), |thread| thread.join().ok().flatten()))
        });
        let Words(vocab, learned) = words?;
        let merges = merges?.into_iter().map(|Merge(pair)| pair).collect();
        let mut model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .fuse_unk(self.fuse_unk)
            .byte_fallback(self.byte_fallback)
            .ignore_merges(self.ignore_merges);
        if let Some(token) = self.unk_token {
            model = model.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            model = model.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            model = model.end_of_word_suffix(suffix);
        }
        Some((model.build().ok()?, learned))
    }
}

/// Ids of words, and the same by id.
struct Words(Vocab, Learned);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ids of words")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut words = Vocab::with_capacity(1 << 18);
                let mut learned = Learned::default();
                while let Some((word, id)) = map.next_entry::<String, u32>()? {
                    learned.note(&word, id).ok_or_else(|| A::Error::custom("a large id"))?;
                    // A word that stands there twice has its last id.
                    if let Some(before) = words.insert(word, id).filter(|before| *before != id) {
                        learned.spans[before as usize] = 0..0;
                    }
                }
                Ok(Words(words, learned))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// Two words that become one: `["a", "b"]`, in older files `"a b"`.
struct Merge((String, String));

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two words")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Merge, E> {
                let words = text.split_once(' ').filter(|(_, second)| !second.contains(' '));
                let (first, second) = words.ok_or_else(|| E::custom("not two words"))?;
                Ok(Merge((first.to_owned(), second.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let mut word = || {
                    seq.next_element::<String>()?.ok_or_else(|| A::Error::custom("not two words"))
                };
                let words = (word()?, word()?);
                match seq.next_element::<String>()? {
                    None => Ok(Merge(words)),
                    Some(_) => Err(A::Error::custom("not two words")),
                }
            }
        }
        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file() -> Value {
        let word = |id: usize, word: &str| (word.to_owned(), Value::from(id));
        let words = ["a", "b", "c", "ab", "abc"];
        let vocab: serde_json::Map<String, Value> =
            words.iter().enumerate().map(|(id, text)| word(id, text)).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [
                {"id": 5, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true},
                {"id": 1, "content": "b", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": true, "special": false},
            ],
            "normalizer": {"type": "Lowercase"}, "pre_tokenizer": null, "post_processor": null,
            "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": "c",
                "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": true,
                "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
                "merges": [["a", "b"], ["ab", "c"]]},
        })
    }

    #[test]
    fn reads_what_the_library_reads() {
        let mut older = file();
        older["model"]["merges"] = json!(["a b", "ab c"]);
        for file in [file(), older] {
            let text = file.to_string();
            let (ours, learned) = read(text.as_bytes()).unwrap();
            let theirs = Tokenizer::from_bytes(&text).unwrap();
            assert_eq!(learned.words(), ["a", "b", "c", "ab", "abc"]);
            assert_eq!(ours.to_string(false).unwrap(), theirs.to_string(false).unwrap());
            let ids = |tokenizer: &Tokenizer| {
                tokenizer.encode("ABC ac<end>xx", false).unwrap().get_ids().to_vec()
            };
            assert_eq!(ids(&ours), ids(&theirs));
        }
    }

    #[test]
    fn refuses_what_the_library_refuses() {
        let broken = |change: fn(&mut Value)| {
            let mut file = file();
            change(&mut file);
            let text = file.to_string();
            assert!(Tokenizer::from_bytes(&text).is_err(), "{text}");
            assert!(read(text.as_bytes()).is_none(), "{text}");
        };
        broken(|file| file["version"] = json!("2.0"));
        broken(|file| file["model"]["merges"] = json!([["a", "z"]]));
        broken(|file| file["model"]["merges"] = json!([["a", "b", "c"]]));
        broken(|file| file["model"]["merges"] = json!(["ab"]));
        broken(|file| file["model"]["vocab"] = json!(["a"]));
        broken(|file| file["model"]["type"] = json!("None"));
        broken(|file| file["decoder"] = json!({"type": "None"}));
        assert!(read(b"{}").is_none());
    }

    #[test]
    fn leaves_models_of_other_kinds_to_the_library() {
        let mut file = file();
        file["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        let (tokenizer, learned) = read(file.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.get_vocab_size(false), 1);
        assert_eq!(learned.words(), ["a"]);
    }

    #[test]
    fn a_word_that_stands_there_twice_has_its_last_id() {
        let text = file().to_string().replace(r#""a":0"#, r#""a":0,"a":7"#);
        let (tokenizer, learned) = read(text.as_bytes()).unwrap();
        assert_eq!(tokenizer.token_to_id("a"), Some(7));
        assert_eq!(learned.words(), ["", "b", "c", "ab", "abc", "", "", "a"]);
    }

    #[test]
    fn refuses_ids_that_no_tokenizer_has() {
        let mut file = file();
        file["model"]["vocab"]["c"] = json!(MAX_ID);
        assert!(read(file.to_string().as_bytes()).is_some());
        file["model"]["vocab"]["c"] = json!(MAX_ID + 1);
        assert!(read(file.to_string().as_bytes()).is_none());
    }
}
