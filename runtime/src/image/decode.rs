//! A picture file's bytes to pixels, within limits that are checked before memory is taken.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegDecoder;
use ::image::codecs::png::PngDecoder;
use ::image::codecs::webp::WebPDecoder;
use ::image::error::ImageError as Refusal;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageResult, Limits};

use super::{ImageError, Rgb};

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: u32 = 20_000;
/// Most pixels of a picture: 300 MB as RGB.
pub const MAX_PIXELS: u64 = 100_000_000;
/// What a decoder may allocate: [`MAX_PIXELS`] with four channels of 16 bits, and some.
const MAX_DECODER_BYTES: u64 = 1 << 30;

/// Decode a JPEG, PNG or WebP picture to RGB.
///
/// Palettes are looked up, grey is repeated, alpha is dropped (what lies under it shows), and of
/// 16 bits the upper 8 are kept. That is Pillow's `convert("RGB")` except for 16-bit grey, which
/// Pillow clips at 255 and thereby whitens. EXIF orientation and colour profiles are ignored.
///
/// Refuses an empty file, other formats, animations, no pixels, more than [`MAX_SIDE`] or
/// [`MAX_PIXELS`] (by the header, before allocating), and data that are damaged or cut short.
pub fn decode(bytes: &[u8]) -> Result<Rgb, ImageError> {
    let (format, decoder) = open(bytes)?;
    if format == Format::Jpeg && !jpeg_ends(bytes) {
        return Err(ImageError::Truncated { format: format.name() });
    }
    let (width, height) = decoder.dimensions();
    let picture = DynamicImage::from_decoder(decoder).map_err(|why| format.refuse(&why))?;
    Rgb::new(width, height, to_rgb(picture))
}

/// Width and height of a picture, from its header alone.
///
/// Refuses what [`decode`] refuses, except damage behind the header.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    Ok(open(bytes)?.1.dimensions())
}

/// Refuses no pixels and more than [`MAX_SIDE`] or [`MAX_PIXELS`].
pub(super) fn check_size(width: u32, height: u32) -> Result<(), ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || width.max(height) > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(ImageError::Size { width, height });
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
}

impl Format {
    fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        let name = match ::image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => return Ok(Self::Jpeg),
            Ok(ImageFormat::Png) => return Ok(Self::Png),
            Ok(ImageFormat::WebP) => return Ok(Self::WebP),
            Ok(ImageFormat::Gif) => Some("GIF"),
            Ok(ImageFormat::Bmp) => Some("BMP"),
            Ok(ImageFormat::Tiff) => Some("TIFF"),
            Ok(ImageFormat::Avif) => Some("AVIF"),
            Ok(ImageFormat::Ico) => Some("ICO"),
            _ => None,
        };
        Err(ImageError::Format { name })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        }
    }

    /// Our sentence for a decoder's refusal; its own words are not a user's.
    fn refuse(self, why: &Refusal) -> ImageError {
        let format = self.name();
        match why {
            Refusal::Unsupported(_) => ImageError::Variety { format },
            Refusal::IoError(_) => ImageError::Truncated { format },
            _ => ImageError::Damaged { format },
        }
    }
}

/// Read the header and refuse what it shows to be unusable.
fn open(bytes: &[u8]) -> Result<(Format, Box<dyn ImageDecoder + '_>), ImageError> {
    let format = Format::of(bytes)?;
    let (mut decoder, animated) =
        open_unchecked(format, bytes).map_err(|why| format.refuse(&why))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    if animated {
        return Err(ImageError::Animated { format: format.name() });
    }
    decoder.set_limits(limits()).map_err(|why| format.refuse(&why))?;
    Ok((format, decoder))
}

/// A decoder that has read the header, and whether there are several frames.
fn open_unchecked(format: Format, bytes: &[u8]) -> ImageResult<(Box<dyn ImageDecoder + '_>, bool)> {
    let bytes = Cursor::new(bytes);
    Ok(match format {
        Format::Jpeg => (Box::new(JpegDecoder::new(bytes)?), false),
        Format::Png => {
            // The size is left to `check_size`, whose refusal names it.
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(MAX_DECODER_BYTES);
            let decoder = PngDecoder::with_limits(bytes, limits)?;
            let animated = decoder.is_apng()?;
            (Box::new(decoder), animated)
        }
        Format::WebP => {
            let decoder = WebPDecoder::new(bytes)?;
            let animated = decoder.has_animation();
            (Box::new(decoder), animated)
        }
    })
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits
}

/// Whether a JPEG's marker "end of image" is there.
///
/// The decoder fills what is missing with grey; half a picture would be answered about as if it
/// were whole. Walks the segments by their lengths, then the coded data up to the next marker.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: u8 = 0xd9;
    let mut at = 2; // behind "start of image"
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END_OF_IMAGE => return true,
            0x01 | 0xd0..=0xd8 => {} // markers without a segment
            _ => {
                let Some(length) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if marker == START_OF_SCAN {
                    skip_scan(bytes, &mut at);
                }
            }
        }
    }
    false
}

/// The next marker's code; leaves `at` behind it. Bytes before it are skipped, as decoders do.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let start = *at + bytes.get(*at..)?.iter().position(|&byte| byte == 0xff)?;
        let code = start + bytes[start..].iter().position(|&byte| byte != 0xff)?;
        *at = code + 1;
        if bytes[code] != 0 {
            return Some(bytes[code]);
        }
    }
}

/// Move behind entropy-coded data: to the first marker that is not a restart.
fn skip_scan(bytes: &[u8], at: &mut usize) {
    let mut next = *at;
    while let Some(marker) = next_marker(bytes, &mut next) {
        if !(0xd0..=0xd7).contains(&marker) {
            *at = next - 2;
            return;
        }
    }
    *at = bytes.len();
}

/// Drop alpha, repeat grey, keep the upper 8 of 16 bits.
fn to_rgb(picture: DynamicImage) -> Vec<u8> {
    let upper = |value: &u16| (value >> 8) as u8;
    match picture {
        DynamicImage::ImageRgb8(picture) => picture.into_raw(),
        DynamicImage::ImageRgba8(picture) => first_three(picture.as_raw()),
        DynamicImage::ImageLuma8(picture) => repeat(picture.as_raw().iter().copied()),
        DynamicImage::ImageLumaA8(picture) => repeat(picture.as_raw().iter().copied().step_by(2)),
        DynamicImage::ImageLuma16(picture) => repeat(picture.as_raw().iter().map(upper)),
        DynamicImage::ImageLumaA16(picture) => {
            repeat(picture.as_raw().iter().step_by(2).map(upper))
        }
        DynamicImage::ImageRgb16(picture) => picture.as_raw().iter().map(upper).collect(),
        DynamicImage::ImageRgba16(picture) => {
            first_three(&picture.as_raw().iter().map(upper).collect::<Vec<_>>())
        }
        other => other.into_rgb8().into_raw(),
    }
}

fn first_three(rgba: &[u8]) -> Vec<u8> {
    rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

fn repeat(grey: impl Iterator<Item = u8>) -> Vec<u8> {
    grey.flat_map(|value| [value; 3]).collect()
}
