//! Runs a whole model in f64: vision, prefill, then greedy tokens, as the runtime would.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sail_kernels::reference::Rounding;
use sail_models::sail_vl2::forward;
use sail_models::{Model, ModelSpec};
use sailc::golden::tokens::GREEDY_TOKENS;
use sailc::golden::{Case, GoldenError, Observed};

use crate::harness::{Outcome, failed};
use crate::interpreter::{Interpreter, Routers, Tapped, Value};

/// How far the f64 oracle may lie from a reference run in f32, as relative L2 distance.
///
/// The reference rounds every product and sum to 24 bits; over the few layers of the recorded
/// models that makes 9e-7 at most. A wrong formula lies above 1e-2.
pub const DISTANCE_FROM_F32: f64 = 1e-5;

/// A prompt as the model reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// `[n, s, s, 3]`, empty without pictures.
    pub tiles: Vec<u8>,
}

impl Prompt {
    /// The prompt of a recorded case.
    pub fn of(case: &Case<'_>) -> Result<Self, GoldenError> {
        let tiles = case.tiles()?.map(|tiles| tiles.bytes.to_vec()).unwrap_or_default();
        Ok(Self { ids: case.ids()?, tiles })
    }
}

/// What the oracle computed.
#[derive(Debug)]
pub struct Run {
    pub stages: Tapped,
    pub greedy: Vec<u32>,
    /// The logits that chose `greedy`, or the end at once: `[max(1, g), v]`.
    pub greedy_logits: Vec<f32>,
}

impl Run {
    #[must_use]
    pub fn observed(&self) -> Observed {
        let stages = self.stages.iter().map(|(name, tensor)| (name.clone(), tensor.values.clone()));
        let greedy = Some(self.greedy.clone());
        Observed { stages: stages.collect(), greedy, ..Observed::default() }
    }
}

/// All stages of `prompt` and the greedy tokens after it.
#[must_use]
pub fn run(model: &Model, prompt: &Prompt, rounding: Rounding, routers: Option<Routers>) -> Run {
    let Model { spec, weights, .. } = model;
    let mut g = Interpreter::new(weights, rounding);
    g.force_routes(routers);
    let features = features(&mut g, spec, &prompt.tiles, rounding);
    let t = prompt.ids.len();
    let inputs = forward::Prompt {
        ids: g.ints(&[t], prompt.ids.iter().map(|id| *id as i32).collect()),
        rows: g.ints(&[t, 2], (0..t as i32).flat_map(|position| [0, position]).collect()),
        image_rows: g.ints(&[t], image_rows(spec, &prompt.ids)),
        features,
        outputs: g.ints(&[t], (0..t as i32).collect()),
    };
    let logits = forward::prefill(&mut g, spec, &inputs);
    let stages = g.take_taps();
    g.force_routes(None);
    let all = g.values(logits);
    let last = all[all.len() - spec.decoder.vocab as usize..].to_vec();
    let (greedy, greedy_logits) = greedy(&mut g, spec, t, last);
    Run { stages, greedy, greedy_logits }
}

fn features(g: &mut Interpreter<'_>, spec: &ModelSpec, tiles: &[u8], rounding: Rounding) -> Value {
    let (channels, size) = (spec.vision.channels as usize, spec.vision.tile_size as usize);
    let count = tiles.len() / (channels * size * size);
    if count == 0 {
        let row = [0, spec.adapter.tile_tokens as usize, spec.adapter.out_width as usize];
        return g.floats(&row, Vec::new());
    }
    let pixels = pixels(spec, tiles).into_iter().map(|value| rounding.round(value)).collect();
    let pixels = g.floats(&[count, channels, size, size], pixels);
    forward::vision(g, spec, pixels)
}

