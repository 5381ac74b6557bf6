//! A named set of prompts with pictures, read from a small JSON file.

use std::fs;
use std::path::{Path, PathBuf};

use sail_runtime::Picture;
use serde::Deserialize;

use super::QualityError;

/// A prompt set, its pictures read.
#[derive(Debug, Clone)]
pub struct PromptSet {
    pub name: String,
    /// Of everything that is asked, pictures included.
    pub blake3: String,
    pub prompts: Vec<Prompt>,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub text: String,
    /// Name and bytes.
    images: Vec<(String, Vec<u8>)>,
}

impl Prompt {
    #[must_use]
    pub fn pictures(&self) -> Vec<Picture<'_>> {
        self.images.iter().map(|(name, bytes)| Picture::encoded(name, bytes)).collect()
    }
}

/// As the file says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSet {
    name: String,
    prompts: Vec<RawPrompt>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrompt {
    prompt: String,
    #[serde(default)]
    images: Vec<String>,
}

impl PromptSet {
    /// Pictures are looked for beside the file.
    ///
    /// Refuses a file that cannot be read or is another JSON, a set without prompts, and pictures
    /// that cannot be read.
    pub fn open(path: &Path) -> Result<Self, QualityError> {
        let refuse = |because: String| {
            let path = path.display().to_string();
            QualityError::Prompts { path, because }
        };
        let read = |path: &Path| fs::read(path).map_err(|error| plain(&error));
        let text = read(path).map_err(|error| refuse(format!("it cannot be read: {error}")))?;
        let raw: RawSet =
            serde_json::from_slice(&text).map_err(|error| refuse(format!("it says: {error}")))?;
        if raw.prompts.is_empty() {
            return Err(refuse("it has no prompts".to_owned()));
        }
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let mut hasher = blake3::Hasher::new();
        let mut prompts = Vec::new();
        for RawPrompt { prompt, images } in raw.prompts {
            add(&mut hasher, prompt.as_bytes());
            let mut read_images = Vec::new();
            for name in images {
                let bytes = read(&folder.join(&name))
                    .map_err(|error| refuse(format!("picture `{name}` cannot be read: {error}")))?;
                add(&mut hasher, &bytes);
                read_images.push((name, bytes));
            }
            prompts.push(Prompt { text: prompt, images: read_images });
        }
        let blake3 = hasher.finalize().to_hex().to_string();
        Ok(Self { name: raw.name, blake3, prompts })
    }
}

impl PromptSet {
    /// The same set, where prompts without pictures are also asked about each of `images`.
    ///
    /// Refuses pictures that cannot be read.
    pub fn with_pictures(mut self, images: &[PathBuf]) -> Result<Self, QualityError> {
        let bare: Vec<Prompt> =
            self.prompts.iter().filter(|prompt| prompt.images.is_empty()).cloned().collect();
        for image in images {
            let path = image.display().to_string();
            let bytes = fs::read(image).map_err(|error| QualityError::Prompts {
                because: format!("picture `{path}` cannot be read: {}", plain(&error)),
                path: self.name.clone(),
            })?;
            self.prompts.extend(bare.iter().map(|prompt| Prompt {
                images: vec![(path.clone(), bytes.clone())],
                ..prompt.clone()
            }));
        }
        Ok(self)
    }
}

/// Each part with its length in front, so that no two lists of parts are alike.
fn add(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// The system's words without their number.
fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<PromptSet, QualityError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), b"pixels").unwrap();
        fs::write(folder.path().join("set.json"), text).unwrap();
        PromptSet::open(&folder.path().join("set.json"))
    }

    #[test]
    fn pictures_stand_beside_the_set_and_count_as_part_of_it() {
        let one = r#"{"name": "n", "prompts": [{"prompt": "what?", "images": ["a.png"]}]}"#;
        let set = open(one).unwrap();
        assert_eq!((set.name.as_str(), set.prompts.len()), ("n", 1));
        assert_eq!(set.prompts[0].pictures().len(), 1);
        let none = open(r#"{"name": "n", "prompts": [{"prompt": "what?"}]}"#).unwrap();
        assert_ne!(none.blake3, set.blake3);
        assert_eq!(open(one).unwrap().blake3, set.blake3);
    }

    #[test]
    fn refuses_what_cannot_be_asked() {
        let because = |text: &str| open(text).unwrap_err().to_string();
        assert!(because(r#"{"name": "n", "prompts": []}"#).contains("no prompts"));
        assert!(because(r#"{"name": "n", "prompt": []}"#).contains("unknown field"));
        let gone = r#"{"name": "n", "prompts": [{"prompt": "", "images": ["b.png"]}]}"#;
        assert!(because(gone).contains("`b.png`"));
    }
}
