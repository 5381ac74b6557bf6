//! Runs a recorded case on a program, for [`super::judge`].

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use half::bf16;
use sail_runtime::Program;
use sail_runtime::execute::{Engine, Outputs, Replace, Row, Tokens, Twin};
use sail_runtime::image::Tiles;
use sail_runtime::taps::{Inside, Pattern, collect};

use super::judge::{Observed, Rule, ranked};
use super::retrace::Retrace;
use super::tokens::{self, Decoded, GREEDY_TOKENS, Swap};
use super::{Case, Golden};
use crate::error::{CompileError, Failure, boxed};

/// How the decoder stages of `program` are judged; `forced`: the golden's routers choose.
#[must_use]
pub fn rule(program: &Program, forced: bool) -> Rule {
    let experts = program.manifest().model.decoder.experts;
    match experts.map(|experts| experts.top_k as usize) {
        None => Rule::Dense,
        Some(top_k) if forced => Rule::Forced { top_k },
        Some(top_k) => Rule::Routed { top_k },
    }
}

/// Positions that the longest case of a golden needs, with what it generates.
pub fn positions(golden: &Golden) -> Result<u32, Failure> {
    let mut most = 0;
    for case in golden.cases() {
        most = most.max(case.ids().map_err(boxed)?.len() + GREEDY_TOKENS);
    }
    Ok(u32::try_from(most).unwrap_or(u32::MAX))
}

/// What `program` computes for a case: every tapped stage, then the tokens it would generate.
///
/// Stages come from the tapped twins, tokens from the production functions. With [`Rule::Forced`]
/// the golden's router logits choose the experts in the twins.
///
/// Refuses a case that is not of the program's model (other tokens, tiles, image places or sizes), one
/// that lacks a stage, and what the device refuses.
pub fn observe(program: &Program, case: &Case<'_>, rule: Rule) -> Result<Observed, Failure> {
    observe_with(program, case, (rule, 0))
}

/// As [`observe`]; then so many `rows` are decoded in one call, as many slots as the program must have.
///
/// Refuses more rows than the program decodes in one call, too.
pub fn observe_with(
    program: &Program,
    case: &Case<'_>,
    (rule, rows): (Rule, u32),
) -> Result<Observed, Failure> {
    let ids = case.ids().map_err(boxed)?;
    let context = program.manifest().tokens.image_context;
    let image_rows = image_rows(&ids, context);
    let pictures = pictures(program, case)?;
    fits(program, case, &ids, pictures.as_ref())?;
    has_its_sizes(program, case, ids.len())?;
    let stop = AtomicBool::new(false);
    let engine = &mut *program.engine();
    let most = engine.decode_rows();
    if rows > most {
        return Err(boxed(CompileError::Rows { asked: rows, most }));
    }
    let held = u32::try_from(ids.len() + GREEDY_TOKENS).unwrap_or(u32::MAX);
    engine.hold(0, held).expect("broken invariant `golden.held`: opened with fewer positions");

    let tiles = pictures.as_ref().map_or(0, Tiles::count) as u32;
    let mut fill = |range, out: &mut [bf16]| {
        if let Some(pictures) = &pictures {
            pictures.pixels_bf16(range, out);
        }
    };
    let inside = Inside { tiles, fill: &mut fill, ids: &ids, image_rows: &image_rows };
    if let Rule::Forced { top_k } = rule {
        engine.replace_tapped(Some(recorded_routes(case, top_k)?));
    }
    let tensors = collect(engine, inside, &Pattern::new("*"), &stop);
    engine.replace_tapped(None);
    let tensors = tensors.map_err(boxed)?;
    for tensor in &tensors {
        case.tensor(&tensor.name).map_err(boxed)?; // all that is computed is compared
    }
    let stages = tensors.into_iter().map(|tensor| (tensor.name, tensor.values)).collect();

    if tiles > 0 {
        engine.vision(Twin::Production, tiles, &mut fill, &stop, &mut |_| ()).map_err(boxed)?;
    }
    let greedy = generate(engine, &ids, &image_rows, &program.manifest().tokens.eos, &stop)?;
    let swap = match rule {
        Rule::Dense => None,
        Rule::Routed { top_k } | Rule::Forced { top_k } => {
            explained(engine, case, (&ids, &image_rows), &greedy, (top_k, &stop))?
        }
    };
    let decoded = match rows {
        0 => None,
        _ => together(engine, case, (&ids, &image_rows), rows, &stop)?,
    };
    Ok(Observed { stages, greedy: Some(greedy), swap, decoded })
}

