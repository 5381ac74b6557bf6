//! Write a random checkpoint of any size in the published layout, to try and time things with.
//!
//! Streams: memory stays at one buffer whatever the size. What is written is what
//! `--weights random:SEED` would compute, so both give the same model.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sail_ir::artifact::Tiling;
use serde_json::json;

use crate::byte_tokenizer;
use crate::error::{ModelError, quoted};
use crate::hf_config::{JsonObject, RawConfig};
use crate::layout::{self, WeightFile};
use crate::random::RandomWeights;

/// `config.json` of each published size, by the name that `synth` takes.
///
/// The first is the published file; the next two are derived from it and the public numbers of
/// Qwen3-8B and Qwen3-30B-A3B. The last is no published size: six decoder layers of 30B-A3B behind
/// a vision tower of one small layer, what a machine with little memory can time experts with.
pub const SIZES: &[(&str, &str)] = &[
    ("2b", include_str!("../configs/sail-vl2-2b.json")),
    ("8b", include_str!("../configs/sail-vl2-8b.json")),
    ("30b-a3b", include_str!("../configs/sail-vl2-30b-a3b.json")),
    ("a3b-l6", include_str!("../configs/a3b-l6.json")),
];

/// `config.json` of the published size called `name`.
pub fn published(name: &str) -> Result<&'static str, ModelError> {
    let known = || SIZES.iter().map(|(size, _)| format!("`{size}`")).collect::<Vec<_>>().join(", ");
    SIZES
        .iter()
        .find(|(size, _)| *size == name)
        .map(|(_, config)| *config)
        .ok_or_else(|| ModelError::UnknownSize { found: quoted(name), known: known() })
}

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct Synth<'a> {
    /// The text of `config.json`; it is written as it is.
    pub config: &'a str,
    pub seed: u64,
    /// Number of shards, at most one per tensor; none: as many as files of 5 GB take.
    pub shards: Option<u64>,
    /// A `tokenizer.json` to copy; none: one is made that knows single bytes and the family's
    /// added tokens, with the ids that `config` implies.
    pub tokenizer: Option<&'a Path>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Weight files, in order.
    pub shards: Vec<String>,
    pub tensors: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
}

impl Synth<'_> {
    /// Write the checkpoint to the folder `out`, under another name until it is complete.
    ///
    /// `progress` is told the bytes of tensors written so far, and of all; it says whether to go on.
    ///
    /// Refuses a folder that has something in it, and a config that [`crate::open`] would refuse.
    /// Nothing is left behind by what was refused or given up.
    pub fn write(
        &self,
        out: &Path,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Written, ModelError> {
        if fs::read_dir(out).map_or(out.exists(), |mut entries| entries.next().is_some()) {
            return Err(ModelError::Exists { path: out.to_owned() });
        }
        let folder = Unfinished::create(out)?;
        self.write_texts(&folder)?;
        let raw = RawConfig::read(&folder.path)?;
        let family = crate::family(&raw)?;
        let tensors = (family.tensors)(&(family.spec)(&raw)?);
        let weights = RandomWeights::new(self.seed, &tensors);
        let shards = layout::cut(tensors, self.shards);
        if shards.len() > 1 {
            folder.write("model.safetensors.index.json", layout::index(&shards).as_bytes())?;
        }
        let total = shards.iter().map(WeightFile::bytes).sum();
        let mut done = 0;
        for shard in &shards {
            let path = folder.path.join(&shard.name);
            let mut tell = |bytes| {
                done += bytes;
                progress(done, total)
            };
            write_shard(&path, shard, &weights, &mut tell)?;
        }
        folder.finish(out)?;
        Ok(Written {
            tensors: shards.iter().map(|shard| shard.tensors.len() as u64).sum(),
            bytes: total,
            shards: shards.into_iter().map(|shard| shard.name).collect(),
        })
    }

    fn write_texts(&self, folder: &Unfinished) -> Result<(), ModelError> {
        let config = JsonObject::parse("config.json", self.config)?;
        let tokenizer = match self.tokenizer {
            Some(path) => fs::read(path).map_err(|error| ModelError::read(path, &error))?,
            None => byte_tokenizer::bytes_only(&config)?.into_bytes(),
        };
        let vision = config.object("vision_config")?;
        let preprocessor = json!({
            "max_dynamic_patch": Tiling::default().max_tiles,
            "patch_size": vision.size("patch_size", 0..=u64::MAX)?,
            "image_size": vision.size("image_size", 0..=u64::MAX)?,
            "use_msac": false,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        });
        folder.write("config.json", self.config.as_bytes())?;
        folder.write("preprocessor_config.json", format!("{preprocessor:#}\n").as_bytes())?;
        folder.write("generation_config.json", b"{\"_from_model_config\": true}\n")?;
        folder.write("tokenizer.json", &tokenizer)
    }
}

/// Bytes that are drawn and written at a time.
const BUFFER_BYTES: u64 = 4 << 20;

fn write_shard(
    path: &Path,
    shard: &WeightFile,
    weights: &RandomWeights,
    tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), ModelError> {
    let refuse = |error| ModelError::write(path, &error);
    let mut file = File::create_new(path).map_err(refuse)?;
    file.write_all(&shard.header()).map_err(refuse)?;
    let mut buffer = vec![0; BUFFER_BYTES as usize];
    for tensor in &shard.tensors {
        let mut at = 0;
        while at < tensor.bytes() {
            let bytes = BUFFER_BYTES.min(tensor.bytes() - at);
            let chunk = &mut buffer[..bytes as usize];
            weights.fill(&tensor.name, at / 2, chunk);
            file.write_all(chunk).map_err(refuse)?;
            at += bytes;
            if tell(bytes).is_break() {
                return Err(ModelError::Interrupted);
            }
        }
    }
    file.sync_all().map_err(refuse)
}

