//! `sail eval`: questions with known answers, and how many are answered exactly.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use sail_ir::output;
use serde::Deserialize;
use serde_json::json;

use super::error::CommandError;
use super::progress::Progress;
use super::{Failure, Machine, boxed};
use crate::device::signal;
use crate::sample::Sampling;
use crate::session::End;
use crate::{Picture, Program, Request, Session};

/// Tokens of an answer: more than any right one has.
const ANSWER_TOKENS: u32 = 64;

/// Ask questions with known answers and count those that are answered exactly.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder has `scenes.jsonl`: on each line an object with `picture` (a file of the folder, or null), \
`kind`, `question` and `answer`. An answer is exact when it is the text to the last character and \
then ends; the most probable token is taken every time.

Example: sail eval model.sail --scenes scenes")]
pub struct Eval {
    /// The compiled model.
    file: PathBuf,
    /// Folder with `scenes.jsonl` and its pictures.
    #[arg(long, value_name = "FOLDER")]
    scenes: PathBuf,
    /// Print that many wrong answers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    wrong: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

/// A line of `scenes.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scene {
    picture: Option<String>,
    kind: String,
    question: String,
    answer: String,
}

/// Right ones of a kind, and all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Marks {
    exact: u64,
    of: u64,
}

impl Marks {
    fn share(self) -> f64 {
        self.exact as f64 / self.of.max(1) as f64
    }
}

impl Eval {
    pub fn run(&self) -> Result<(), Failure> {
        let scenes = read(&self.scenes)?;
        let program = super::open(&self.file, &self.machine.options())?;
        signal::listen();
        let mut progress = Progress::new();
        let mut kinds: BTreeMap<&str, Marks> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (done, scene) in scenes.iter().enumerate() {
            progress.show("scenes", count(done), count(scenes.len()));
            let said = answer(&program, &self.scenes, scene)?;
            let exact = said.as_deref() == Some(&scene.answer);
            let marks = kinds.entry(&scene.kind).or_default();
            marks.of += 1;
            marks.exact += u64::from(exact);
            if !exact {
                wrong.push((scene, said));
            }
        }
        progress.clear();
        wrong.truncate(self.wrong);
        output::put(&self.text(&program, &kinds, &wrong)).map_err(boxed)
    }

    fn text(
        &self,
        program: &Program,
        kinds: &BTreeMap<&str, Marks>,
        wrong: &[(&Scene, Option<String>)],
    ) -> String {
        let scheme = program.manifest().scheme;
        let all = kinds.values().fold(Marks::default(), |all, marks| Marks {
            exact: all.exact + marks.exact,
            of: all.of + marks.of,
        });
        if self.json {
            let marks = |marks: &Marks| json!({"exact": marks.exact, "of": marks.of});
            let kinds: BTreeMap<_, _> = kinds.iter().map(|(kind, it)| (kind, marks(it))).collect();
            let wrong = wrong.iter().map(|(scene, said)| {
                json!({"question": scene.question, "answer": scene.answer, "said": said,
                       "picture": scene.picture})
            });
            let wrong: Vec<_> = wrong.collect();
            let document = json!({
                "schema": "sail.eval/1", "root": program.artifact().root_hash(), "scheme": scheme,
                "kinds": kinds, "all": marks(&all), "wrong": wrong,
            });
            return format!("{document}\n");
        }
        let mut lines = vec![
            format!("| kind of question | `{scheme}` exact | of |"),
            "| --- | ---: | ---: |".to_owned(),
        ];
        for (kind, marks) in kinds.iter().chain([(&"all", &all)]) {
            lines.push(format!("| {kind} | {:.4} | {} |", marks.share(), marks.of));
        }
        for (Scene { kind, question, answer, .. }, said) in wrong {
            lines.push(match said {
                Some(said) => format!("{kind}: {question} `{answer}`, not `{said}`"),
                None => format!("{kind}: {question} `{answer}`, not an answer without end"),
            });
        }
        lines.join("\n") + "\n"
    }
}

/// What the model says; `None` when it does not end.
fn answer(program: &Program, folder: &Path, scene: &Scene) -> Result<Option<String>, Failure> {
    let bytes = match &scene.picture {
        Some(name) => {
            let path = folder.join(name);
            Some((name, fs::read(&path).map_err(|e| boxed(CommandError::io("read", &path, &e)))?))
        }
        None => None,
    };
    let pictures: Vec<Picture> =
        bytes.iter().map(|(name, bytes)| Picture::encoded(name, bytes)).collect();
    let request = Request {
        sampling: Sampling::default(),
        max_tokens: ANSWER_TOKENS,
        interrupt: signal::stop_wish(),
        ..Request::new(program, &scene.question).with_pictures(&pictures)
    };
    let mut session = Session::new(program).map_err(boxed)?;
    let answer = session.ask(&request, &mut |_| ()).map_err(boxed)?;
    Ok(matches!(answer.end, End::Token(_)).then_some(answer.text))
}

fn count(scenes: usize) -> u32 {
    u32::try_from(scenes).unwrap_or(u32::MAX)
}

fn read(folder: &Path) -> Result<Vec<Scene>, Failure> {
    let path = folder.join("scenes.jsonl");
    let text = fs::read_to_string(&path)
        .map_err(|error| boxed(CommandError::io("read", &path, &error)))?;
    let refuse =
        |because| boxed(CommandError::Scenes { path: path.display().to_string(), because });
    let scenes = text.lines().enumerate().map(|(at, line)| {
        serde_json::from_str(line).map_err(|error| refuse(format!("line {} says: {error}", at + 1)))
    });
    let scenes: Vec<Scene> = scenes.collect::<Result<_, _>>()?;
    if scenes.is_empty() {
        return Err(refuse("it has no lines".to_owned()));
    }
    Ok(scenes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Scene>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("scenes.jsonl"), text).unwrap();
        read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_scene_is_a_line() {
        let line = r#"{"picture": null, "kind": "plus", "question": "1 + 1?", "answer": "2"}"#;
        let scenes = read_text(&format!("{line}\n{line}\n")).unwrap();
        assert_eq!((scenes.len(), scenes[1].answer.as_str()), (2, "2"));
        let error = read_text(&format!("{line}\n{{\"picture\": 1}}\n")).unwrap_err();
        assert!(error.contains("line 2 says"), "{error}");
        assert!(read_text("").unwrap_err().contains("no lines"));
    }

    #[test]
    fn a_share_is_of_all_that_were_asked() {
        assert!((Marks { exact: 3, of: 4 }.share() - 0.75).abs() < f64::EPSILON);
        assert_eq!(Marks::default().share().to_bits(), 0.0_f64.to_bits());
    }
}
