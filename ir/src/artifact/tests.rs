//! A small artifact, damaged in every way a disk or a person can.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use expect_test::expect;

use super::*;
use crate::help::{Help, report};
use crate::plan::Plan;
use crate::scheme::Scheme;
use crate::target::Target;

fn manifest(plan: Plan) -> Manifest {
    Manifest {
        target: Target::parse("x86-64-v3").unwrap(),
        scheme: Scheme::Bf16,
        model: ModelCard {
            family: "sail-vl2".to_owned(),
            parameters: 832,
            vision: VisionCard {
                layers: 1,
                width: 64,
                heads: 1,
                ff_width: 128,
                patch_size: 14,
                patches: 16,
            },
            decoder: DecoderCard {
                layers: 0,
                width: 64,
                heads: 1,
                kv_heads: 1,
                head_dim: 16,
                ff_width: 128,
                experts: None,
                vocabulary: 10,
            },
        },
        tiling: Tiling { tile_size: 56, tokens_per_tile: 4, ..Tiling::default() },
        prompt: PromptSpec::default(),
        tokens: TokenIds {
            eos: vec![2],
            pad: None,
            image_context: 5,
            image_start: 3,
            image_end: 4,
        },
        generation: Generation::default(),
        built_with: BuiltWith { sailc: "0.1.0".to_owned(), llvm: "22.1.8".to_owned() },
        options: vec!["--quant=bf16".to_owned()],
        quality: Quality::default(),
        cuda: None,
        plan,
        sections: Vec::new(),
    }
}

const CODE: [u8; 48] = [0xc3; 48];

fn write(path: &Path, plan: Plan) -> Result<u64, ArtifactError> {
    let mut writer = ArtifactWriter::create(path)?;
    writer.whole_section(SectionKind::Tokenizer, b"{}")?;
    writer.whole_section(SectionKind::Code, &CODE)?;
    let mut weights = writer.section(SectionKind::Weights)?;
    weights.put(&[1; 1280])?;
    weights.write_all(&[2; 128]).expect("writing to a section works like writing to a file");
    assert_eq!(weights.align()?, 1536);
    weights.put(&[3; 256])?;
    weights.finish()?;
    writer.finish(manifest(plan))
}

/// A whole artifact in a folder of its own.
fn sound() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.sail");
    write(&path, crate::plan::tests::small()).unwrap();
    (folder, path)
}

fn open_all(path: &Path) -> Result<(), ArtifactError> {
    Artifact::open(path)?.verify_weights(&AtomicBool::new(false), |_| {})
}

fn files_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_artifact_is_read_back_as_it_was_written() {
    let (_folder, path) = sound();
    let artifact = Artifact::open(&path).unwrap();
    let mut read = artifact.manifest().clone();
    assert_eq!(read.sections.len(), 3);
    read.sections.clear();
    assert_eq!(read, manifest(crate::plan::tests::small()));
    assert_eq!(artifact.code(), CODE);
    assert_eq!(artifact.tokenizer(), b"{}");
    assert_eq!(artifact.chat_template(), None);
    assert_eq!(artifact.weights().bytes, 1792);
    let mut done = 0;
    artifact.verify_weights(&AtomicBool::new(false), |bytes| done = bytes).unwrap();
    assert_eq!(done, 1792);
}

/// The small artifact with other things in the place of its weights.
fn write_made(path: &Path, kinds: &[(SectionKind, &[u8])]) {
    let mut writer = ArtifactWriter::create(path).unwrap();
    writer.whole_section(SectionKind::Tokenizer, b"{}").unwrap();
    writer.whole_section(SectionKind::Code, &CODE).unwrap();
    for (kind, bytes) in kinds {
        writer.whole_section(*kind, bytes).unwrap();
    }
    writer.finish(manifest(crate::plan::tests::small())).unwrap();
}

#[test]
fn weights_may_be_made_by_a_recipe_that_fits_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.sail");
    let recipe = |bytes| Recipe { bytes, kernel: None, fills: Vec::new() };
    let json = serde_json::to_vec(&recipe(1792)).unwrap();
    write_made(&path, &[(SectionKind::Recipe, &json)]);
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.recipe(), Some(&recipe(1792)));
    assert_eq!(artifact.weight_bytes(), 1792);
    artifact.verify_weights(&AtomicBool::new(false), |_| panic!("nothing to hash")).unwrap();

    let refused = |kinds: &[(SectionKind, &[u8])]| {
        write_made(&path, kinds);
        Artifact::open(&path).unwrap_err().to_string()
    };
    let short = serde_json::to_vec(&recipe(1024)).unwrap();
    assert!(refused(&[(SectionKind::Recipe, &short)]).contains("do not fit 1024"));
    let both: [(SectionKind, &[u8]); 2] =
        [(SectionKind::Recipe, &json), (SectionKind::Weights, &[0; 1792])];
    assert!(refused(&both).contains("weights and a recipe"));
    assert!(refused(&[(SectionKind::Recipe, b"{}")]).contains("recipe"));
    assert!(refused(&[]).contains("no section `weights`"));
}