/// A folder beside the one asked for, removed again unless it is finished.
struct Unfinished {
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn create(out: &Path) -> Result<Self, ModelError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let path = out.with_file_name(name);
        fs::create_dir(&path).map_err(|error| ModelError::write(&path, &error))?;
        Ok(Self { path, finished: false })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| ModelError::write(&path, &error))
    }

    /// Give the folder the name asked for. An empty folder of that name is replaced.
    fn finish(mut self, out: &Path) -> Result<(), ModelError> {
        let rename = || {
            File::open(&self.path)?.sync_all()?;
            fs::rename(&self.path, out)?;
            match out.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            }
        };
        rename().map_err(|error| ModelError::write(out, &error))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done with a folder that cannot be removed than to leave it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow::{Break, Continue};

    use expect_test::expect;
    use serde_json::json;

    use sail_ir::Help;

    use super::*;
    use crate::testing::{config, edited, message};
    use crate::weights::WeightSource;

    fn order(config: &str) -> Synth<'_> {
        Synth { config, seed: 3, shards: Some(2), tokenizer: None }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_has_the_published_layout_and_opens() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut told = Vec::new();
        let mut tell = |done, all| {
            told.push((done, all));
            Continue(())
        };
        let config = config();
        let written = order(&config).write(&out, &mut tell).unwrap();
        expect![[r#"
            Written {
                shards: [
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                ],
                tensors: 81,
                bytes: 159688,
            }
        "#]]
        .assert_debug_eq(&written);
        expect![[r#"
            config.json
            generation_config.json
            model-00001-of-00002.safetensors
            model-00002-of-00002.safetensors
            model.safetensors.index.json
            preprocessor_config.json
            tokenizer.json"#]]
        .assert_eq(&names(&out).join("\n"));
        assert_eq!(told.last(), Some(&(written.bytes, written.bytes)));
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read_to_string(out.join("config.json")).unwrap(), config);
        crate::open(&out, WeightSource::Checkpoint).unwrap();
    }

    #[test]
    fn a_given_tokenizer_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let config = config();
        order(&config).write(&first, &mut |_, _| Continue(())).unwrap();
        let tokenizer = first.join("tokenizer.json");
        crate::testing::rewrite(&tokenizer, |text| text + "\n");
        let synth = Synth { tokenizer: Some(&tokenizer), ..order(&config) };
        synth.write(&second, &mut |_, _| Continue(())).unwrap();
        assert_eq!(fs::read(&tokenizer).unwrap(), fs::read(second.join("tokenizer.json")).unwrap());
    }

    #[test]
    fn an_empty_folder_is_filled_and_a_full_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = config();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        order(&config).write(&out, &mut |_, _| Continue(())).unwrap();
        let before = names(&out);
        let error = order(&config).write(&out, &mut |_, _| Continue(())).unwrap_err();
        expect![[r#"
            error[SC0232]: `DIR/out` exists and is not empty

            hint: name a folder that does not exist yet"#]]
        .assert_eq(&message(&error, folder.path()));
        assert_eq!((names(&out), names(folder.path())), (before, vec!["out".to_owned()]));
    }

    #[test]
    fn a_config_that_is_refused_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let refuse = |pointer, value| {
            let config = edited(&config(), pointer, Some(value));
            let error = order(&config).write(&folder.path().join("out"), &mut |_, _| Continue(()));
            assert!(names(folder.path()).is_empty());
            message(&error.unwrap_err(), folder.path())
        };
        expect![[r#"
            error[SC0206]: `ps_version` `v1` is not supported
              in `config.json`
              because only `v2` is"#]]
        .assert_eq(&refuse("/ps_version", json!("v1")));
        expect![[r#"
            error[SC0234]: no room for a tokenizer of single bytes
              in `config.json`
              because `llm_config.eos_token_id` is 260; with `llm_config.vocab_size` 292 it must be 258 to 259"#]].assert_eq(&refuse("/llm_config/vocab_size", json!(292)));
        expect![[r#"
            error[SC0234]: no room for a tokenizer of single bytes
              in `config.json`
              because `llm_config.eos_token_id` is 3; with `llm_config.vocab_size` 300 it must be 258 to 267"#]].assert_eq(&refuse("/llm_config/eos_token_id", json!(3)));
        let nowhere = folder.path().join("no/such");
        let error =
            order(&config()).write(&nowhere.join("out"), &mut |_, _| Continue(())).unwrap_err();
        let text = message(&error, folder.path()).replace(&std::process::id().to_string(), "ID");
        expect![[r#"
            error[SC0233]: cannot write `DIR/no/such/.out.ID.part`
              because there is no such file or folder"#]]
        .assert_eq(&text);
    }

    #[test]
    fn writing_that_is_given_up_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut stop = |_, _| Break(());
        let error = order(&config()).write(&folder.path().join("out"), &mut stop).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("SC0235", 130));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_full_disk_has_its_exit_code_and_hint() {
        let error = ModelError::write(Path::new("out"), &std::io::ErrorKind::StorageFull.into());
        assert_eq!(error.exit_code(), 7);
        expect![[r#"
            error[SC0233]: cannot write `out`
              because the disk is full

            hint: free some space, or write to another disk with `-o`"#]]
        .assert_eq(&sail_ir::help::report(&error));
    }

    #[test]
    fn an_unknown_size_is_refused() {
        expect![[r#"
            model size `4b` is not known
              because `sailc` knows `2b`, `8b`, `30b-a3b`, `a3b-l6`"#]]
        .assert_eq(&published("4b").unwrap_err().to_string());
    }
}
