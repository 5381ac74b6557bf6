//! Runs a whole model in f64: vision, prefill, then greedy tokens, as the runtime would.

use sail_kernels::reference::Rounding;
use sail_models::sail_vl2::forward;
use sail_models::{ModelSpec, Weights};
use sailc::golden::judge::GREEDY_TOKENS;
use sailc::golden::{Case, GoldenError, Observed};

use crate::interpreter::{Interpreter, Routers, Value};

/// How far the f64 oracle may lie from a reference run in f32, as relative L2 distance.
///
/// The reference rounds every product and sum to 24 bits; over the few layers of the recorded
/// models that makes 9e-7 at most. A wrong formula lies above 1e-2.
pub const DISTANCE_FROM_F32: f64 = 1e-5;

/// A prompt as the model reads it.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// `[n, 3, s, s]`, empty without pictures.
    pub pixels: Vec<f64>,
}

impl Prompt {
    /// The prompt of a recorded case, with the pixels that the reference saw.
    pub fn of(case: &Case<'_>) -> Result<Self, GoldenError> {
        let pixels = match case.tiles()? {
            Some(_) => case.tensor("pixels")?.values.into_iter().map(f64::from).collect(),
            None => Vec::new(),
        };
        Ok(Self { ids: case.ids()?, pixels })
    }
}

/// All stages of `prompt` and up to `greedy` tokens after it.
pub fn run(
    (spec, weights): (&ModelSpec, &Weights),
    prompt: &Prompt,
    rounding: Rounding,
    routers: Option<Routers>,
) -> Observed {
    let mut g = Interpreter::new(weights, rounding);
    g.force_routes(routers);
    let features = features(&mut g, spec, &prompt.pixels);
    let t = prompt.ids.len();
    let inputs = forward::Prompt {
        ids: g.ints(&[t], prompt.ids.iter().map(|id| *id as i32).collect()),
        rows: g.ints(&[t, 2], (0..t as i32).flat_map(|position| [0, position]).collect()),
        image_rows: g.ints(&[t], image_rows(spec, &prompt.ids)),
        features,
        outputs: g.ints(&[t], (0..t as i32).collect()),
    };
    let logits = forward::prefill(&mut g, spec, &inputs);
    let first = best(last_row(g.values(logits), spec));
    let mut observed = Observed { stages: g.take_taps(), greedy: None };
    if prompt.pixels.is_empty() {
        observed.stages.retain(|name, _| name.starts_with(['l', 'r'])); // decoder stages only
    }
    g.force_routes(None);
    observed.greedy = Some(greedy(&mut g, spec, t, first));
    observed
}

fn features(g: &mut Interpreter<'_>, spec: &ModelSpec, pixels: &[f64]) -> Value {
    let (channels, size) = (spec.vision.channels as usize, spec.vision.tile_size as usize);
    let tiles = pixels.len() / (channels * size * size);
    if tiles == 0 {
        let row = [0, spec.adapter.tile_tokens as usize, spec.adapter.out_width as usize];
        return g.floats(&row, Vec::new());
    }
    let pixels = g.floats(&[tiles, channels, size, size], pixels.to_vec());
    forward::vision(g, spec, pixels)
}

/// Image places are filled in order; -1 everywhere else.
fn image_rows(spec: &ModelSpec, ids: &[u32]) -> Vec<i32> {
    let mut next = 0;
    let row = |id: &u32| {
        if *id != spec.tokens.image_context {
            return -1;
        }
        next += 1;
        next - 1
    };
    ids.iter().map(row).collect()
}

fn greedy(g: &mut Interpreter<'_>, spec: &ModelSpec, start: usize, first: u32) -> Vec<u32> {
    let (mut tokens, mut next) = (Vec::new(), first);
    while tokens.len() < GREEDY_TOKENS && !spec.tokens.eos.contains(&next) {
        tokens.push(next);
        let position = (start + tokens.len() - 1) as i32;
        let ids = g.ints(&[1], vec![next as i32]);
        let rows = g.ints(&[1, 2], vec![0, position]);
        let logits = forward::decode(g, spec, ids, rows);
        next = best(g.values(logits));
    }
    tokens
}

fn last_row<'a>(logits: &'a [f64], spec: &ModelSpec) -> &'a [f64] {
    &logits[logits.len() - spec.decoder.vocab as usize..]
}

/// The first of the largest.
fn best(logits: &[f64]) -> u32 {
    let better =
        |best: usize, index: usize| if logits[index] > logits[best] { index } else { best };
    (0..logits.len()).reduce(better).expect("a vocabulary has words") as u32
}
