//! The first page of a `.sail` file. Its first 24 bytes never change their meaning, so any reader
//! can name the difference to any file.
//!
//! ```text
//! byte 0    magic            `SAILFILE`
//!      8    format           u32
//!      12   zero             u32
//!      16   file bytes       u64
//!      24   manifest offset  u64
//!      32   manifest bytes   u64
//!      40   manifest hash    32 bytes, BLAKE3
//!      72   root hash        32 bytes, BLAKE3 of bytes 0 to 72
//!      104  zeros            up to byte 4096
//! ```

use super::ArtifactError;

/// What every `.sail` file starts with.
pub const MAGIC: [u8; 8] = *b"SAILFILE";

/// The format this crate writes, and the only one it reads.
pub const FORMAT: u32 = 6;

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 4096;

const ROOT: usize = 72;
const END: usize = ROOT + 32;

/// What the header says, its magic and format left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub file_bytes: u64,
    pub manifest_offset: u64,
    pub manifest_bytes: u64,
    pub manifest_hash: [u8; 32],
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut page = [0; HEADER_BYTES as usize];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[16..24].copy_from_slice(&self.file_bytes.to_le_bytes());
        page[24..32].copy_from_slice(&self.manifest_offset.to_le_bytes());
        page[32..40].copy_from_slice(&self.manifest_bytes.to_le_bytes());
        page[40..ROOT].copy_from_slice(&self.manifest_hash);
        let root = blake3::hash(&page[..ROOT]);
        page[ROOT..END].copy_from_slice(root.as_bytes());
        page
    }

    /// Read the first bytes of a file that is `file_bytes` long.
    ///
    /// Refuses a file that is not ours, of another format, cut short, or damaged in these bytes.
    pub(super) fn decode(start: &[u8], file_bytes: u64) -> Result<Self, ArtifactError> {
        if start.is_empty() {
            return Err(ArtifactError::Empty);
        }
        let known = start.len().min(MAGIC.len());
        if start[..known] != MAGIC[..known] {
            return Err(ArtifactError::Foreign);
        }
        if start.len() >= 12 {
            let found = u32_at(start, 8);
            if found != FORMAT {
                return Err(ArtifactError::Format { found });
            }
        }
        if (start.len() as u64) < HEADER_BYTES {
            return Err(ArtifactError::Truncated { found: file_bytes, expected: None });
        }
        let root = blake3::hash(&start[..ROOT]);
        if root.as_bytes() != &start[ROOT..END] || start[END..].iter().any(|byte| *byte != 0) {
            return Err(ArtifactError::Damaged { part: "header".to_owned() });
        }
        let mut manifest_hash = [0; 32];
        manifest_hash.copy_from_slice(&start[40..ROOT]);
        let header = Self {
            file_bytes: u64_at(start, 16),
            manifest_offset: u64_at(start, 24),
            manifest_bytes: u64_at(start, 32),
            manifest_hash,
        };
        if header.file_bytes > file_bytes {
            let expected = Some(header.file_bytes);
            return Err(ArtifactError::Truncated { found: file_bytes, expected });
        }
        if header.file_bytes < file_bytes {
            return Err(ArtifactError::TooLong { found: file_bytes, expected: header.file_bytes });
        }
        Ok(header)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut out"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_as_it_was_written() {
        let header = Header {
            file_bytes: 1 << 33,
            manifest_offset: 3 << 12,
            manifest_bytes: 99,
            manifest_hash: [7; 32],
        };
        assert_eq!(Header::decode(&header.encode(), 1 << 33).unwrap(), header);
    }

    #[test]
    fn a_root_hash_does_not_excuse_bytes_after_it() {
        let header = Header {
            file_bytes: 8192,
            manifest_offset: 4096,
            manifest_bytes: 1,
            manifest_hash: [0; 32],
        };
        let mut page = header.encode();
        page[4095] = 1;
        assert!(matches!(Header::decode(&page, 8192), Err(ArtifactError::Damaged { .. })));
    }
}
