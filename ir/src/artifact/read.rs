//! Opens a `.sail` file: believes nothing, allocates nothing larger than the file, runs nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::header::{HEADER_BYTES, Header};
use super::{ArtifactError, Manifest, PAGE_BYTES, Recipe, Section, SectionKind, launches};

/// Longest manifest that is read: eight times that of the largest published checkpoint.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Longest section other than the weights.
const MAX_SMALL_SECTION_BYTES: u64 = 1 << 30;
/// Bytes hashed between two looks at whether the caller gave up.
const CHUNK_BYTES: usize = 1 << 20;

/// An opened artifact. All but its weights was checked against the hashes in the file.
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    root: [u8; 32],
    manifest: Manifest,
    code: Vec<u8>,
    cubin: Option<Vec<u8>>,
    tokenizer: Vec<u8>,
    chat_template: Option<Vec<u8>>,
    recipe: Option<Recipe>,
}

impl Artifact {
    /// Open a file and check everything but the weights' hash.
    ///
    /// Safe for arbitrary bytes. Refuses, each with its own sentence: what the file system
    /// refuses, an empty, foreign, older, newer, cut short or prolonged file, damage in header,
    /// manifest, small sections or gaps, and a manifest or plan that makes no sense.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let io = |error| ArtifactError::io("read", path, error);
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            let kind = if metadata.is_dir() {
                io::ErrorKind::IsADirectory
            } else {
                io::ErrorKind::InvalidInput
            };
            return Err(io(kind.into()));
        }
        let file_bytes = metadata.len();
        let start = read(&file, path, 0, file_bytes.min(HEADER_BYTES))?;
        let header = Header::decode(&start, file_bytes)?;
        let manifest = read_manifest(&file, path, &header)?;
        check_layout(&manifest, &header)?;
        check_gaps(&file, path, &manifest, &header)?;

        let small = |kind| match manifest.section(kind) {
            Some(section) => read_section(&file, path, section).map(Some),
            None => Ok(None),
        };
        let missing = |kind: SectionKind| {
            ArtifactError::malformed("sections", format!("there is no section `{}`", kind.name()))
        };
        let code = small(SectionKind::Code)?.ok_or_else(|| missing(SectionKind::Code))?;
        let cubin = small(SectionKind::Cubin)?;
        let tokenizer =
            small(SectionKind::Tokenizer)?.ok_or_else(|| missing(SectionKind::Tokenizer))?;
        let chat_template = small(SectionKind::ChatTemplate)?;
        let recipe = small(SectionKind::Recipe)?.map(|json| read_recipe(&json, &manifest));
        let recipe = recipe.transpose()?;
        let weight_bytes = match (manifest.section(SectionKind::Weights), &recipe) {
            (Some(weights), None) => weights.bytes,
            (None, Some(recipe)) => recipe.bytes,
            (None, None) => return Err(missing(SectionKind::Weights)),
            (Some(_), Some(_)) => {
                let because = "there are weights and a recipe for them".to_owned();
                return Err(ArtifactError::malformed("sections", because));
            }
        };
        manifest.plan.verify().map_err(ArtifactError::Plan)?;
        launches::check(&manifest)?;
        manifest
            .plan
            .verify_inside(code.len() as u64, weight_bytes)
            .map_err(ArtifactError::Plan)?;

        let root = *blake3::hash(&start[..72]).as_bytes();
        let path = path.to_owned();
        Ok(Self {
            path,
            file,
            file_bytes,
            root,
            manifest,
            code,
            cubin,
            tokenizer,
            chat_template,
            recipe,
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// BLAKE3 over all the file's hashes, in hexadecimal digits: the artifact's identity.
    #[must_use]
    pub fn root_hash(&self) -> String {
        blake3::Hash::from_bytes(self.root).to_hex().to_string()
    }

    /// The code section.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// Machine code of a CUDA target, where an assembler was at hand when compiling.
    #[must_use]
    pub fn cubin(&self) -> Option<&[u8]> {
        self.cubin.as_deref()
    }

    /// `tokenizer.json`.
    #[must_use]
    pub fn tokenizer(&self) -> &[u8] {
        &self.tokenizer
    }

    /// `chat_template.jinja`, where the checkpoint had one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&[u8]> {
        self.chat_template.as_deref()
    }

    /// The file, for mapping the weights.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How the weights are made, when the file does not hold them.
    #[must_use]
    pub fn recipe(&self) -> Option<&Recipe> {
        self.recipe.as_ref()
    }

    /// Bytes of the weights, stored or made.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        match &self.recipe {
            Some(recipe) => recipe.bytes,
            None => self.weights().bytes,
        }
    }

    /// Where in the file the weights are; not yet checked.
    ///
    /// # Panics
    ///
    /// When they are made by a [`recipe`](Self::recipe): [`open`](Self::open) refuses a file without
    /// either.
    #[must_use]
    pub fn weights(&self) -> &Section {
        self.manifest
            .section(SectionKind::Weights)
            .expect("broken invariant `artifact.weights`: they are made, or opened without any")
    }

    /// Hash the weights and compare; `progress` hears of bytes done. A recipe was checked already.
    ///
    /// Reads through the page cache in small pieces. Refuses damage, and gives up with
    /// [`ArtifactError::Cancelled`] soon after `cancel` is set.
    pub fn verify_weights(
        &self,
        cancel: &AtomicBool,
        mut progress: impl FnMut(u64),
    ) -> Result<(), ArtifactError> {
        if self.recipe.is_some() {
            return Ok(());
        }
        let weights = self.weights();
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut done = 0;
        while done < weights.bytes {
            if cancel.load(Ordering::Relaxed) {
                return Err(ArtifactError::Cancelled);
            }
            let rest = usize::try_from(weights.bytes - done).unwrap_or(usize::MAX);
            let part = &mut chunk[..rest.min(CHUNK_BYTES)];
            self.file
                .read_exact_at(part, weights.offset + done)
                .map_err(|error| ArtifactError::io("read", &self.path, error))?;
            hasher.update(part);
            done += part.len() as u64;
            progress(done);
        }
        compare(weights, hasher.finalize())
    }
}

