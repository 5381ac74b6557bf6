//! Which experts tokens go through: counted rightly, and computed rightly where they all go to the
//! same few.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use sail_ir::expert_profile::{ExpertProfile, TokenKind};
use sail_models::{Model, WeightSource};
use sail_runtime::execute::{Outputs, Tokens, Twin};
use sail_runtime::experts::{ExpertCounts, heat_map};
use sail_runtime::image::Rgb;
use sail_runtime::{Options as Opening, Picture, Program, Request, Session};
use sail_tests::compiled::{artifact, compile, open, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::recorded::RECORDED;
use sail_tests::{drawn, oracle};
use sailc::golden::Golden;
use sailc::golden::run::positions;
use sailc::options::Options;

use super::verified::lies_within;

static GO: AtomicBool = AtomicBool::new(false);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("each token of each kind is counted for all of its experts", add_up),
        Test::new("where a router is even, the first experts get every token, rightly", skewed),
        Test::new("the heat map of a profile is well-formed", well_formed),
        Test::new("a dense model has no experts to count", dense),
    ]
}

/// Ask the recorded mixture of experts about a picture, and count.
fn asked() -> Result<(ExpertProfile, Vec<u64>), Outcome> {
    let target = targets()?.pop().expect("there is at least one");
    let options = Opening { context: Some(512), ..Opening::default() };
    let program = open(&artifact(&RECORDED[1], &target)?, &options)?;
    let counts = watched(&program);
    let side = program.manifest().tiling.tile_size;
    let grey = Rgb::new(side, side, vec![100; 3 * (side * side) as usize]).map_err(told)?;
    let pictures = [Picture::pixels("grey", &grey)];
    let request =
        Request { pictures: &pictures, max_tokens: 6, ..Request::new(&program, "What is this?") };
    let mut session = Session::new(&program).map_err(told)?;
    let answer = session.ask(&request, &mut |_| {}).map_err(told)?;
    let image = u64::from(answer.timings.tiles * program.manifest().tiling.tokens_per_tile);
    let prompt = answer.timings.prompt_tokens as u64 - image;
    // The last token of an answer is chosen, but goes through nothing.
    let generated = answer.ids.len() as u64 - 1;
    let profile = counts.lock().expect("nobody panicked").profile().clone();
    Ok((profile, vec![image, prompt, generated]))
}

fn watched(program: &Program) -> Arc<Mutex<ExpertCounts>> {
    let counts = ExpertCounts::new(program.manifest()).expect("the model has experts");
    let counts = Arc::new(Mutex::new(counts));
    let theirs = Arc::clone(&counts);
    program.watch(Some(Box::new(move |_, done| {
        theirs.lock().expect("nobody panicked").add(done);
    })));
    counts
}

fn add_up() -> Result<(), Outcome> {
    let (profile, tokens) = asked()?;
    assert!(tokens.iter().all(|count| *count > 0), "{tokens:?}");
    let top_k = profile.model.decoder.experts.expect("the model has experts").top_k;
    assert!(!profile.layers.is_empty());
    for (kind, tokens) in TokenKind::ALL.into_iter().zip(tokens) {
        assert_eq!(*profile.tokens.of(kind), tokens, "{kind:?}");
        for row in &profile.layers {
            let counts = row.counts.of(kind);
            assert_eq!(counts.iter().sum::<u64>(), tokens * top_k, "{kind:?}, layer {}", row.layer);
            assert!(counts.iter().all(|count| *count <= tokens), "an expert twice for one token");
        }
    }
    let text = serde_json::to_vec(&profile).map_err(failed)?;
    assert_eq!(ExpertProfile::parse(&text), Ok(profile));
    Ok(())
}