#[test]
fn the_same_content_is_the_same_bytes() {
    let ((_a, first), (_b, second)) = (sound(), sound());
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let [first, second] = [first, second].map(|path| Artifact::open(&path).unwrap().root_hash());
    assert_eq!(first, second);
}

#[test]
fn a_sealed_file_is_whole_before_it_has_its_name_and_can_be_sealed_again() {
    let (_folder, path) = sound();
    let (plain, other) = (fs::read(&path).unwrap(), path.with_file_name("other.sail"));
    let artifact = Artifact::open(&path).unwrap();
    let mut weights = vec![0; artifact.weights().bytes as usize];
    artifact.file().read_exact_at(&mut weights, artifact.weights().offset).unwrap();
    let mut writer = ArtifactWriter::create(&other).unwrap();
    writer.whole_section(SectionKind::Tokenizer, b"{}").unwrap();
    writer.whole_section(SectionKind::Code, &CODE).unwrap();
    writer.whole_section(SectionKind::Weights, &weights).unwrap();

    let mut longer = manifest(crate::plan::tests::small());
    longer.options.push("--context=7".repeat(1000));
    writer.seal(longer.clone()).unwrap();
    assert!(!other.exists());
    let sealed = Artifact::open(writer.temporary()).unwrap();
    assert_eq!(sealed.manifest().options, longer.options);

    writer.seal(manifest(crate::plan::tests::small())).unwrap();
    writer.publish().unwrap();
    assert!(fs::read(&other).unwrap() == plain, "what was sealed before left a trace");
    assert_eq!(files_in(path.parent().unwrap()).len(), 2);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (folder, path) = sound();
    let bytes = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.sail");
    fs::write(&damaged, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&damaged).unwrap();
    for at in 0..bytes.len() {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&[bytes[at] ^ (1 << (at % 8))], at as u64).unwrap();
        let result = open_all(&damaged);
        let error = result.expect_err(&format!("byte {at} was flipped unnoticed"));
        let by_design = match at {
            0..8 => matches!(error, ArtifactError::Foreign),
            8..12 => matches!(error, ArtifactError::Format { .. }),
            _ => matches!(error, ArtifactError::Damaged { .. }),
        };
        assert!(by_design, "byte {at}: {error}");
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    open_all(&damaged).unwrap();
}

#[test]
fn a_file_cut_anywhere_is_noticed() {
    let (folder, path) = sound();
    let bytes = fs::read(&path).unwrap();
    let cut = folder.path().join("cut.sail");
    fs::write(&cut, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&cut).unwrap();
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        let error = Artifact::open(&cut).expect_err("a file without its end was opened");
        let by_design = match length {
            0 => matches!(error, ArtifactError::Empty),
            _ => matches!(error, ArtifactError::Truncated { .. }),
        };
        assert!(by_design && error.exit_code() == 6, "length {length}: {error}");
    }
}

