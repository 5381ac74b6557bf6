//! Values from the inside of a model, for comparing with another implementation.
//!
//! Names are those of the reference program: `pixels`, `vit.N`, `vision`, `image_features`,
//! `layers.N`, `router.N`, `logits`. They are what the tapped twins of the functions write; the first,
//! the fourth and the last are read from their ports in a plan that does not tap them. Batches of image tiles and chunks of the prompt are
//! put together, so a tensor has all tiles or all positions.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use half::bf16;
use sail_ir::plan::{Buffer, Count, Place, Port};

use crate::device::DeviceError;
use crate::execute::{Done, Engine, Outputs, Tokens, Twin};

/// Values of one name, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// Length of a row: the last size.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.last().map_or(1, |width| *width as usize).max(1)
    }
}

/// Which names are wanted: words with `*` (any run of characters) and `?` (any one), separated by
/// commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.split(',').map(|word| word.trim().to_owned()).collect())
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|word| glob(word.as_bytes(), name.as_bytes()))
    }
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, name) || name.split_first().is_some_and(|(_, name)| glob(pattern, name))
        }
        (Some((wanted, rest)), Some((found, name))) => {
            (wanted == found || *wanted == b'?') && glob(rest, name)
        }
        _ => false,
    }
}

/// A prompt to look inside of: image tiles, and token ids whose image places are marked.
pub struct Inside<'a> {
    /// Number of image tiles, and who writes the pixels of a range of them.
    pub tiles: u32,
    pub fill: &'a mut dyn FnMut(Range<usize>, &mut [bf16]),
    /// Slot 0 takes them from position 0 on; it must [`hold`](Engine::hold) them.
    pub ids: &'a [u32],
    /// For each id, its row of the features or -1.
    pub image_rows: &'a [i32],
}

/// Run the tapped twins over a prompt and collect what `pattern` matches.
///
/// Every value is computed as the production functions would, except that nothing is fused across
/// a tapped value.
///
/// # Panics
///
/// When the program was not opened with taps.
pub fn collect(
    engine: &mut Engine,
    inside: Inside,
    pattern: &Pattern,
    stop: &AtomicBool,
) -> Result<Vec<Tensor>, DeviceError> {
    let Inside { tiles, fill, ids, image_rows } = inside;
    let mut collector = Collector::new(engine, pattern);
    if tiles > 0 {
        if collector.wants_port("pixels") {
            collector.pixels(engine, tiles, fill);
        }
        engine.vision(Twin::Tapped, tiles, fill, stop, &mut |done| collector.take(done))?;
        if collector.wants_port("image_features") {
            collector.features(engine, tiles);
        }
    }
    if !ids.is_empty() {
        let tokens = Tokens { slot: 0, start: 0, ids, image_rows };
        let all = Outputs::All;
        engine.prefill(Twin::Tapped, tokens, all, stop, &mut |done| collector.take(done))?;
    }
    Ok(collector.tensors)
}

