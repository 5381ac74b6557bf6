//! Writes a `.sail` file section by section; what is there under the final name is always whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::chunks::Chunks;
use super::header::{HEADER_BYTES, Header};
use super::{ArtifactError, Manifest, PAGE_BYTES, Section, SectionKind};
use crate::plan::ALIGNMENT;

/// More than a page, for the gaps.
const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// An artifact being written.
///
/// Sections go to a file with a temporary name in the folder of the final one, in any order; the
/// weights last, so that they can be packed while they are written. [`finish`](Self::finish) adds
/// manifest and header, makes the bytes durable and renames. When the writer is dropped before
/// that, the temporary file is removed and what stood under the final name is untouched.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use sail_ir::artifact::{ArtifactWriter, SectionKind};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.sail");
/// let mut writer = ArtifactWriter::create(&path)?;
/// let mut code = writer.section(SectionKind::Code)?;
/// code.put(&[0xc3])?;
/// code.finish()?;
/// let mut weights = writer.section(SectionKind::Weights)?;
/// let first = weights.align()?; // what `Weight::offset` is for the bytes put next
/// weights.put(&[1; 300])?;
/// let second = weights.align()?;
/// weights.put(&[2; 300])?;
/// weights.finish()?;
/// assert_eq!((first, second), (0, 512));
/// // writer.finish(manifest)?;
/// # Ok(())
/// # }
/// ```
pub struct ArtifactWriter {
    out: Chunks<File>,
    temporary: PathBuf,
    path: PathBuf,
    /// Bytes written so far.
    position: u64,
    sections: Vec<Section>,
    /// A section writer was made and not finished.
    open: bool,
    renamed: bool,
}

/// One section being written: hashes what it is given on the way to the file.
///
/// Also a [`Write`], for callers that have one; [`put`](Self::put) has the better errors. Must be
/// finished: a section that was only dropped makes the artifact useless.
pub struct SectionWriter<'w> {
    artifact: &'w mut ArtifactWriter,
    kind: SectionKind,
    start: u64,
    hasher: blake3::Hasher,
}