#[test]
fn each_kind_of_wrong_file_has_its_own_sentence() {
    let (folder, path) = sound();
    let bytes = fs::read(&path).unwrap();
    let other = folder.path().join("other.sail");
    let message = |content: &[u8]| {
        fs::write(&other, content).unwrap();
        let error = Artifact::open(&other).unwrap_err();
        format!("{}\nexit {}\n", report(&error), error.exit_code())
    };
    let with_format = |format: u32| {
        let mut bytes = bytes.clone();
        bytes[8..12].copy_from_slice(&format.to_le_bytes());
        bytes
    };
    expect![[r#"
        error[SC0402]: the artifact is empty
          because the file has 0 bytes

        hint: copy the file again from where it came, or compile again
        exit 6
    "#]]
    .assert_eq(&message(b""));
    expect![[r#"
        error[SC0403]: this is not an artifact
          because its first bytes are not `SAILFILE`

        hint: an artifact is what `sailc compile` writes
        exit 4
    "#]]
    .assert_eq(&message(b"\x89PNG\r\n\x1a\n and more"));
    expect![[r#"
        error[SC0402]: the artifact is cut short
          because the file has 10601 bytes, its header says 21202 bytes

        hint: copy the file again from where it came, or compile again
        exit 6
    "#]]
    .assert_eq(&message(&bytes[..bytes.len() / 2]));
    expect![[r#"
        error[SC0404]: the artifact has the older format 5
          because this program reads format 6

        hint: compile the checkpoint again
        exit 4
    "#]]
    .assert_eq(&message(&with_format(FORMAT - 1)));
    expect![[r#"
        error[SC0404]: the artifact has the newer format 7
          because this program reads format 6

        hint: use a newer `sail`, or compile again
        exit 4
    "#]]
    .assert_eq(&message(&with_format(FORMAT + 1)));
    expect![[r#"
        error[SC0405]: the artifact has bytes after its end
          because the file has 21203 bytes, its header says 21202

        hint: copy the file again from where it came, or compile again
        exit 6
    "#]]
    .assert_eq(&message(&[&bytes[..], b"!"].concat()));
}

#[test]
fn a_folder_and_a_missing_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("none.sail")] {
        let error = Artifact::open(&path).unwrap_err();
        assert!(matches!(error, ArtifactError::Io { .. }), "{error}");
    }
}

#[test]
fn an_unsound_plan_is_refused_although_its_hash_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unsound.sail");
    let mut plan = crate::plan::tests::small();
    plan.functions[0].classes = vec![4, 1];
    write(&path, plan).unwrap();
    let error = Artifact::open(&path).unwrap_err();
    assert!(
        matches!(&error, ArtifactError::Plan(error) if error.rule == "plan.classes"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 4);
}

#[test]
fn a_writer_that_is_given_up_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sail");
    fs::write(&path, "what was there").unwrap();
    let mut writer = ArtifactWriter::create(&path).unwrap();
    writer.whole_section(SectionKind::Code, &CODE).unwrap();
    assert_eq!(files_in(folder.path()).len(), 2);
    drop(writer);
    assert_eq!(files_in(folder.path()), ["model.sail"]);
    assert_eq!(fs::read(&path).unwrap(), b"what was there");
}

#[test]
fn what_is_no_file_is_not_replaced_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = write(&path, crate::plan::tests::small()).unwrap_err();
    let text = report(&error).replace(&folder.path().display().to_string(), "DIR");
    expect![[r#"
        error[SC0409]: cannot write `DIR/socket`
          because a device, a pipe or a socket is there, which a file would replace

        hint: name a file with `-o`"#]]
    .assert_eq(&text);
    assert!(!fs::metadata(&path).unwrap().is_file());
    assert_eq!(files_in(folder.path()), ["socket"]);
}

#[test]
fn a_finished_artifact_replaces_what_was_there_and_leaves_nothing_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sail");
    fs::write(&path, "what was there").unwrap();
    let bytes = write(&path, crate::plan::tests::small()).unwrap();
    assert_eq!(files_in(folder.path()), ["model.sail"]);
    assert_eq!(Artifact::open(&path).unwrap().file_bytes(), bytes);
}

#[test]
fn checking_weights_stops_when_told() {
    let (_folder, path) = sound();
    let artifact = Artifact::open(&path).unwrap();
    let result = artifact.verify_weights(&AtomicBool::new(true), |_| {});
    assert!(matches!(result, Err(ArtifactError::Cancelled)));
}

#[test]
fn a_machine_without_the_features_is_told_which_and_what_it_could_run() {
    let mut manifest = manifest(crate::plan::tests::small());
    manifest.target = Target::parse("x86-64-v4+avx512bf16").unwrap();
    let v3 = Target::parse("x86-64-v3").unwrap();
    let features = crate::target::FEATURES.into_iter().filter(|name| v3.has(name)).collect();
    let error = check(&manifest, &Machine { features }).unwrap_err();
    expect![[r#"
        error[SC0410]: this artifact is for `x86-64-v4+avx512bf16`, which this machine cannot run
          because its CPU lacks `avx512f`, `avx512bw`, `avx512cd`, `avx512dq`, `avx512vl`, `avx512bf16`

        hint: compile again with `--target x86-64-v3`; the checkpoint is needed, the artifact cannot be converted"#]].assert_eq(&report(&error));
    manifest.target = v3.clone();
    let features = crate::target::FEATURES.into_iter().filter(|name| v3.has(name)).collect();
    check(&manifest, &Machine { features }).unwrap();
}