/// What explains the first of `ours` that differs, where it is not explained by itself.
fn explained(
    engine: &mut Engine,
    case: &Case<'_>,
    (ids, image_rows): (&[u32], &[i32]),
    ours: &[u32],
    (top_k, stop): (usize, &AtomicBool),
) -> Result<Option<Swap>, Failure> {
    let judged = tokens::greedy(case, ours, None).map_err(boxed)?;
    let golden = case.greedy().map_err(boxed)?;
    let Some(wanted) = golden.get(judged.equal).filter(|_| !judged.within) else {
        return Ok(None);
    };
    let prompt = ids.len();
    let ids = [ids, &golden[..judged.equal]].concat();
    let mut image_rows = image_rows.to_vec();
    image_rows.resize(ids.len(), -1);
    Retrace { engine, case, ids, image_rows, prompt, top_k, stop }.swap(*wanted)
}

/// Decode `rows` rows in one call: row `i` is of slot `i`, which has the prompt and `i` of the golden's
/// tokens more, or fewer where the golden has fewer; nothing where it has no second one.
fn together(
    engine: &mut Engine,
    case: &Case<'_>,
    (ids, image_rows): (&[u32], &[i32]),
    rows: u32,
    stop: &AtomicBool,
) -> Result<Option<Decoded>, Failure> {
    let greedy = case.greedy().map_err(boxed)?;
    let recorded = case.tensor("greedy_logits").map_err(boxed)?;
    // The logits of the first step are those of the prompt, of the last one nothing is decoded.
    let steps = recorded.values.len() / recorded.width();
    let different = greedy.len().min(steps.saturating_sub(1));
    if different == 0 {
        return Ok(None);
    }
    let mut batch = Vec::new();
    for slot in 0..rows {
        let kept = slot as usize % different;
        let ids = [ids, &greedy[..kept]].concat();
        let mut image_rows = image_rows.to_vec();
        image_rows.resize(ids.len(), -1);
        let position = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        engine.hold(slot, position + 1).expect("broken invariant `golden.held`: too few slots");
        let tokens = Tokens { slot, start: 0, ids: &ids, image_rows: &image_rows };
        engine
            .prefill(Twin::Production, tokens, Outputs::Last, stop, &mut |_| ())
            .map_err(boxed)?;
        batch.push(Row { slot, position, id: greedy[kept] });
    }
    engine.decode(&batch, stop, &mut |_| ()).map_err(boxed)?;
    let logits = (0..batch.len()).flat_map(|row| engine.logits(row).iter().map(|v| v.to_f32()));
    let steps = (0..batch.len()).map(|row| row % different + 1).collect();
    Ok(Some(Decoded { steps, logits: logits.collect() }))
}

/// Puts the recorded logits of a router in the place of ours, chunk after chunk.
fn recorded_routes(case: &Case<'_>, top_k: usize) -> Result<Replace, Failure> {
    let mut recorded = BTreeMap::new();
    for (_, name) in case.routers() {
        let tensor = case.tensor(name).map_err(boxed)?;
        let rows = tensor.values.chunks(tensor.width());
        let logits: Vec<bf16> = rows.flat_map(|row| with_choice(row, top_k)).collect();
        recorded.insert(name.to_owned(), (logits, 0));
    }
    Ok(Box::new(move |name, ours| {
        let Some((values, taken)) = recorded.get_mut(name) else { return };
        for (ours, golden) in ours.iter_mut().zip(&values[*taken..]) {
            *ours = *golden;
        }
        *taken += ours.len();
    }))
}

/// A row of logits rounded to bf16 such that the same `top_k` lead: others that come to lie as high
/// as the last of them are rounded down.
pub(super) fn with_choice(logits: &[f32], top_k: usize) -> Vec<bf16> {
    let order = ranked(logits);
    let mut rounded: Vec<bf16> = logits.iter().map(|logit| bf16::from_f32(*logit)).collect();
    let last = order[..top_k].iter().map(|expert| rounded[*expert]).fold(bf16::INFINITY, bf16::min);
    for expert in &order[top_k..] {
        if rounded[*expert] >= last {
            rounded[*expert] = below(last);
        }
    }
    rounded
}

/// The next bf16 value down.
fn below(value: bf16) -> bf16 {
    match value.to_bits() {
        0 | 0x8000 => bf16::from_bits(0x8001),
        bits if value.is_sign_negative() => bf16::from_bits(bits + 1),
        bits => bf16::from_bits(bits - 1),
    }
}

/// For each token its row of the image features, or -1 for text.
fn image_rows(ids: &[u32], context: u32) -> Vec<i32> {
    let mut next = 0;
    let row = |id: &u32| {
        if *id != context {
            return -1;
        }
        next += 1;
        next - 1
    };
    ids.iter().map(row).collect()
}

fn pictures(program: &Program, case: &Case<'_>) -> Result<Option<Tiles>, Failure> {
    let Some(tiles) = case.tiles().map_err(boxed)? else { return Ok(None) };
    let tiling = &program.manifest().tiling;
    let size = tiling.tile_size as usize;
    if tiles.dims.get(1..) != Some(&[size, size, 3]) {
        return Err(boxed(case.golden.refuse(format!(
            "its tiles are {:?}, the program's are {size} pixels on a side",
            tiles.dims
        ))));
    }
    Tiles::of_bytes(tiles.bytes.to_vec(), tiling).map(Some).map_err(boxed)
}

