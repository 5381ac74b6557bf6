//! From a picture file and a question to token ids and image tiles, as the reference made them.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use sail_runtime::taps::Pattern;
use sail_runtime::{Options, Picture, Request, Session, image};
use sail_tests::compiled::{artifact, open, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::{Case, Golden};
use serde_json::Value;

pub fn tests() -> Vec<Test> {
    let name =
        |name| format!("pictures and questions of {name} become the reference's ids and tiles");
    RECORDED.map(|one| Test::new(name(one.name), move || become_the_same(&one))).into()
}

fn become_the_same(recorded: &Recorded) -> Result<(), Outcome> {
    let (_, path) = recorded.paths()?;
    let golden = Golden::open(&path).map_err(told)?;
    let notes = notes(&path)?;
    let target = targets()?.pop().expect("there is at least one");
    let options = Options { slots: 1, taps: true, ..Options::default() };
    let program = open(&artifact(recorded, &target)?, &options)?;
    for case in golden.cases() {
        let note =
            notes.get(case.name).ok_or_else(|| failed(format!("no note of case {}", case.name)))?;
        let question =
            note["question"].as_str().ok_or_else(|| failed("a note without a question"))?;
        let files = pictures(path.parent().expect("a file is in a folder"), &note["image"])?;
        let pictures: Vec<Picture<'_>> =
            files.iter().map(|(name, bytes)| Picture::encoded(name, bytes)).collect();
        let request = Request::new(&program, question).with_pictures(&pictures);
        let mut session = Session::new(&program).map_err(told)?;
        let (_, ids) = session.inside(&request, &Pattern::new("pixels")).map_err(told)?;
        assert_eq!(ids, case.ids().map_err(told)?, "ids of case {}", case.name);
        same_tiles(&case, &files, &program.manifest().tiling)?;
    }
    Ok(())
}

fn same_tiles(
    case: &Case<'_>,
    files: &[(String, Vec<u8>)],
    tiling: &sail_ir::artifact::Tiling,
) -> Result<(), Outcome> {
    let mut ours = Vec::new();
    for (_, bytes) in files {
        let picture = image::decode(bytes).map_err(told)?;
        ours.extend_from_slice(image::tiles(&picture, tiling).map_err(told)?.bytes());
    }
    let golden = case.tiles().map_err(told)?.map(|tiles| tiles.bytes).unwrap_or_default();
    assert!(ours == golden, "case {}: other tiles than Pillow's", case.name);
    Ok(())
}

/// What the golden's makers wrote beside each case.
fn notes(golden: &Path) -> Result<serde_json::Map<String, Value>, Outcome> {
    let bytes = fs::read(golden).map_err(failed)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(failed)?;
    let texts = metadata.metadata().clone().unwrap_or_default();
    texts
        .into_iter()
        .map(|(case, text)| Ok((case, serde_json::from_str(&text).map_err(failed)?)))
        .collect()
}

/// Name and bytes of one picture, of several, or of none.
fn pictures(folder: &Path, names: &Value) -> Result<Vec<(String, Vec<u8>)>, Outcome> {
    let names: Vec<&str> = match names {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let read = |name: &str| Ok((name.to_owned(), fs::read(folder.join(name)).map_err(failed)?));
    names.into_iter().map(read).collect()
}