/// Of equal logits the lower expert comes first, so a router of zeros sends every token to the
/// first `top_k` experts and leaves the others without any.
fn skewed() -> Result<(), Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let checkpoint = folder.path().join("model");
    let model = even(&checkpoint)?;
    let prompt = drawn::prompt(&model.spec, 3);
    let path = folder.path().join("golden.safetensors");
    oracle::write(&model, &prompt, &path)?;
    let golden = Golden::open(&path).map_err(told)?;
    let context = Some(positions(&golden).map_err(|error| failed(error.to_string()))?);
    for target in targets()? {
        let artifact = folder.path().join("model.sail");
        compile(&checkpoint, &Options::new(target), &artifact)?;
        let options = Opening { context, slots: 1, taps: true, ..Opening::default() };
        let program = open(&artifact, &options)?;
        lies_within(&program, &golden, false)?;

        let mut counts = ExpertCounts::new(program.manifest()).expect("the model has experts");
        let mut engine = program.engine();
        let (ids, image_rows) = ([7; 40], [-1; 40]);
        engine.hold(0, 40).map_err(|full| failed(format!("{full:?}")))?;
        let tokens = Tokens { slot: 0, start: 0, ids: &ids, image_rows: &image_rows };
        let mut watch = |done: &sail_runtime::execute::Done| counts.add(done);
        engine.prefill(Twin::Production, tokens, Outputs::Last, &GO, &mut watch).map_err(told)?;
        let top_k = program.manifest().model.decoder.experts.expect("it has experts").top_k;
        for row in &counts.profile().layers {
            for (expert, count) in row.totals().into_iter().enumerate() {
                let wanted = if (expert as u64) < top_k { 40 } else { 0 };
                assert_eq!(count, wanted, "expert {expert} of layer {}", row.layer);
            }
        }
    }
    Ok(())
}

/// The recorded mixture of experts with zeros for routers.
fn even(to: &Path) -> Result<Model, Outcome> {
    let from = RECORDED[1].paths()?.0;
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let mut bytes = fs::read(entry.path()).map_err(failed)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("model-") {
            clear_routers(&mut bytes)?;
        }
        fs::write(to.join(name), bytes).map_err(failed)?;
    }
    sail_models::open(to, WeightSource::Checkpoint).map_err(told)
}

fn clear_routers(file: &mut [u8]) -> Result<(), Outcome> {
    let (length, rest) = file.split_at_mut(8);
    let length = u64::from_le_bytes((&*length).try_into().expect("eight bytes")) as usize;
    let (header, data) = rest.split_at_mut(length);
    let header: serde_json::Value = serde_json::from_slice(header).map_err(failed)?;
    for (name, tensor) in header.as_object().expect("a header is an object") {
        if name.ends_with(".mlp.gate.weight") {
            let [from, to] = [0, 1].map(|at| tensor["data_offsets"][at].as_u64());
            let run = from.expect("an offset") as usize..to.expect("an offset") as usize;
            data[run].fill(0);
        }
    }
    Ok(())
}

fn well_formed() -> Result<(), Outcome> {
    let (profile, _) = asked()?;
    let svg = heat_map(&profile);
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains(['&', '>']), "text that is no text: {text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        let name = tag.trim_matches('/').split(' ').next().expect("a name");
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (false, true) => {}
            (false, false) => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} are left open");
    for kind in TokenKind::ALL {
        let tokens = profile.tokens.of(kind);
        assert!(svg.contains(&format!(">{tokens} {}<", kind.name())), "no map of {kind:?}");
    }
    // Every cell of every map is in one of the runs.
    let cells = 6 * profile.layers.len() * profile.layers[0].counts.image.len();
    let runs = svg.split('h').filter_map(|run| run.split(['M', '"']).next()?.parse::<usize>().ok());
    assert_eq!(runs.sum::<usize>(), 3 * cells);
    Ok(())
}

fn dense() -> Result<(), Outcome> {
    let target = targets()?.pop().expect("there is at least one");
    let program = open(&artifact(&RECORDED[0], &target)?, &Opening::default())?;
    assert!(ExpertCounts::new(program.manifest()).is_none());
    Ok(())
}