impl ArtifactWriter {
    /// Start a file that will stand at `path`; its folder must exist.
    ///
    /// Refuses what the file system refuses, and a path where something stands that is no file.
    pub fn create(path: &Path) -> Result<Self, ArtifactError> {
        // The rename at the end would put a file in the place of a device that others use.
        if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            return Err(ArtifactError::NoFile { path: path.display().to_string() });
        }
        let (temporary, file) =
            temporary_beside(path).map_err(|error| ArtifactError::io("write", path, error))?;
        let mut writer = Self {
            out: Chunks::new(file),
            temporary,
            path: path.to_owned(),
            position: 0,
            sections: Vec::new(),
            open: false,
            renamed: false,
        };
        writer.append(&ZEROS[..HEADER_BYTES as usize])?;
        Ok(writer)
    }

    /// Start a section on a new page.
    ///
    /// # Panics
    ///
    /// When the kind was written before or the section before was not finished.
    pub fn section(&mut self, kind: SectionKind) -> Result<SectionWriter<'_>, ArtifactError> {
        assert!(!self.open, "broken invariant `artifact.sections_finished`: {}", kind.name());
        let twice = self.sections.iter().any(|section| section.kind == kind);
        assert!(!twice, "broken invariant `artifact.sections_once`: {}", kind.name());
        self.align_to(PAGE_BYTES)?;
        self.open = true;
        let start = self.position;
        Ok(SectionWriter { artifact: self, kind, start, hasher: blake3::Hasher::new() })
    }

    /// Write a section whose bytes are at hand.
    pub fn whole_section(&mut self, kind: SectionKind, bytes: &[u8]) -> Result<(), ArtifactError> {
        let mut section = self.section(kind)?;
        section.put(bytes)?;
        section.finish().map(|_| ())
    }

    /// Write manifest and header, make the file durable and give it its name; its bytes.
    ///
    /// `manifest.sections` is replaced by what was written.
    ///
    /// # Panics
    ///
    /// When the last section was not finished.
    pub fn finish(mut self, manifest: Manifest) -> Result<u64, ArtifactError> {
        let bytes = self.seal(manifest)?;
        self.publish()?;
        Ok(bytes)
    }

    /// Write manifest and header, so that the file is whole under its [temporary
    /// name](Self::temporary) and can be opened before it has its own; its bytes.
    ///
    /// Sealed again, the file has the later manifest.
    ///
    /// # Panics
    ///
    /// When the last section was not finished.
    pub fn seal(&mut self, mut manifest: Manifest) -> Result<u64, ArtifactError> {
        assert!(!self.open, "broken invariant `artifact.sections_finished`: at the end");
        manifest.sections = self.sections.clone();
        let json = serde_json::to_vec(&manifest).expect("a manifest has string keys only");
        let manifest_offset = self.position.next_multiple_of(PAGE_BYTES);
        let header = Header {
            file_bytes: manifest_offset + json.len() as u64,
            manifest_offset,
            manifest_bytes: json.len() as u64,
            manifest_hash: *blake3::hash(&json).as_bytes(),
        };
        self.write_end(&header, &json)
            .map_err(|error| ArtifactError::io("write", &self.path, error))?;
        Ok(header.file_bytes)
    }

    /// Where the file is until it is published.
    #[must_use]
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Make a sealed file durable and give it its name.
    pub fn publish(mut self) -> Result<(), ArtifactError> {
        self.rename().map_err(|error| ArtifactError::io("write", &self.path, error))
    }

    fn write_end(&mut self, header: &Header, json: &[u8]) -> io::Result<()> {
        let file = self.out.flushed()?;
        // Cuts off a manifest written before, or grows by a gap of zeros.
        file.set_len(header.manifest_offset)?;
        file.seek(SeekFrom::Start(header.manifest_offset))?;
        file.write_all(json)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.encode())
    }

    fn rename(&mut self) -> io::Result<()> {
        self.out.flushed()?.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.renamed = true;
        File::open(folder_of(&self.path))?.sync_all()
    }

    fn align_to(&mut self, alignment: u64) -> Result<(), ArtifactError> {
        let gap = self.position.next_multiple_of(alignment) - self.position;
        self.append(&ZEROS[..usize::try_from(gap).expect("a gap is less than a page")])
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.out.append(bytes).map_err(|error| ArtifactError::io("write", &self.path, error))?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for ArtifactWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // Nobody is left to tell when this fails as well; a leftover harms nobody.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl SectionWriter<'_> {
    /// Bytes of this section so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.artifact.position - self.start
    }

    /// Append bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.hasher.update(bytes);
        self.artifact.append(bytes)
    }

    /// Append zeros up to the next multiple of [`ALIGNMENT`]; where the next byte goes.
    pub fn align(&mut self) -> Result<u64, ArtifactError> {
        let gap = self.position().next_multiple_of(ALIGNMENT) - self.position();
        self.put(&ZEROS[..usize::try_from(gap).expect("a gap is less than a page")])?;
        Ok(self.position())
    }

    /// Note hash and length; what the manifest will say.
    pub fn finish(self) -> Result<Section, ArtifactError> {
        let section = Section {
            kind: self.kind,
            offset: self.start,
            bytes: self.position(),
            blake3: self.hasher.finalize().to_hex().to_string(),
        };
        self.artifact.sections.push(section.clone());
        self.artifact.open = false;
        Ok(section)
    }
}

impl Write for SectionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.put(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(ArtifactError::Io { error, .. }) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ArtifactError {
    pub(super) fn io(doing: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { doing, path: path.display().to_string(), error }
    }
}

/// A new file `.NAME.NUMBER.partial` in the folder of `path`.
fn temporary_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut number = std::process::id();
    loop {
        let temporary = path.with_file_name(format!(".{name}.{number}.partial"));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number = number.wrapping_add(1);
            }
            result => return result.map(|file| (temporary, file)),
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