/// `[n, s, s, c]` bytes to `[n, c, s, s]`, scaled to 0..1 and normalised.
fn pixels(spec: &ModelSpec, tiles: &[u8]) -> Vec<f64> {
    let (channels, area) = (spec.vision.channels as usize, spec.vision.tile_size.pow(2) as usize);
    let mut pixels = Vec::with_capacity(tiles.len());
    for tile in tiles.chunks_exact(channels * area) {
        for channel in 0..channels {
            let [mean, std] = [spec.tiling.mean, spec.tiling.std].map(|of| f64::from(of[channel]));
            let bytes = tile[channel..].iter().step_by(channels);
            pixels.extend(bytes.map(|byte| (f64::from(*byte) / 255.0 - mean) / std));
        }
    }
    pixels
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

fn greedy(
    g: &mut Interpreter<'_>,
    spec: &ModelSpec,
    start: usize,
    mut logits: Vec<f64>,
) -> (Vec<u32>, Vec<f32>) {
    let (mut tokens, mut chosen_by) = (Vec::new(), Vec::new());
    while tokens.len() < GREEDY_TOKENS {
        let next = best(&logits);
        let is_end = spec.tokens.eos.contains(&next);
        if !is_end || tokens.is_empty() {
            chosen_by.extend(logits.iter().map(|logit| *logit as f32));
        }
        if is_end {
            break;
        }
        let position = (start + tokens.len()) as i32;
        tokens.push(next);
        let ids = g.ints(&[1], vec![next as i32]);
        let rows = g.ints(&[1, 2], vec![0, position]);
        let next = forward::decode(g, spec, ids, rows);
        logits = g.values(next).to_vec();
    }
    (tokens, chosen_by)
}

/// The first of the largest.
fn best(logits: &[f64]) -> u32 {
    let better =
        |best: usize, index: usize| if logits[index] > logits[best] { index } else { best };
    (0..logits.len()).reduce(better).expect("a vocabulary has words") as u32
}

/// Write what the oracle says of `prompt` in the form of a golden file, case `0`, for sizes of which
/// there is no golden. Its bf16 run is that of the twins, rounding where each op says.
pub fn write(model: &Model, prompt: &Prompt, path: &Path) -> Result<(), Outcome> {
    let exact = run(model, prompt, Rounding::Exact, None);
    let rounded = run(model, prompt, Rounding::Bf16, None);
    let mut file = File::default();
    file.ints("ids", &prompt.ids);
    file.ints("greedy", &exact.greedy);
    let vocab = model.spec.decoder.vocab as usize;
    file.floats("greedy_logits", &[exact.greedy_logits.len() / vocab, vocab], &exact.greedy_logits);
    for (runs, end) in [(&exact, ""), (&rounded, "_bf16")] {
        for (name, tensor) in &runs.stages {
            file.floats(&format!("{name}{end}"), &tensor.dims, &tensor.values);
        }
    }
    if !prompt.tiles.is_empty() {
        let side = model.spec.vision.tile_size as usize;
        let dims = [prompt.tiles.len() / (side * side * 3), side, side, 3];
        file.add("tiles", Dtype::U8, &dims, prompt.tiles.clone());
    }
    file.write(path)
}

/// Tensors on their way into a file.
#[derive(Default)]
struct File(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl File {
    fn add(&mut self, name: &str, dtype: Dtype, dims: &[usize], bytes: Vec<u8>) {
        self.0.push((format!("0.{name}"), dtype, dims.to_vec(), bytes));
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.add(name, Dtype::F32, dims, bytes);
    }

    fn ints(&mut self, name: &str, ids: &[u32]) {
        let bytes = ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
        self.add(name, Dtype::I64, &[ids.len()], bytes);
    }

    fn write(&self, path: &Path) -> Result<(), Outcome> {
        let views = self.0.iter().map(|(name, dtype, dims, bytes)| {
            TensorView::new(*dtype, dims.clone(), bytes).map(|view| (name, view)).map_err(failed)
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        fs::write(path, safetensors::serialize(views, None).map_err(failed)?).map_err(failed)
    }
}
