//! Why a checkpoint cannot be compiled, in words its owner can act on.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sail_ir::Help;

/// Every variant is the *user's* to fix. Our own mistakes panic and name the broken invariant.
///
/// Files are named as in the folder (`config.json`, `model-00001-of-00002.safetensors`); only
/// [`ModelError::Read`], [`ModelError::NoWeights`] and those about writing give whole paths.
#[derive(Debug)]
pub enum ModelError {
    /// A file or folder of the checkpoint cannot be read, or is larger than such a file can be.
    Read { path: PathBuf, because: String },
    /// What should be the folder of a checkpoint is a file, or not there.
    NoFolder { path: PathBuf, because: String },
    /// A file that should be JSON is not, or has another shape than its kind of file has.
    Json { file: String, because: String },
    /// A key that decides something is absent: the class defaults of the published code are not used.
    MissingKey { file: &'static str, key: String },
    /// A key has a value of another type.
    KeyType { file: &'static str, key: String, found: String, expected: &'static str },
    /// The checkpoint is of a family that is not known here.
    UnknownModel { key: &'static str, found: String, known: String },
    /// The value has a meaning, but not one that is supported.
    Unsupported { file: &'static str, key: String, found: String, supported: String },
    /// A number outside of what any model of the family can have.
    Range { file: &'static str, key: String, found: String, low: String, high: String },
    /// Two values that must fit together do not.
    Disagree { file: &'static str, what: String, because: String },
    /// `tokenizer.json` has no such added token.
    MissingToken { token: &'static str },
    /// A token id has no row in the embedding table.
    TokenBeyondVocabulary { file: &'static str, token: String, id: u64, rows: u64 },
    /// Sizes multiply to more than can be addressed.
    TooLarge { because: String },
    /// The folder holds no weights.
    NoWeights { dir: PathBuf, found: Option<String> },
    /// `model.safetensors.index.json` and the folder do not fit together.
    Index { what: String, because: Option<String> },
    /// A shard that the index names is not there.
    NoShard { shard: String },
    /// A shard ends before its tensors do.
    Truncated { shard: String, needs: u64, has: u64 },
    /// The head of a shard is damaged.
    Header { shard: String, because: String },
    /// One name, two tensors.
    Duplicate { tensor: String, place: String },
    /// No shard holds a tensor that the model needs.
    Missing {
        tensor: String,
        place: String,
        others: usize,
        because: &'static str,
        similar: Option<String>,
    },
    /// A tensor that no part of the model reads: leaving it out could change what is computed.
    Unread { tensor: String, shard: String, others: usize },
    /// The tensor is there, with another shape than `config.json` implies.
    Shape { tensor: String, shard: String, shapes: Box<Shapes>, because: String },
    /// The tensor is there, with another element type than the model's.
    Dtype { tensor: String, shard: String, found: String },
    /// `--weights` is neither absent nor `random:SEED`.
    WeightSource { found: String },
    /// A model size that `synth` does not know.
    UnknownSize { found: String, known: String },
    /// The folder to be written is there already.
    Exists { path: PathBuf },
    /// The checkpoint to be written cannot be.
    Write { path: PathBuf, because: String, full: bool },
    /// Somebody asked for the writing to stop.
    Interrupted,
    /// The ids that `config.json` gives do not leave room for a tokenizer of bytes.
    NoRoomForTokenizer { because: String },
}

/// Two shapes that differ.
#[derive(Debug)]
pub struct Shapes {
    pub found: Vec<u64>,
    pub expected: Vec<u64>,
}

impl ModelError {
    pub(crate) fn read(path: &Path, error: &io::Error) -> Self {
        Self::Read { path: path.to_owned(), because: plain(error) }
    }

    /// Refuses what is no folder.
    pub(crate) fn unless_folder(path: &Path) -> Result<(), Self> {
        let because = match fs::metadata(path) {
            Ok(there) if there.is_dir() => return Ok(()),
            Ok(_) => "it is no folder".to_owned(),
            Err(error) => plain(&error),
        };
        Err(Self::NoFolder { path: path.to_owned(), because })
    }

    pub(crate) fn write(path: &Path, error: &io::Error) -> Self {
        let full = error.kind() == io::ErrorKind::StorageFull;
        Self::Write { path: path.to_owned(), because: plain(error), full }
    }
}

/// A string of a file in backticks, cut to what fits a line, with nothing that moves a cursor.
pub(crate) fn quoted(text: &str) -> String {
    let mut short = String::from("`");
    for letter in text.chars().take(80) {
        match letter.is_control() {
            true => short.extend(letter.escape_unicode()),
            false => short.push(letter),
        }
    }
    short + if text.chars().nth(80).is_some() { "…`" } else { "`" }
}

/// The system's words, without the trailing error number, in lower case.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read or write it".to_owned(),
        io::ErrorKind::UnexpectedEof => "it ended early".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, because } => {
                write!(f, "cannot read `{}`\n  because {because}", path.display())
            }
            Self::NoFolder { path, because } => {
                write!(f, "`{}` is no checkpoint\n  because {because}", path.display())
            }
            Self::Json { file, because } => {
                write!(f, "`{file}` is not what it should be\n  because {because}")
            }
            Self::MissingKey { file, key } => write!(f, "no key `{key}`\n  in `{file}`"),
            Self::KeyType { file, key, found, expected } => {
                write!(f, "`{key}` is {found}, expected {expected}\n  in `{file}`")
            }
            Self::UnknownModel { key, found, known } => write!(
                f,
                "model {found} is not supported\n  in `config.json`, key `{key}`\n  because `sailc` knows {known}"
            ),
            Self::Unsupported { file, key, found, supported } => write!(
                f,
                "`{key}` {found} is not supported\n  in `{file}`\n  because only {supported} is"
            ),
            Self::Range { file, key, found, low, high } => {
                write!(f, "`{key}` is {found}, expected {low} to {high}\n  in `{file}`")
            }
            Self::Disagree { file, what, because } => {
                write!(f, "{what}\n  in `{file}`\n  because {because}")
            }
            Self::MissingToken { token } => {
                write!(f, "no added token `{token}`\n  in `tokenizer.json`")
            }
            Self::TokenBeyondVocabulary { file, token, id, rows } => write!(
                f,
                "{token} has id {id}, the embedding table has {rows} rows\n  in `{file}`\n  because `llm_config.vocab_size` is {rows}"
            ),
            Self::TooLarge { because } => {
                write!(f, "the model is too large\n  in `config.json`\n  because {because}")
            }
            _ => self.fmt_weights(f),
        }
    }
}

impl ModelError {
    /// The half of `Display` that speaks of tensors and of written files.
    fn fmt_weights(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWeights { dir, found } => {
                write!(f, "no weights in `{}`", dir.display())?;
                match found {
                    Some(found) => write!(f, "\n  because `{found}` is not a safetensors file"),
                    None => write!(
                        f,
                        "\n  because there is neither `model.safetensors` nor `model.safetensors.index.json`"
                    ),
                }
            }
            Self::Index { what, because } => {
                write!(f, "{what}\n  in `model.safetensors.index.json`")?;
                because.iter().try_for_each(|because| write!(f, "\n  because {because}"))
            }
            Self::NoShard { shard } => {
                write!(f, "shard `{shard}` is not there\n  in `model.safetensors.index.json`")
            }
            Self::Truncated { shard, needs, has } => write!(
                f,
                "shard `{shard}` is truncated\n  because its header and tensors need {needs} bytes and the file has {has}"
            ),
            Self::Header { shard, because } => {
                write!(f, "shard `{shard}` is damaged\n  because {because}")
            }
            Self::Duplicate { tensor, place } => {
                write!(f, "tensor `{tensor}` is there twice\n  in {place}")
            }
            Self::Missing { tensor, place, others, because, .. } => write!(
                f,
                "no tensor `{tensor}`{}\n  in `{place}`\n  because {because}",
                and_others(*others)
            ),
            Self::Unread { tensor, shard, others } => write!(
                f,
                "no part of the model reads tensor `{tensor}`{}\n  in `{shard}`",
                and_others(*others)
            ),
            Self::Shape { tensor, shard, shapes, because } => write!(
                f,
                "tensor `{tensor}` has shape {:?}, expected {:?}\n  in `{shard}`\n  because {because}",
                shapes.found, shapes.expected
            ),
            Self::Dtype { tensor, shard, found } => write!(
                f,
                "tensor `{tensor}` has element type {found}, expected BF16\n  in `{shard}`\n  because `torch_dtype` is `bfloat16`"
            ),
            Self::WeightSource { found } => {
                write!(
                    f,
                    "weights {found} are not known\n  because only `random:SEED` is, with SEED a whole number below 2^64"
                )
            }
            Self::UnknownSize { found, known } => {
                write!(f, "model size {found} is not known\n  because `sailc` knows {known}")
            }
            Self::Exists { path } => write!(f, "`{}` exists and is not empty", path.display()),
            Self::Write { path, because, .. } => {
                write!(f, "cannot write `{}`\n  because {because}", path.display())
            }
            Self::Interrupted => {
                write!(f, "interrupted\n  because a signal came; nothing was written")
            }
            Self::NoRoomForTokenizer { because } => write!(
                f,
                "no room for a tokenizer of single bytes\n  in `config.json`\n  because {because}"
            ),
            _ => unreachable!("broken invariant `error.display`: {self:?} has no sentence"),
        }
    }
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(", nor {others} other{}", if others == 1 { "" } else { "s" }),
    }
}

impl Help for ModelError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::NoFolder { .. } => "SC0201",
            Self::Json { .. } => "SC0202",
            Self::MissingKey { .. } => "SC0203",
            Self::KeyType { .. } => "SC0204",
            Self::UnknownModel { .. } => "SC0205",
            Self::Unsupported { .. } => "SC0206",
            Self::Range { .. } => "SC0207",
            Self::Disagree { .. } => "SC0208",
            Self::MissingToken { .. } => "SC0209",
            Self::TokenBeyondVocabulary { .. } => "SC0210",
            Self::TooLarge { .. } => "SC0211",
            Self::NoWeights { .. } => "SC0220",
            Self::Index { .. } | Self::NoShard { .. } => "SC0221",
            Self::Truncated { .. } => "SC0222",
            Self::Header { .. } => "SC0223",
            Self::Duplicate { .. } => "SC0224",
            Self::Missing { .. } => "SC0225",
            Self::Unread { .. } => "SC0226",
            Self::Shape { .. } => "SC0227",
            Self::Dtype { .. } => "SC0228",
            Self::WeightSource { .. } => "SC0230",
            Self::UnknownSize { .. } => "SC0231",
            Self::Exists { .. } => "SC0232",
            Self::Write { .. } => "SC0233",
            Self::NoRoomForTokenizer { .. } => "SC0234",
            Self::Interrupted => "SC0235",
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Read { path, .. } => return hint_for_file(path),
            Self::NoFolder { .. } => {
                "name the folder of `config.json`; `sail inspect` shows a `.sail` file"
            }
            Self::MissingKey { key, .. } => return Some(hint_for_missing_key(key)),
            Self::UnknownModel { .. } => {
                "the four released SAIL-VL2 checkpoints have `model_type` `sailvl`"
            }
            Self::MissingToken { .. } => {
                "take `tokenizer.json` from the same revision as `config.json`"
            }
            Self::TokenBeyondVocabulary { .. } => {
                "`tokenizer.json` and `config.json` are of different models; take both from one revision"
            }
            Self::NoWeights { found: None, .. } => {
                "`--weights random:1` compiles the shapes without any weights"
            }
            Self::NoWeights { found: Some(_), .. } => "save the checkpoint again as safetensors",
            Self::NoShard { .. } | Self::Truncated { .. } | Self::Header { .. } => {
                "fetch the checkpoint again"
            }
            Self::Missing { similar, .. } => {
                return similar.as_ref().map(|name| format!("the checkpoint has `{name}`"));
            }
            Self::Unread { .. } => {
                "leaving it out could change what is computed, so it is refused; is this another model with the same `model_type`?"
            }
            Self::Shape { .. } => {
                "`config.json` and the weights are of different models; fetch both from one revision"
            }
            Self::Dtype { .. } => {
                "save the checkpoint in bfloat16 first; nothing is rounded behind your back"
            }
            Self::Exists { .. } => "name a folder that does not exist yet",
            Self::Write { full: true, .. } => "free some space, or write to another disk with `-o`",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::WeightSource { .. } | Self::UnknownSize { .. } => 2,
            Self::Write { full: true, .. } => 7,
            Self::Exists { .. } | Self::Write { .. } => 1,
            Self::Interrupted => 130,
            _ => 3,
        }
    }
}

fn hint_for_file(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let known = ["config.json", "preprocessor_config.json", "tokenizer.json"].contains(&name);
    known.then(|| {
        "a checkpoint folder has `config.json`, `preprocessor_config.json` and `tokenizer.json` beside its weights".to_owned()
    })
}

/// What the released checkpoints say, for keys whose class default is another.
fn hint_for_missing_key(key: &str) -> String {
    let released = match key {
        "select_layer" => "-1, the default of the published class is -4",
        "ps_version" => "`v2`, the default of the published class is `v1`",
        "max_dynamic_patch" => {
            "10 in `preprocessor_config.json`, the default of the published class is 6"
        }
        _ => {
            return "take the file from the same revision as the weights; no default is filled in"
                .to_owned();
        }
    };
    format!("the released checkpoints say {released}; no default is filled in")
}

impl std::error::Error for ModelError {}
