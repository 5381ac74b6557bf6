//! Checkpoints with tensors that hold what they should not, and calibrations of values that nothing reads.

use std::fs;
use std::ops::Range;
use std::path::Path;

use safetensors::SafeTensors;
use sail_models::WeightSource;
use sail_tests::harness::{Outcome, failed, told};
use sailc::calibrate::{Calibration, fingerprint};

/// Values in bf16.
pub const NAN: u16 = 0x7fc0;
pub const INFINITE: u16 = 0x7f80;
pub const ZERO: u16 = 0;
/// -64.
pub const FAR: u16 = 0xc280;
/// 2 to the power of 66: its square is no float.
pub const LARGE: u16 = 0x6080;
/// 2 to the power of 116: products of it with some 88 values of 64 are no floats.
pub const LARGER: u16 = 0x7980;

/// 2 to the power of 120: times 256 it is no float.
pub const HUGE: u16 = 0x7b80;

/// All elements of a tensor.
pub const ALL: Range<usize> = 0..usize::MAX;

/// Make these elements of a tensor of the checkpoint `folder`, counted from its first, `value`.
pub fn set(folder: &Path, tensor: &str, elements: Range<usize>, value: u16) -> Result<(), Outcome> {
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let mut bytes = fs::read(&path).map_err(failed)?;
        let Some(place) = place(&bytes, tensor)? else { continue };
        let values = &mut bytes[place];
        let end = elements.end.min(values.len() / 2);
        let values = values[2 * elements.start..2 * end].chunks_exact_mut(2);
        values.for_each(|it| it.copy_from_slice(&value.to_le_bytes()));
        return fs::write(&path, bytes).map_err(failed);
    }
    Err(failed(format!("no tensor `{tensor}`")))
}

/// Where the bytes of a tensor are in a file that has it.
fn place(file: &[u8], tensor: &str) -> Result<Option<Range<usize>>, Outcome> {
    let (header, metadata) = SafeTensors::read_metadata(file).map_err(failed)?;
    let offsets = metadata.info(tensor).map(|info| info.data_offsets);
    Ok(offsets.map(|(start, end)| header + 8 + start..header + 8 + end))
}

/// What a feed-forward of the committed model makes, as a calibration calls it, and how wide it is.
const INPUT: &str = "vision.blocks.1.mlp.mul";
const WIDTH: usize = 100;

/// Calibration of one input of `checkpoint`, of `width` times `value`.
fn one_input(to: &Path, checkpoint: &Path, width: usize, value: f32) -> Result<(), Outcome> {
    let model = sail_models::open(checkpoint, WeightSource::Checkpoint).map_err(told)?;
    let mut calibration = Calibration::new(fingerprint(&model.weights).map_err(told)?);
    assert!(calibration.of_input(INPUT, width).add(&vec![value; width]), "it is finite");
    calibration.write(to).map_err(told)
}

/// What products never read: of fewer channels than there are.
pub fn narrow(to: &Path, checkpoint: &Path) -> Result<(), Outcome> {
    one_input(to, checkpoint, WIDTH - 36, 1.0)
}

/// Of an input that is wide, as far as can be.
pub fn wide(to: &Path, checkpoint: &Path) -> Result<(), Outcome> {
    one_input(to, checkpoint, WIDTH, 1e12)
}

/// Moments of a shape that is no square.
pub fn oblong(to: &Path, checkpoint: &Path) -> Result<(), Outcome> {
    one_input(to, checkpoint, WIDTH, 1.0)?;
    let mut bytes = fs::read(to).map_err(failed)?;
    let (old, new) = ("[100,100]", "[50,200] ");
    let at = bytes.windows(old.len()).position(|window| window == old.as_bytes());
    let at = at.expect("moments are squares");
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    fs::write(to, bytes).map_err(failed)
}

/// Moments that are all `value`.
pub fn moments(to: &Path, checkpoint: &Path, value: f32) -> Result<(), Outcome> {
    filled(to, checkpoint, &[("moments.0", value)])
}

/// Greatest magnitudes and moments so large that their sum is no float.
pub fn overflowing(to: &Path, checkpoint: &Path) -> Result<(), Outcome> {
    filled(to, checkpoint, &[("max", 3e38), ("moments.0", 3e38)])
}

fn filled(to: &Path, checkpoint: &Path, parts: &[(&str, f32)]) -> Result<(), Outcome> {
    one_input(to, checkpoint, WIDTH, 1.0)?;
    let mut bytes = fs::read(to).map_err(failed)?;
    for (part, value) in parts {
        let place = place(&bytes, &format!("{INPUT}.{part}"))?.expect("it was written");
        let values = &mut bytes[place];
        values.chunks_exact_mut(4).for_each(|it| it.copy_from_slice(&value.to_le_bytes()));
    }
    fs::write(to, bytes).map_err(failed)
}
