//! From a request to token ids and image tiles, refusing everything that will not fit.

use std::ops::Range;

use half::bf16;
use sail_ir::artifact::Tiling;

use super::request::{Content, Input, Picture, Request};
use super::{Session, u32_of};
use crate::error::ContextError;
use crate::image::{self, Tiles};
use crate::text::{Chat, Question};
use crate::{Program, RunError};

/// What vision and prefill read.
pub(super) struct Prepared {
    pub ids: Vec<u32>,
    /// For each id, its row of the image features, or -1.
    pub image_rows: Vec<i32>,
    pictures: Vec<Tiles>,
}

impl Prepared {
    /// Image tiles of all pictures.
    pub fn tiles(&self) -> u32 {
        u32_of(self.pictures.iter().map(Tiles::count).sum())
    }

    /// Write the pixels of the tiles `range`, counted over all pictures.
    pub fn fill(&self, range: Range<usize>, out: &mut [bf16]) {
        let mut out = out;
        let mut first = 0;
        for tiles in &self.pictures {
            let start = range.start.clamp(first, first + tiles.count()) - first;
            let end = range.end.clamp(first, first + tiles.count()) - first;
            let (mine, rest) = out.split_at_mut((end - start) * tiles.tile_values());
            tiles.pixels_bf16(start..end, mine);
            out = rest;
            first += tiles.count();
        }
    }
}

/// Everything up to the first work on the device.
///
/// Sizes come from the pictures' headers, so a question that is too long is refused before a
/// picture is decoded.
pub(super) fn prepare(session: &Session, request: &Request) -> Result<Prepared, RunError> {
    let program = session.program;
    let tiling = tiling(program, request);
    let places = places(request.pictures, &tiling)?;
    let mut ids = ids(session, request, &places)?;
    if let Some(pending) = session.pending {
        ids.insert(0, pending);
    }
    check_ids(program, &ids)?;
    let image_positions: u32 = places.iter().sum();
    check_context(session, &ids, image_positions, &tiling)?;
    let image_rows = image_rows(program, &ids, image_positions)?;
    let pictures = request.pictures.iter().map(|picture| cut(picture, &tiling));
    Ok(Prepared { image_rows, ids, pictures: pictures.collect::<Result<_, _>>()? })
}

fn tiling(program: &Program, request: &Request) -> Tiling {
    let mut tiling = program.manifest().tiling.clone();
    if let Some(most) = request.max_tiles {
        tiling.max_tiles = tiling.max_tiles.min(most).max(tiling.min_tiles);
    }
    tiling
}

/// Positions that each picture takes.
fn places(pictures: &[Picture], tiling: &Tiling) -> Result<Vec<u32>, RunError> {
    let places = pictures.iter().map(|picture| {
        let (width, height) = match picture.content {
            Content::Encoded(bytes) => image::dimensions(bytes).map_err(about(picture))?,
            Content::Pixels(pixels) => (pixels.width(), pixels.height()),
        };
        Ok(image::tokens_for(tiling, width, height))
    });
    places.collect()
}

fn about(picture: &Picture) -> impl FnOnce(image::ImageError) -> RunError {
    let name = picture.name.to_owned();
    move |error| RunError::Picture { name, error }
}

fn ids(session: &Session, request: &Request, places: &[u32]) -> Result<Vec<u32>, RunError> {
    let text = session.program.text();
    let question = |text| Question { text, pictures: places, think: request.think };
    let prompt = match request.input {
        Input::Ids(ids) => return Ok(ids.to_vec()),
        Input::Text(words) if session.used == 0 => {
            let system = session.system.as_deref();
            text.prompt(&Chat { system, past: &[], question: question(words) })
        }
        Input::Text(words) => text.follow_up(&question(words)),
    };
    prompt.map(|prompt| prompt.ids).map_err(RunError::Text)
}

/// Ids that the model has no row for would lead out of its tables.
fn check_ids(program: &Program, ids: &[u32]) -> Result<(), RunError> {
    if ids.is_empty() {
        return Err(RunError::NoIds);
    }
    let vocabulary = program.manifest().model.decoder.vocabulary;
    match ids.iter().find(|id| u64::from(**id) >= vocabulary) {
        Some(id) => Err(RunError::UnknownId { id: *id, vocabulary }),
        None => Ok(()),
    }
}

fn check_context(
    session: &Session,
    ids: &[u32],
    image_positions: u32,
    tiling: &Tiling,
) -> Result<(), RunError> {
    let program = session.program;
    let context = program.context();
    let length = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    if u64::from(session.used) + u64::from(length) <= u64::from(context) {
        return Ok(());
    }
    Err(RunError::Context(ContextError {
        used: session.used,
        tiles: image_positions / tiling.tokens_per_tile,
        image_positions,
        text_positions: length.saturating_sub(image_positions),
        context,
        max_context: program.manifest().plan.cache.max_positions,
    }))
}

/// The k-th place of a picture takes the k-th row of the features.
fn image_rows(program: &Program, ids: &[u32], expected: u32) -> Result<Vec<i32>, RunError> {
    let place = program.manifest().tokens.image_context;
    let mut next = 0;
    let rows = ids.iter().map(|id| {
        if *id != place {
            return -1;
        }
        next += 1;
        next - 1
    });
    let rows: Vec<i32> = rows.collect();
    match u32::try_from(next) {
        Ok(found) if found == expected => Ok(rows),
        _ => Err(RunError::Places { found: next.unsigned_abs(), expected }),
    }
}

fn cut(picture: &Picture, tiling: &Tiling) -> Result<Tiles, RunError> {
    let decoded;
    let pixels = match picture.content {
        Content::Pixels(pixels) => pixels,
        Content::Encoded(bytes) => {
            decoded = image::decode(bytes).map_err(about(picture))?;
            &decoded
        }
    };
    image::tiles(pixels, tiling).map_err(about(picture))
}
