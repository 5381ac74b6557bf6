//! Pictures against what Pillow and the reference recorded, and against damage.

use std::fs;
use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb as RgbPixel, Rgba};
use expect_test::{Expect, expect};
use half::bf16;
use sail_ir::Help;
use sail_ir::help::report;
use sha2::{Digest, Sha256};

use super::*;
use crate::fixtures::{floats, for_each_case};

/// The picture that the golden hashes below are of.
fn pattern(width: u32, height: u32) -> Rgb {
    let mut bytes = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let values = [7 * x + 3 * y, (5 * x) ^ (11 * y), x.wrapping_mul(y)];
            bytes.extend(values.map(|value| (value & 255) as u8));
        }
    }
    Rgb::new(width, height, bytes).unwrap()
}

fn sha256(bytes: &[u8], digits: usize) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..digits].to_owned()
}

fn bf16_bytes(values: &[bf16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn all_pixels(tiles: &Tiles) -> Vec<bf16> {
    let mut pixels = vec![bf16::NAN; tiles.count() * tiles.tile_values()];
    tiles.pixels_bf16(0..tiles.count(), &mut pixels);
    pixels
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn pattern_image(width: u32, height: u32) -> ImageBuffer<RgbPixel<u8>, Vec<u8>> {
    ImageBuffer::from_raw(width, height, pattern(width, height).bytes).unwrap()
}

fn check_refusal(bytes: &[u8], expected: Expect) {
    let refusal = decode(bytes).err().expect("the picture is refused");
    assert_eq!(dimensions(bytes).err(), Some(refusal.clone()), "the header alone tells");
    expected.assert_eq(&format!("{}\nexit {}", report(&refusal), refusal.exit_code()));
}

/// Hashes made with Pillow 10.4.0 and numpy: bytes `[n, size, size, 3]`, bf16 `[n, 3, size, size]`.
#[test]
fn tiles_and_pixels_have_the_hashes_of_pillow() {
    for (width, height, count, bytes, pixels) in [
        (448, 448, 1, "07ae9a82926efa9d", "6b6467266ecbc939"),
        (640, 480, 7, "82c2897599bda6f7", "8e76c5271e477db9"),
        (1920, 1080, 9, "53fe30e29625e361", "666b9afe50419bab"),
        (300, 900, 4, "c76100bed1cc13df", "aa4e0b9d7dab9f20"),
        (101, 37, 11, "3eb69bf9864b8806", "2b990690c112b174"),
    ] {
        let tiles = tiles(&pattern(width, height), &Tiling::default()).unwrap();
        assert_eq!(tiles.count(), count, "{width} by {height}");
        assert_eq!(sha256(tiles.bytes(), 16), bytes, "{width} by {height}");
        assert_eq!(sha256(&bf16_bytes(&all_pixels(&tiles)), 16), pixels, "{width} by {height}");
    }
}

#[test]
fn the_table_of_normalised_bytes_has_the_published_hash() {
    let table = super::tiling::normalised(&Tiling::default());
    let rows: Vec<bf16> = (0..256).flat_map(|byte| table.map(|channel| channel[byte])).collect();
    let hash = "de86262765dad8a920c09456a8a6715013f900102235b83c17368b3cc86ebaea";
    assert_eq!(sha256(&bf16_bytes(&rows), 64), hash);
}

/// `Image.resize((out_w, out_h), BICUBIC)` of [`pattern`], Pillow 10.4.0, first 16 digits.
///
/// Pillow 12.2 and 12.3 differ in the two lines whose height is over 100 times the width and
/// shrinks: there they go vertical first.
const PILLOW: [(u32, u32, u32, u32, &str); 40] = [
    (1, 1, 5, 7, "523c41464ee47d61"),
    (1, 9, 3, 3, "322e92a80ba6da17"),
    (9, 1, 3, 3, "a7ab7a9bd8289765"),
    (2, 2, 448, 448, "b97458c58fc8ff69"),
    (640, 480, 640, 31, "e519abb1dfb53a5c"),
    (640, 480, 31, 480, "d5508de3bf1ae58b"),
    (3000, 2, 1344, 448, "96c5a6f3f20ff399"),
    (2, 3000, 448, 1344, "9e4c9adc15a2c502"),
    (997, 187, 155, 386, "d97f781f0e0137b9"),
    (7, 127, 387, 311, "06a27dacdd9d8049"),
    (78, 3, 15, 695, "54408ccc350f32a8"),
    (2, 11, 521, 19, "d3338927ed8969c2"),
    (4, 11, 396, 9, "94cc5c4387feb66a"),
    (26, 119, 201, 25, "0c80e29e3b3890d3"),
    (1, 79, 1, 1, "6f2b1d339c55206a"),
    (4, 197, 6, 94, "700c24caca88e74d"),
    (3, 2, 1, 104, "7b3ce4663fe335ea"),
    (699, 5, 4, 1, "833b01af6d7413c8"),
    (136, 9, 2, 70, "8f68022816f81f70"),
    (96, 30, 2, 67, "407aadacbda9ec0e"),
    (69, 27, 2, 453, "18669b56ccc4dfc6"),
    (721, 192, 705, 45, "9e34899acb539112"),
    (13, 2, 54, 30, "45c5a384812613e7"),
    (27, 1936, 251, 2, "664b36b73d3b7e8d"),
    (847, 1, 72, 7, "965a9153dd94ff1e"),
    (260, 1426, 32, 151, "07158be17d9407fd"),
    (1, 162, 2, 20, "9c24616ace1cd21b"),
    (12, 1, 137, 1, "a749bb3ec4e96e34"),
    (7, 1, 78, 7, "cf93bc1f8a951529"),
    (1, 1, 4, 28, "52a3e0804d93dc52"),
    (1, 1, 80, 32, "f6e28ad1753237d4"),
    (2, 10, 2, 6, "f694df16abddbdfc"),
    (19, 5, 3, 4, "ba5d47217219e1ad"),
    (9, 68, 342, 71, "500b6020963b0516"),
    (30, 1, 3, 65, "e8cee68f978656b5"),
    (21, 638, 397, 7, "b63cbdb34816e6a0"),
    (16, 9, 86, 1, "637683a2f0589f88"),
    (8, 811, 11, 594, "7cbfd56bb972f987"),
    (20, 590, 21, 1, "791a3caa7a4c34bb"),
    (81, 5, 421, 101, "76656f3e9663989b"),
];

#[test]
fn resizing_has_the_hashes_of_pillow_for_drawn_sizes() {
    for (width, height, to_width, to_height, hash) in PILLOW {
        let resized = resize::bicubic(&pattern(width, height), to_width, to_height);
        let what = format!("{width} by {height} to {to_width} by {to_height}");
        assert_eq!((resized.width, resized.height), (to_width, to_height), "{what}");
        assert_eq!(sha256(&resized.bytes, 16), hash, "{what}");
    }
}

/// (tile size, max tiles, width, height, columns, rows), from `grid_for` of the reference.
#[rustfmt::skip]
const GRIDS: [(u32, u32, u32, u32, u32, u32); 120] = [
    (448, 10, 448, 448, 1, 1), (448, 10, 448, 1344, 1, 3), (448, 10, 1000, 1000, 3, 3),
    (448, 10, 896, 896, 2, 2), (448, 10, 633, 634, 1, 1), (448, 10, 634, 634, 2, 2),
    (448, 10, 300, 600, 1, 2), (448, 10, 634, 1268, 2, 4), (448, 10, 450, 300, 3, 2),
    (448, 10, 1, 1, 1, 1), (448, 10, 20000, 1, 10, 1), (448, 10, 1, 20000, 1, 10),
    (448, 10, 1500, 1000, 3, 2), (448, 10, 700, 400, 2, 1), (448, 10, 41, 347, 1, 8),
    (448, 10, 103, 526, 1, 5), (448, 10, 611, 12, 10, 1), (448, 10, 8, 2655, 1, 10),
    (448, 10, 48, 40, 1, 1), (448, 10, 7948, 208, 10, 1), (56, 4, 448, 448, 2, 2),
    (56, 4, 56, 168, 1, 3), (56, 4, 1000, 1000, 2, 2), (56, 4, 896, 896, 2, 2),
    (56, 4, 633, 634, 2, 2), (56, 4, 634, 634, 2, 2), (56, 4, 300, 600, 1, 2),
    (56, 4, 634, 1268, 1, 2), (56, 4, 450, 300, 2, 2), (56, 4, 1, 1, 1, 1),
    (56, 4, 20000, 1, 4, 1), (56, 4, 1, 20000, 1, 4), (56, 4, 1500, 1000, 2, 2),
    (56, 4, 700, 400, 2, 1), (56, 4, 2636, 217, 4, 1), (56, 4, 671, 22, 4, 1),
    (56, 4, 651, 3282, 1, 4), (56, 4, 300, 1362, 1, 4), (56, 4, 839, 12, 4, 1),
    (56, 4, 1533, 481, 3, 1), (448, 12, 448, 448, 1, 1), (448, 12, 448, 1344, 1, 3),
    (448, 12, 1000, 1000, 3, 3), (448, 12, 896, 896, 2, 2), (448, 12, 633, 634, 1, 1),
    (448, 12, 634, 634, 2, 2), (448, 12, 300, 600, 1, 2), (448, 12, 634, 1268, 2, 4),
    (448, 12, 450, 300, 3, 2), (448, 12, 1, 1, 1, 1), (448, 12, 20000, 1, 12, 1),
    (448, 12, 1, 20000, 1, 12), (448, 12, 1500, 1000, 3, 2), (448, 12, 700, 400, 2, 1),
    (448, 12, 64, 9, 7, 1), (448, 12, 3225, 211, 12, 1), (448, 12, 1166, 3536, 2, 6),
    (448, 12, 1129, 4741, 1, 4), (448, 12, 123, 2060, 1, 12), (448, 12, 174, 5241, 1, 12),
    (448, 24, 448, 448, 1, 1), (448, 24, 448, 1344, 1, 3), (448, 24, 1000, 1000, 3, 3),
    (448, 24, 896, 896, 2, 2), (448, 24, 633, 634, 1, 1), (448, 24, 634, 634, 2, 2),
    (448, 24, 300, 600, 1, 2), (448, 24, 634, 1268, 2, 4), (448, 24, 450, 300, 3, 2),
    (448, 24, 1, 1, 1, 1), (448, 24, 20000, 1, 24, 1), (448, 24, 1, 20000, 1, 24),
    (448, 24, 1500, 1000, 3, 2), (448, 24, 700, 400, 5, 3), (448, 24, 3537, 15, 24, 1),
    (448, 24, 20, 35, 3, 5), (448, 24, 6448, 164, 24, 1), (448, 24, 615, 64, 10, 1),
    (448, 24, 269, 116, 7, 3), (448, 24, 91, 461, 1, 5), (56, 5, 448, 448, 2, 2),
    (56, 5, 56, 168, 1, 3), (56, 5, 1000, 1000, 2, 2), (56, 5, 896, 896, 2, 2),
    (56, 5, 633, 634, 2, 2), (56, 5, 634, 634, 2, 2), (56, 5, 300, 600, 1, 2),
    (56, 5, 634, 1268, 1, 2), (56, 5, 450, 300, 2, 2), (56, 5, 1, 1, 1, 1),
    (56, 5, 20000, 1, 5, 1), (56, 5, 1, 20000, 1, 5), (56, 5, 1500, 1000, 2, 2),
    (56, 5, 700, 400, 2, 1), (56, 5, 459, 4217, 1, 5), (56, 5, 903, 5006, 1, 5),
    (56, 5, 3027, 7696, 1, 3), (56, 5, 839, 24, 5, 1), (56, 5, 3117, 6410, 1, 2),
    (56, 5, 4231, 413, 5, 1), (448, 1, 448, 448, 1, 1), (448, 1, 448, 1344, 1, 1),
    (448, 1, 1000, 1000, 1, 1), (448, 1, 896, 896, 1, 1), (448, 1, 633, 634, 1, 1),
    (448, 1, 634, 634, 1, 1), (448, 1, 300, 600, 1, 1), (448, 1, 634, 1268, 1, 1),
    (448, 1, 450, 300, 1, 1), (448, 1, 1, 1, 1, 1), (448, 1, 20000, 1, 1, 1),
    (448, 1, 1, 20000, 1, 1), (448, 1, 1500, 1000, 1, 1), (448, 1, 700, 400, 1, 1),
    (448, 1, 1126, 34, 1, 1), (448, 1, 2549, 426, 1, 1), (448, 1, 57, 12, 1, 1),
    (448, 1, 2976, 7633, 1, 1), (448, 1, 14, 2056, 1, 1), (448, 1, 137, 22, 1, 1),
];

#[test]
fn grids_are_those_of_the_reference() {
    for (tile_size, max_tiles, width, height, columns, rows) in GRIDS {
        let tiling = Tiling { tile_size, max_tiles, ..Tiling::default() };
        let what = format!("{width} by {height}, at most {max_tiles} of {tile_size}");
        assert_eq!(grid(&tiling, width, height), Grid { columns, rows }, "{what}");
    }
}

#[test]
fn tokens_of_a_picture_are_known_from_its_size() {
    let tiling = Tiling::default();
    for (width, height, tiles) in [
        (448, 448, 1),
        (896, 896, 5),
        (640, 480, 7),
        (4000, 3000, 7),
        (1280, 720, 9),
        (1920, 1080, 9),
        (1000, 1000, 10),
        (3000, 500, 7),
        (101, 37, 11),
    ] {
        assert_eq!(tiles_for(&tiling, width, height), tiles, "{width} by {height}");
        assert_eq!(tokens_for(&tiling, width, height), 256 * tiles, "{width} by {height}");
    }
    let plain = Tiling { thumbnail: false, ..tiling };
    assert_eq!(tiles_for(&plain, 1000, 1000), 9);
}

#[test]
fn a_smallest_grid_is_kept() {
    let tiling = Tiling { min_tiles: 4, max_tiles: 6, ..Tiling::default() };
    assert_eq!(grid(&tiling, 448, 448), Grid { columns: 2, rows: 2 });
    assert_eq!(grid(&tiling, 900, 300), Grid { columns: 4, rows: 1 });
}

#[test]
fn recorded_pictures_give_the_recorded_tiles_and_pixels() {
    for_each_case(|case, tensors| {
        if case.images.is_empty() {
            return;
        }
        let text = fs::read_to_string(case.folder.join("preprocessor_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = |key: &str| u32::try_from(config[key].as_u64().unwrap()).unwrap();
        let tiling = Tiling {
            tile_size: number("image_size"),
            max_tiles: number("max_dynamic_patch"),
            ..Tiling::default()
        };

        let (mut bytes, mut pixels) = (Vec::new(), Vec::new());
        for image in &case.images {
            let picture = decode(&fs::read(image).unwrap()).unwrap();
            let tiles = tiles(&picture, &tiling).unwrap();
            bytes.extend_from_slice(tiles.bytes());
            pixels.extend(all_pixels(&tiles));
        }
        let what = format!("{} of {}", case.name, case.folder.display());
        let golden = tensors.tensor(&format!("{}.tiles", case.name)).unwrap();
        assert!(golden.data() == bytes, "tiles of {what}");
        let golden = floats(tensors, &format!("{}.pixels", case.name));
        let rounded: Vec<bf16> = golden.into_iter().map(bf16::from_f32).collect();
        assert!(rounded == pixels, "pixels of {what}");
    });
}

#[test]
fn some_tiles_are_written_alone() {
    let tiles = tiles(&pattern(101, 37), &Tiling { tile_size: 16, ..Tiling::default() }).unwrap();
    let all = all_pixels(&tiles);
    let mut some = vec![bf16::NAN; 3 * tiles.tile_values()];
    tiles.pixels_bf16(4..7, &mut some);
    assert_eq!(some, all[4 * tiles.tile_values()..7 * tiles.tile_values()]);
}

#[test]
fn lossless_formats_give_the_pixels_that_were_saved() {
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let bytes = encoded(pattern_image(37, 23), format);
        assert_eq!(dimensions(&bytes).unwrap(), (37, 23));
        assert!(decode(&bytes).unwrap() == pattern(37, 23), "{format:?}");
    }
}

#[test]
fn a_jpeg_gives_nearly_the_pixels_that_were_saved() {
    let flat = ImageBuffer::from_pixel(40, 24, RgbPixel([200u8, 60, 90]));
    let picture = decode(&encoded(flat, ImageFormat::Jpeg)).unwrap();
    assert_eq!((picture.width(), picture.height()), (40, 24));
    for pixel in picture.bytes().chunks_exact(3) {
        for (found, saved) in pixel.iter().zip([200u8, 60, 90]) {
            assert!(found.abs_diff(saved) <= 4, "{pixel:?}");
        }
    }
}

#[test]
fn a_picture_of_one_pixel_becomes_one_plain_tile() {
    let one = ImageBuffer::from_pixel(1, 1, RgbPixel([9u8, 200, 77]));
    let tiles = tiles(&decode(&encoded(one, ImageFormat::Png)).unwrap(), &Tiling::default());
    let tiles = tiles.unwrap();
    assert_eq!(tiles.count(), 1);
    assert!(tiles.bytes().chunks_exact(3).all(|pixel| pixel == [9, 200, 77]));
}

#[test]
fn other_modes_become_rgb_before_anything_else() {
    let check = |bytes: Vec<u8>, expected: &[u8]| {
        assert_eq!(decode(&bytes).unwrap().bytes(), expected);
    };
    let png = ImageFormat::Png;
    let grey = ImageBuffer::<Luma<u8>, _>::from_raw(2, 1, vec![3, 250]).unwrap();
    check(encoded(grey, png), &[3, 3, 3, 250, 250, 250]);
    let grey = ImageBuffer::<LumaA<u8>, _>::from_raw(2, 1, vec![3, 0, 250, 9]).unwrap();
    check(encoded(grey, png), &[3, 3, 3, 250, 250, 250]);
    let clear = ImageBuffer::<Rgba<u8>, _>::from_raw(1, 1, vec![10, 20, 30, 0]).unwrap();
    check(encoded(clear.clone(), png), &[10, 20, 30]);
    let dim = ImageBuffer::<Rgba<u8>, _>::from_raw(1, 1, vec![10, 20, 30, 128]).unwrap();
    check(encoded(dim, ImageFormat::WebP), &[10, 20, 30]);
    let deep = ImageBuffer::<RgbPixel<u16>, _>::from_raw(1, 1, vec![255, 256, 65279]).unwrap();
    check(encoded(deep, png), &[0, 1, 254]);
    let deep = ImageBuffer::<Rgba<u16>, _>::from_raw(1, 1, vec![255, 32768, 65535, 0]).unwrap();
    check(encoded(deep, png), &[0, 128, 255]);
    let deep = ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![255, 65279]).unwrap();
    check(encoded(deep, png), &[0, 0, 0, 254, 254, 254]);
    let deep = ImageBuffer::<LumaA<u16>, _>::from_raw(1, 1, vec![65279, 0]).unwrap();
    check(encoded(deep, png), &[254, 254, 254]);
}

/// A PNG of this size whose pixels are not there.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn an_empty_file_is_refused() {
    check_refusal(
        b"",
        expect![[r#"
        error[SC0501]: the picture is empty
          because the file has 0 bytes

        hint: fetch or copy the file again; does another program open it?
        exit 3"#]],
    );
}

#[test]
fn other_files_are_refused() {
    check_refusal(
        b"GIF89a\x01\0\x01\0\0\0\0",
        expect![[r#"
        error[SC0502]: pictures in the format GIF are not read

        hint: give a JPEG, PNG or WebP file
        exit 3"#]],
    );
    check_refusal(
        b"a question, not a picture",
        expect![[r#"
        error[SC0502]: this is not a picture
          because its first bytes are not those of a picture format

        hint: give a JPEG, PNG or WebP file
        exit 3"#]],
    );
}

#[test]
fn a_picture_too_long_or_too_large_is_refused_by_its_header() {
    check_refusal(
        &png_header(30_000, 1),
        expect![[r#"
            error[SC0504]: a picture of 30,000 by 1 pixels is too large
              because at most 20,000 pixels on a side and 100,000,000 in all are read

            hint: scale the picture down or cut out the part you mean
            exit 3"#]],
    );
    check_refusal(
        &png_header(10_001, 10_000),
        expect![[r#"
            error[SC0504]: a picture of 10,001 by 10,000 pixels is too large
              because at most 20,000 pixels on a side and 100,000,000 in all are read

            hint: scale the picture down or cut out the part you mean
            exit 3"#]],
    );
    assert_eq!(dimensions(&png_header(10_000, 10_000)), Ok((10_000, 10_000)));
    assert_eq!(dimensions(&png_header(20_000, 1)), Ok((20_000, 1)));
}

#[test]
fn a_picture_that_ends_too_early_is_refused() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let whole = encoded(pattern_image(40, 30), format);
        let refusal = decode(&whole[..whole.len() * 3 / 4]).err().expect("cut short");
        assert!(
            matches!(refusal, ImageError::Truncated { .. } | ImageError::Damaged { .. }),
            "{format:?}: {refusal}"
        );
    }
    let whole = encoded(pattern_image(40, 30), ImageFormat::Jpeg);
    let refusal = decode(&whole[..whole.len() - 2]).err().expect("cut short");
    expect![[r#"
        error[SC0506]: the picture is cut short
          because its JPEG data end too early

        hint: fetch or copy the file again; does another program open it?"#]]
    .assert_eq(&report(&refusal));
}

#[test]
fn an_animation_is_refused() {
    // A still WebP's first frame in an animation's container, as far as its header goes.
    let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x0f\0\0\x0f\0\0".to_vec();
    webp.extend(b"ANIM\x06\0\0\0\0\0\0\0\0\0ANMF\x18\0\0\0");
    webp.extend([0; 24]);
    let length = u32::try_from(webp.len() - 8).unwrap();
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    check_refusal(
        &webp,
        expect![[r#"
        error[SC0503]: an animated WebP is not read

        hint: save the frame you mean as a PNG
        exit 3"#]],
    );

    let still = encoded(pattern_image(4, 4), ImageFormat::Png);
    let mut control = b"acTL\0\0\0\x02\0\0\0\0".to_vec();
    control.extend(crc32(&control).to_be_bytes());
    let header_end = 8 + 12 + 13;
    let animated = [&still[..header_end], &[0, 0, 0, 8], &control, &still[header_end..]].concat();
    assert_eq!(decode(&animated).err(), Some(ImageError::Animated { format: "PNG" }));
}

#[test]
fn a_tiling_that_makes_no_sense_is_refused() {
    let good = Tiling::default();
    for bad in [
        Tiling { tile_size: 0, ..good.clone() },
        Tiling { tokens_per_tile: 0, ..good.clone() },
        Tiling { min_tiles: 0, ..good.clone() },
        Tiling { min_tiles: 11, ..good.clone() },
        Tiling { max_tiles: u32::MAX, ..good.clone() },
        Tiling { tile_size: u32::MAX, ..good.clone() },
        Tiling { std: [0.2, 0.0, 0.2], ..good.clone() },
        Tiling { mean: [f32::NAN, 0.0, 0.0], ..good.clone() },
    ] {
        let refusal = tiles(&pattern(3, 3), &bad).err();
        assert!(matches!(refusal, Some(ImageError::Tiling { .. })), "{bad:?}");
    }
}

/// A xorshift generator: the same damage in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn damaged_pictures_never_panic_and_never_grow() {
    let colour = pattern_image(40, 30);
    let grey = DynamicImage::from(colour.clone()).into_luma8();
    let mut samples = Vec::new();
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        samples.push(encoded(colour.clone(), format));
    }
    samples.push(encoded(grey.clone(), ImageFormat::Png));
    let mut small = Vec::new();
    JpegEncoder::new_with_quality(&mut small, 20).encode_image(&grey).unwrap();
    samples.push(small);

    let mut state = 0x005e_ed0f_da3a_9ed5;
    for sample in &samples {
        for end in 0..sample.len() {
            let _ = decode(&sample[..end]);
        }
        for _ in 0..600 {
            let mut damaged = sample.clone();
            for _ in 0..1 + next(&mut state) % 4 {
                let at = next(&mut state) as usize % damaged.len();
                damaged[at] = next(&mut state) as u8;
            }
            if let Ok(picture) = decode(&damaged) {
                assert_eq!(
                    picture.bytes().len(),
                    3 * picture.width() as usize * picture.height() as usize
                );
            }
        }
    }
}