/// Tokens are in the vocabulary, and image places are as many as the tiles fill.
fn fits(
    program: &Program,
    case: &Case<'_>,
    ids: &[u32],
    pictures: Option<&Tiles>,
) -> Result<(), Failure> {
    let manifest = program.manifest();
    let refuse = |because: String| Err(boxed(case.golden.refuse(because)));
    let vocabulary = manifest.model.decoder.vocabulary;
    if let Some(id) = ids.iter().find(|id| u64::from(**id) >= vocabulary) {
        return refuse(format!("it has token {id}, the program's vocabulary ends at {vocabulary}"));
    }
    let places = ids.iter().filter(|id| **id == manifest.tokens.image_context).count();
    let filled = pictures.map_or(0, Tiles::count) * manifest.tiling.tokens_per_tile as usize;
    if ids.is_empty() || places != filled {
        return refuse(format!(
            "it has {} tokens, {places} of them image places, and its tiles fill {filled}",
            ids.len()
        ));
    }
    Ok(())
}

/// What is read row by row has rows of the model's width, and each run of the reference as many.
fn has_its_sizes(program: &Program, case: &Case<'_>, tokens: usize) -> Result<(), Failure> {
    let decoder = &program.manifest().model.decoder;
    let refuse = |because: String| Err(boxed(case.golden.refuse(because)));
    for name in case.stages() {
        let dims = case.tensor(name).map_err(boxed)?.dims;
        let other = case.in_bf16(name).map_err(boxed)?.dims;
        if other != dims {
            return refuse(format!("`{name}` is {dims:?} and `{name}_bf16` is {other:?}"));
        }
    }
    let routers = case.routers().into_iter().map(|(_, name)| name);
    let experts = match (decoder.experts, case.routers().first()) {
        (None, Some((_, name))) => {
            return refuse(format!("it has `{name}`, the program has no experts"));
        }
        (experts, _) => experts.map_or(0, |experts| experts.count),
    };
    let rows = routers.map(|name| (name, Some(tokens), experts));
    let vocabulary = decoder.vocabulary;
    let logits = [("logits", Some(tokens), vocabulary), ("greedy_logits", None, vocabulary)];
    for (name, rows, width) in rows.chain(logits) {
        let dims = case.tensor(name).map_err(boxed)?.dims;
        let fits = |dims: &[usize]| {
            dims.len() == 2 && rows.is_none_or(|rows| dims[0] == rows) && dims[1] as u64 == width
        };
        if !fits(&dims) {
            let rows = rows.map_or("steps".to_owned(), |rows| rows.to_string());
            return refuse(format!("`{name}` is {dims:?}, expected [{rows}, {width}]"));
        }
    }
    Ok(())
}

/// The most probable tokens after the prompt, the end of text left out.
fn generate(
    engine: &mut Engine,
    ids: &[u32],
    image_rows: &[i32],
    eos: &[u32],
    stop: &AtomicBool,
) -> Result<Vec<u32>, Failure> {
    let tokens = Tokens { slot: 0, start: 0, ids, image_rows };
    let (twin, last) = (Twin::Production, Outputs::Last);
    engine.prefill(twin, tokens, last, stop, &mut |_| ()).map_err(boxed)?;
    let mut generated = Vec::new();
    for position in ids.len().. {
        let id = most_probable(engine.logits(0));
        if eos.contains(&id) {
            break;
        }
        generated.push(id);
        if generated.len() == GREEDY_TOKENS {
            break;
        }
        let row = Row { slot: 0, position: position as u32, id };
        engine.decode(&[row], stop, &mut |_| ()).map_err(boxed)?;
    }
    Ok(generated)
}

/// The lowest id of the greatest logit.
fn most_probable(logits: &[bf16]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_logits_lead_to_the_same_experts() {
        // 1.001 and 1.002 are both 1.0 in bf16, where the lower index would lead.
        let rounded = with_choice(&[1.001, 0.5, 1.002, -3.0], 1);
        assert!(rounded[2] > rounded[0] && rounded[0] > rounded[1], "{rounded:?}");
        let rounded = with_choice(&[-1.002, -1.001], 1);
        assert!(rounded[1] > rounded[0], "{rounded:?}");
        assert_eq!(with_choice(&[2.0, 3.0], 2), [2.0, 3.0].map(bf16::from_f32));
    }

    #[test]
    fn below_zero_comes_the_smallest_negative() {
        assert!(below(bf16::ZERO) < bf16::ZERO);
        assert!(below(bf16::ONE) < bf16::ONE && below(bf16::NEG_ONE) < bf16::NEG_ONE);
    }
}