struct Collector<'p> {
    pattern: &'p Pattern,
    /// Names of the layout's taps, in its order.
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl<'p> Collector<'p> {
    fn new(engine: &Engine, pattern: &'p Pattern) -> Self {
        let names = engine.layout().taps.iter().map(|(name, _)| name.clone()).collect();
        Self { pattern, names, tensors: Vec::new() }
    }

    /// Is the port to stand for `name`? Not when the function taps the same values itself.
    fn wants_port(&self, name: &str) -> bool {
        self.pattern.matches(name) && self.names.iter().all(|tapped| tapped != name)
    }

    /// What one call left in the taps, and its logits.
    fn take(&mut self, done: &Done) {
        for (_, buffer) in done.function.buffers.iter() {
            match &buffer.place {
                Place::Tap { name } if self.pattern.matches(name) => {
                    let index = self.names.iter().position(|tap| tap == name);
                    let index = index.expect("broken invariant `layout.taps`: a tap is missing");
                    let values = done.device.tap(index).iter().copied();
                    self.append(name, buffer, rows(buffer, done), values);
                }
                Place::Port { port: Port::Logits } if self.wants_port("logits") => {
                    let values = done.device.logits().iter().map(|value| value.to_f32());
                    self.append("logits", buffer, u64::from(done.call.outputs), values);
                }
                _ => {}
            }
        }
    }

    fn append(
        &mut self,
        name: &str,
        buffer: &Buffer,
        rows: u64,
        values: impl Iterator<Item = f32>,
    ) {
        let row: u64 = buffer.row_dims.iter().product();
        let values = values.take((rows * row) as usize);
        match self.tensors.iter_mut().find(|tensor| tensor.name == name) {
            Some(tensor) => {
                tensor.shape[0] += rows;
                tensor.values.extend(values);
            }
            None => {
                let shape = [rows].into_iter().chain(buffer.row_dims.iter().copied()).collect();
                self.tensors.push(Tensor {
                    name: name.to_owned(),
                    shape,
                    values: values.collect(),
                });
            }
        }
    }

    /// What `fill` writes, as `vision` reads it.
    fn pixels(
        &mut self,
        engine: &Engine,
        tiles: u32,
        fill: &mut dyn FnMut(Range<usize>, &mut [bf16]),
    ) {
        let tile = engine.layout().tile_values;
        let mut pixels = vec![bf16::ZERO; (tile * u64::from(tiles)) as usize];
        fill(0..tiles as usize, &mut pixels);
        let dims = port_dims(engine, Port::Pixels);
        let shape = [u64::from(tiles)].into_iter().chain(dims).collect();
        let values = pixels.iter().map(|value| value.to_f32()).collect();
        self.tensors.push(Tensor { name: "pixels".to_owned(), shape, values });
    }

    fn features(&mut self, engine: &Engine, tiles: u32) {
        let dims = port_dims(engine, Port::Features);
        let values = u64::from(tiles) * dims.iter().product::<u64>();
        let kept = engine.device().features()[..values as usize].iter();
        let shape = [u64::from(tiles)].into_iter().chain(dims).collect();
        let values = kept.map(|value| value.to_f32()).collect();
        self.tensors.push(Tensor { name: "image_features".to_owned(), shape, values });
    }
}

/// Rows of a buffer that a call filled.
fn rows(buffer: &Buffer, done: &Done) -> u64 {
    u64::from(match buffer.count {
        Some(Count::Tokens) => done.call.tokens,
        Some(Count::Images) => done.call.images,
        Some(Count::Outputs) => done.call.outputs,
        None => 1,
    })
}

fn port_dims(engine: &Engine, port: Port) -> Vec<u64> {
    let buffers = engine.plan().functions.iter().flat_map(|function| function.buffers.iter());
    let mut dims = buffers
        .filter(|(_, buffer)| buffer.place == Place::Port { port })
        .map(|(_, buffer)| buffer.row_dims.clone());
    dims.next().unwrap_or_default()
}

/// Write each tensor to `FOLDER/NAME.npy` (NumPy's format 1.0, little-endian f32).
pub fn write_npy(folder: &Path, tensors: &[Tensor]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for tensor in tensors {
        let mut out = BufWriter::new(File::create(folder.join(format!("{}.npy", tensor.name)))?);
        out.write_all(&npy_header(&tensor.shape))?;
        for value in &tensor.values {
            out.write_all(&value.to_le_bytes())?;
        }
        out.flush()?;
    }
    Ok(())
}

fn npy_header(shape: &[u64]) -> Vec<u8> {
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    // Magic, version and length take ten bytes; data start at a multiple of 64.
    let padding = 63 - (10 + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a shape has few dimensions");
    [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_words_with_stars() {
        let pattern = Pattern::new("vit.*, logits,layers.?");
        for name in ["vit.0", "vit.12", "logits", "layers.3"] {
            assert!(pattern.matches(name), "{name}");
        }
        for name in ["vision", "layers.12", "logits.0", "xlogits"] {
            assert!(!pattern.matches(name), "{name}");
        }
        assert!(Pattern::new("*").matches("anything"));
    }

    #[test]
    fn numpy_reads_what_is_written() {
        let header = npy_header(&[3, 4]);
        assert_eq!(header.len() % 64, 0);
        let text = String::from_utf8(header[10..].to_vec()).unwrap();
        assert_eq!(text.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4,), }");
        assert!(text.ends_with('\n'));
        assert!(npy_header(&[]).len().is_multiple_of(64));
    }
}