fn read(file: &File, path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>, ArtifactError> {
    let length = usize::try_from(bytes).map_err(|_| {
        ArtifactError::malformed("sections", format!("{bytes} bytes are more than memory"))
    })?;
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, offset)
        .map_err(|error| ArtifactError::io("read", path, error))?;
    Ok(buffer)
}

fn read_manifest(file: &File, path: &Path, header: &Header) -> Result<Manifest, ArtifactError> {
    let Header { file_bytes, manifest_offset, manifest_bytes, manifest_hash } = header;
    let end = manifest_offset.checked_add(*manifest_bytes);
    if end != Some(*file_bytes) || manifest_offset % PAGE_BYTES != 0 || *manifest_offset == 0 {
        return Err(ArtifactError::malformed(
            "header",
            format!(
                "{manifest_bytes} bytes of manifest at {manifest_offset} do not end the file of {file_bytes}"
            ),
        ));
    }
    if *manifest_bytes > MAX_MANIFEST_BYTES {
        return Err(ArtifactError::malformed(
            "header",
            format!("a manifest of {manifest_bytes} bytes is more than {MAX_MANIFEST_BYTES}"),
        ));
    }
    let json = read(file, path, *manifest_offset, *manifest_bytes)?;
    if blake3::hash(&json).as_bytes() != manifest_hash {
        return Err(ArtifactError::Damaged { part: "manifest".to_owned() });
    }
    serde_json::from_slice(&json)
        .map_err(|error| ArtifactError::malformed("manifest", format!("it says: {error}")))
}

fn read_recipe(json: &[u8], manifest: &Manifest) -> Result<Recipe, ArtifactError> {
    let recipe: Recipe = serde_json::from_slice(json).map_err(|error| {
        ArtifactError::malformed("section `recipe`", format!("it says: {error}"))
    })?;
    recipe.check(manifest.target.gpu().is_some())?;
    Ok(recipe)
}

/// Sections stand one after another, each on the next new page, from the header to the manifest.
fn check_layout(manifest: &Manifest, header: &Header) -> Result<(), ArtifactError> {
    let mut free = HEADER_BYTES;
    for (index, section) in manifest.sections.iter().enumerate() {
        let Section { kind, offset, bytes, blake3: _ } = section;
        let wrong = |because: String| {
            ArtifactError::malformed(&format!("section `{}`", kind.name()), because)
        };
        if manifest.sections[..index].iter().any(|before| before.kind == *kind) {
            return Err(wrong("it is there twice".to_owned()));
        }
        if *offset != free {
            return Err(wrong(format!("it starts at {offset}, not at {free}")));
        }
        let end = offset.checked_add(*bytes).filter(|end| *end <= header.manifest_offset);
        let Some(end) = end else {
            return Err(wrong(format!("its {bytes} bytes do not fit the file")));
        };
        free = end.next_multiple_of(PAGE_BYTES);
        if *kind != SectionKind::Weights && *bytes > MAX_SMALL_SECTION_BYTES {
            return Err(wrong(format!("it has {bytes} bytes")));
        }
    }
    if free != header.manifest_offset {
        return Err(ArtifactError::malformed(
            "header",
            format!("the manifest starts at {}, not at {free}", header.manifest_offset),
        ));
    }
    Ok(())
}

/// What no hash covers is zero.
fn check_gaps(
    file: &File,
    path: &Path,
    manifest: &Manifest,
    header: &Header,
) -> Result<(), ArtifactError> {
    let nexts = manifest.sections.iter().skip(1).map(|section| section.offset);
    let nexts = nexts.chain([header.manifest_offset]);
    for (section, next) in manifest.sections.iter().zip(nexts) {
        let end = section.offset + section.bytes;
        if read(file, path, end, next - end)?.iter().any(|byte| *byte != 0) {
            let part = format!("gap after section `{}`", section.kind.name());
            return Err(ArtifactError::Damaged { part });
        }
    }
    Ok(())
}

fn read_section(file: &File, path: &Path, section: &Section) -> Result<Vec<u8>, ArtifactError> {
    let bytes = read(file, path, section.offset, section.bytes)?;
    compare(section, blake3::hash(&bytes))?;
    Ok(bytes)
}

fn compare(section: &Section, found: blake3::Hash) -> Result<(), ArtifactError> {
    if found.to_hex().as_str() != section.blake3 {
        let part = format!("section `{}`", section.kind.name());
        return Err(ArtifactError::Damaged { part });
    }
    Ok(())
}
