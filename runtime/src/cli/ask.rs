//! Questions from options and lines, answers to standard output.

use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use sail_ir::output;
use serde_json::json;

use super::error::CommandError;
use super::experts::ExpertProfiler;
use super::progress::Progress;
use super::run::{Run, rates};
use super::{Failure, boxed};
use crate::device::signal;
use crate::sample::Sampling;
use crate::taps::{self, Pattern};
use crate::{Answer, Event, Input, Picture, Program, Request, Session};

/// A picture file, read.
struct Picked {
    name: String,
    bytes: Vec<u8>,
}

/// What the options of a run say, with its files read.
pub(super) struct Asker<'r> {
    run: &'r Run,
    pictures: Vec<Picked>,
    ids: Option<Vec<u32>>,
    /// Writes what it has counted after every answer.
    pub profiler: Option<ExpertProfiler>,
}

impl<'r> Asker<'r> {
    /// Read the files that the options name.
    ///
    /// Refuses files that cannot be read, and ids that are none.
    pub fn new(run: &'r Run) -> Result<Self, Failure> {
        let pictures = run.image.iter().map(|path| pick(path));
        let ids = run.inside.ids_json.as_deref().map(read_ids).transpose()?;
        Ok(Self { run, pictures: pictures.collect::<Result<_, _>>()?, ids, profiler: None })
    }

    /// Answer the one question of the options.
    pub fn once(
        &self,
        program: &Program,
        session: &mut Session,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let pictures = named(&self.pictures);
        let input = match &self.ids {
            Some(ids) => Input::Ids(ids),
            None => Input::Text(self.run.prompt.as_deref().unwrap_or_default()),
        };
        let request = self.request(program, input, &pictures);
        if let (Some(pattern), Some(folder)) = (&self.run.inside.tap, &self.run.inside.tap_out) {
            let (tensors, _) = session.inside(&request, &Pattern::new(pattern)).map_err(boxed)?;
            if tensors.is_empty() {
                return Err(boxed(CommandError::NoTap { pattern: pattern.clone() }));
            }
            taps::write_npy(folder, &tensors)
                .map_err(|error| boxed(CommandError::io("write to", folder, &error)))?;
        }
        let answer = self.ask(session, &request, progress)?;
        if let Some(folder) = &self.run.inside.tap_out {
            let path = folder.join("tokens.json");
            let tokens = json!({"prompt": answer.prompt, "generated": answer.ids});
            fs::write(&path, tokens.to_string())
                .map_err(|error| boxed(CommandError::io("write", &path, &error)))?;
        }
        Ok(())
    }

    /// Answer line after line of standard input.
    pub fn converse(
        mut self,
        program: &Program,
        session: &mut Session,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let terminal = io::stdin().is_terminal();
        let mut lines = io::stdin().lock().lines();
        loop {
            if terminal {
                output::tell("> ");
            }
            let Some(line) = lines.next() else { return Ok(()) };
            let line = line.map_err(|error| {
                boxed(CommandError::io("read", Path::new("standard input"), &error))
            })?;
            match self.line(&line, program, session, progress) {
                Ok(()) => {}
                // A person can try again; a script would go on with a wrong conversation.
                Err(error) if terminal && error.exit_code() != 6 => {
                    output::tell(&format!("{}\n", sail_ir::help::report(error.as_ref())));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn line(
        &mut self,
        line: &str,
        program: &Program,
        session: &mut Session,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let line = line.trim();
        if let Some(path) = line.strip_prefix("/image ") {
            self.pictures.push(pick(Path::new(path.trim()))?);
            return Ok(());
        }
        if line == "/clear" {
            session.clear();
            self.pictures.clear();
            return Ok(());
        }
        if line.is_empty() {
            return Ok(());
        }
        let picked = std::mem::take(&mut self.pictures);
        let pictures = named(&picked);
        let request = self.request(program, Input::Text(line), &pictures);
        // While an answer is on its way Ctrl-C ends the answer, otherwise the program.
        signal::listen();
        let result = self.ask(session, &request, progress);
        signal::forget();
        result.map(|_| ())
    }

    fn request<'a>(
        &'a self,
        program: &'a Program,
        input: Input<'a>,
        pictures: &'a [Picture<'a>],
    ) -> Request<'a> {
        let defaults = Request::new(program, "");
        let given = &self.run.sampling;
        let usual = defaults.sampling;
        Request {
            input,
            pictures,
            max_tiles: self.run.max_tiles,
            think: self.run.thinking,
            sampling: Sampling {
                temperature: given.temperature.unwrap_or(usual.temperature),
                top_k: given.top_k.unwrap_or(usual.top_k),
                top_p: given.top_p.unwrap_or(usual.top_p),
                min_p: given.min_p.unwrap_or(usual.min_p),
                repetition_penalty: given.repetition_penalty.unwrap_or(usual.repetition_penalty),
                seed: given.seed.unwrap_or(usual.seed),
            },
            max_tokens: self.run.max_tokens.unwrap_or(defaults.max_tokens),
            stop: &self.run.stop,
            interrupt: signal::stop_wish(),
            ..defaults
        }
    }

    /// Ask and print: text as it comes, or one line of JSON.
    fn ask(
        &self,
        session: &mut Session,
        request: &Request,
        progress: &mut Progress,
    ) -> Result<Answer, Failure> {
        let mut printed = false;
        let mut written = Ok(());
        let answer = session.ask(request, &mut |event| {
            progress.hear(&event);
            if let (Event::Text(text), false, Ok(())) = (event, self.run.json, &written) {
                written = output::put(text);
                printed = true;
            }
        });
        progress.clear();
        if printed && written.is_ok() {
            written = output::put("\n");
        }
        let answer = answer.map_err(boxed)?;
        if let Some(profiler) = &self.profiler {
            profiler.write()?;
        }
        if self.run.json {
            written = output::put(&format!("{}\n", document(&answer)));
        } else if io::stderr().is_terminal() {
            output::tell(&format!("[{}]\n", rates(&answer.timings)));
        }
        written.map_err(boxed)?;
        Ok(answer)
    }
}

fn pick(path: &Path) -> Result<Picked, Failure> {
    let bytes = fs::read(path).map_err(|error| boxed(CommandError::io("read", path, &error)))?;
    Ok(Picked { name: path.display().to_string(), bytes })
}

fn named(pictures: &[Picked]) -> Vec<Picture<'_>> {
    pictures.iter().map(|picked| Picture::encoded(&picked.name, &picked.bytes)).collect()
}

/// `[1, 2]` or `{"prompt": [1, 2], …}`.
fn read_ids(path: &Path) -> Result<Vec<u32>, Failure> {
    let refuse =
        |because: String| boxed(CommandError::Ids { path: path.display().to_string(), because });
    let text = fs::read(path).map_err(|error| boxed(CommandError::io("read", path, &error)))?;
    let document: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| refuse(format!("it is not JSON: {error}")))?;
    let list = document.get("prompt").unwrap_or(&document);
    serde_json::from_value(list.clone())
        .map_err(|_| refuse("it is no list of numbers from 0 to 4294967295".to_owned()))
}

fn document(answer: &Answer) -> serde_json::Value {
    json!({
        "schema": "sail.run/1",
        "answer": answer.text,
        "end": answer.end.word(),
        "prompt": answer.prompt,
        "ids": answer.ids,
        "timings": answer.timings,
    })
}
