//! One conversation: pictures → vision → prefill → decode → the next token, until the end.
//!
//! ```no_run
//! # fn main() -> Result<(), sail_runtime::RunError> {
//! use sail_runtime::{Event, Options, Picture, Program, Request, Session};
//!
//! let program = Program::open("model.sail".as_ref(), &Options::default())?;
//! let mut session = Session::new(&program)?;
//! let bytes = std::fs::read("cat.png").expect("a picture");
//! let pictures = [Picture::encoded("cat.png", &bytes)];
//! let request = Request::new(&program, "What is this?").with_pictures(&pictures);
//! let answer = session.ask(&request, &mut |event| {
//!     if let Event::Text(text) = event {
//!         print!("{text}");
//!     }
//! })?;
//! println!("{} tokens", answer.ids.len());
//! # Ok(())
//! # }
//! ```
//!
//! Everything that can be refused is refused before any work: pictures by their headers, lengths
//! by counting. After an error the conversation is as it was before the question.

mod prepare;
mod request;

use std::collections::VecDeque;
use std::time::Instant;

use crate::execute::{Done, Drawn, Outputs, Row, Tokens, Twin};
use crate::sample::Sampler;
use crate::taps::{Inside, Pattern, Tensor, collect};
use crate::text::{Detokenizer, End as TextEnd, Stop};
use crate::{Program, RunError};

use prepare::Prepared;
pub use request::{Answer, Content, End, Event, Input, Picture, Request, Timings};

/// A conversation; it has one slot of its program until it is dropped.
pub struct Session<'p> {
    program: &'p Program,
    slot: u32,
    /// What the model is told about itself; the artifact's own words when `None`.
    system: Option<String>,
    /// Positions that are in the cache and belong to the conversation.
    used: u32,
    /// The last token of an answer that was cut off: chosen, but not in the cache.
    pending: Option<u32>,
}

impl<'p> Session<'p> {
    /// A conversation without questions yet.
    ///
    /// Refuses when all slots of the program are taken.
    pub fn new(program: &'p Program) -> Result<Self, RunError> {
        let slot = program.take_slot().ok_or(RunError::Busy)?;
        Ok(Self { program, slot, system: None, used: 0, pending: None })
    }

    /// Tell the model something else about itself; effective for the first question only.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// Positions taken so far.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Forget everything that was said.
    pub fn clear(&mut self) {
        self.used = 0;
        self.pending = None;
    }

    /// Ask, and hear of the answer as it comes.
    ///
    /// An answer is only returned when the weights were found to be those that were written; the
    /// first one waits for that.
    ///
    /// Refuses pictures and parameters that cannot be used, a question that does not fit the
    /// context, damaged weights, values that are no numbers; gives up when the request's
    /// interruption is set.
    pub fn ask(
        &mut self,
        request: &Request,
        hear: &mut dyn FnMut(Event),
    ) -> Result<Answer, RunError> {
        let begin = Instant::now();
        let width = self.program.engine().layout().vocabulary as usize;
        let mut sampler = Sampler::new(request.sampling, width).map_err(RunError::Sample)?;
        let stop = Stop { ids: request.eos.to_vec(), strings: request.stop.to_vec() };
        let detokenizer = Detokenizer::new(self.program.text(), stop).map_err(RunError::Text)?;
        let prepared = prepare::prepare(self, request)?;
        let mut timings = Timings {
            tiles: prepared.tiles(),
            prompt_tokens: prepared.ids.len(),
            prepare: begin.elapsed().as_secs_f64(),
            ..Timings::default()
        };
        self.look(&prepared, request, hear, &mut timings)?;
        let mut run = Run {
            session: self,
            request,
            detokenizer,
            sampler: &mut sampler,
            logits: vec![0.0; width],
            ids: Vec::with_capacity(request.max_tokens as usize),
            ahead: VecDeque::new(),
            text: String::new(),
            begin,
        };
        let position = run.session.used + u32_of(prepared.ids.len());
        let (end, position) = run.generate(position, hear, &mut timings)?;
        let (ids, text) = (run.ids, run.text);
        self.program.wait_verified()?;
        self.used = position;
        self.pending = match end {
            End::Token(_) => None,
            _ => ids.last().copied(),
        };
        Ok(Answer { text, prompt: prepared.ids, ids, end, timings })
    }

    /// Values from the inside of the model for the first question of a conversation, and the ids
    /// of its prompt.
    ///
    /// Refuses what [`ask`](Self::ask) refuses, and a conversation that has begun or has not the
    /// first slot: taps are for looking at one question.
    pub fn inside(
        &mut self,
        request: &Request,
        pattern: &Pattern,
    ) -> Result<(Vec<Tensor>, Vec<u32>), RunError> {
        if self.used > 0 || self.slot != 0 || !self.program.engine().layout().capacity.taps {
            return Err(RunError::Taps);
        }
        let prepared = prepare::prepare(self, request)?;
        let mut engine = self.program.engine();
        let positions = u32_of(prepared.ids.len());
        engine.hold(self.slot, positions).map_err(RunError::Full)?;
        let inside = Inside {
            tiles: prepared.tiles(),
            fill: &mut |tiles, out| prepared.fill(tiles, out),
            ids: &prepared.ids,
            image_rows: &prepared.image_rows,
        };
        let tensors = collect(&mut engine, inside, pattern, request.interrupt)?;
        drop(engine);
        self.program.wait_verified()?;
        Ok((tensors, prepared.ids))
    }

    /// Vision and prefill.
    fn look(
        &self,
        prepared: &Prepared,
        request: &Request,
        hear: &mut dyn FnMut(Event),
        timings: &mut Timings,
    ) -> Result<(), RunError> {
        let mut engine = self.program.engine();
        let total = self.used + u32_of(prepared.ids.len());
        engine.hold(self.slot, total).map_err(RunError::Full)?;
        let start = Instant::now();
        let tiles = prepared.tiles();
        if tiles > 0 {
            hear(Event::Vision { done: 0, total: tiles });
            let mut done = 0;
            let mut watch = |call: &Done| {
                done += call.call.images;
                self.program.tell(call);
                hear(Event::Vision { done, total: tiles });
            };
            let mut fill = |range, out: &mut [half::bf16]| prepared.fill(range, out);
            engine.vision(Twin::Production, tiles, &mut fill, request.interrupt, &mut watch)?;
        }
        timings.vision = start.elapsed().as_secs_f64();
        self.program.verified()?;

        let start = Instant::now();
        let tokens = Tokens {
            slot: self.slot,
            start: self.used,
            ids: &prepared.ids,
            image_rows: &prepared.image_rows,
        };
        let total = u32_of(prepared.ids.len());
        hear(Event::Prefill { done: 0, total });
        let mut done = 0;
        let mut watch = |call: &Done| {
            done += call.call.tokens;
            self.program.tell(call);
            hear(Event::Prefill { done, total });
        };
        engine.prefill(Twin::Production, tokens, Outputs::Last, request.interrupt, &mut watch)?;
        timings.prefill = start.elapsed().as_secs_f64();
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // No more positions are held than the slot had, so nothing is refused.
        let _ = self.program.engine().hold(self.slot, 0);
        self.program.give_slot(self.slot);
    }
}

/// An answer on its way.
struct Run<'r, 'p> {
    session: &'r Session<'p>,
    request: &'r Request<'r>,
    detokenizer: Detokenizer,
    sampler: &'r mut Sampler,
    /// The last row of logits, widened.
    logits: Vec<f32>,
    ids: Vec<u32>,
    /// Tokens that the device chose after the last of `ids`.
    ahead: VecDeque<u32>,
    text: String,
    begin: Instant,
}

impl Run<'_, '_> {
    /// Choose tokens until the end; the first one goes to `position`. Why it ended, and how many
    /// positions are in the cache.
    fn generate(
        &mut self,
        mut position: u32,
        hear: &mut dyn FnMut(Event),
        timings: &mut Timings,
    ) -> Result<(End, u32), RunError> {
        let program = self.session.program;
        let room = program.context() - position + 1;
        let limit = self.request.max_tokens.min(room) as usize;
        let mut end = End::Length;
        let mut decoding = Instant::now();
        while self.ids.len() < limit {
            program.verified()?;
            let id = if self.ids.is_empty() {
                self.choose(position)?
            } else {
                position += 1;
                self.next(position - 1, limit)?
            };
            if self.ids.is_empty() {
                timings.first_token = self.begin.elapsed().as_secs_f64();
                decoding = Instant::now();
            }
            self.ids.push(id);
            let fragment = self.detokenizer.push(id);
            if !fragment.text.is_empty() {
                self.text.push_str(fragment.text);
                hear(Event::Text(fragment.text));
            }
            if let Some(found) = fragment.end {
                end = match found {
                    TextEnd::Token(id) => End::Token(id),
                    TextEnd::String(index) => End::Stop(index),
                };
                break;
            }
        }
        if end == End::Length && self.request.max_tokens as usize > limit {
            end = End::Context;
        }
        let rest = self.detokenizer.finish();
        if !rest.is_empty() {
            self.text.push_str(rest);
            hear(Event::Text(rest));
        }
        timings.decode = decoding.elapsed().as_secs_f64();
        timings.generated = self.ids.len();
        Ok((end, position))
    }

    /// Put the last token into the cache at `position`, and choose the one after it.
    fn next(&mut self, position: u32, limit: usize) -> Result<u32, RunError> {
        if self.ahead.is_empty() && !self.session.program.is_watched() {
            self.go_ahead(position, limit)?;
        }
        if let Some(id) = self.ahead.pop_front() {
            return Ok(id);
        }
        self.decode(position)?;
        self.choose(position + 1)
    }

    /// Have the device choose some tokens, where it can. As many as there were before, so that what an
    /// answer ends before is never more than half of the work.
    fn go_ahead(&mut self, position: u32, limit: usize) -> Result<(), RunError> {
        let mut engine = self.session.program.engine();
        let draw = self.sampler.draw();
        if !draw.is_greedy() && !engine.draws_ahead() {
            return Ok(());
        }
        let left = limit - self.ids.len();
        let times = u32_of(self.ids.len().min(left)).min(engine.most_ahead());
        if times == 0 {
            return Ok(());
        }
        let slot = self.session.slot;
        engine.hold(slot, position + times).map_err(RunError::Full)?;
        let id = *self.ids.last().expect("broken invariant `decode.after_a_token`");
        let row = Row { slot, position, id };
        let program = self.session.program;
        let mut watch = |done: &Done| program.tell(done);
        let drawn = [Drawn { draw, history: &self.ids }];
        let drawn = if draw.is_greedy() { &[] } else { &drawn[..] };
        let chosen =
            engine.decode_ahead(&[row], drawn, times, self.request.interrupt, &mut watch)?;
        self.ahead.extend(chosen.map_while(|id| id));
        Ok(())
    }

    /// Put the last token into the cache at `position`; its logits are there afterwards.
    fn decode(&mut self, position: u32) -> Result<(), RunError> {
        let mut engine = self.session.program.engine();
        let slot = self.session.slot;
        engine.hold(slot, position + 1).map_err(RunError::Full)?;
        let id = *self.ids.last().expect("broken invariant `decode.after_a_token`");
        let row = Row { slot, position, id };
        let program = self.session.program;
        engine.decode(&[row], self.request.interrupt, &mut |done| program.tell(done))?;
        Ok(())
    }

    fn choose(&mut self, position: u32) -> Result<u32, RunError> {
        let engine = self.session.program.engine();
        for (wide, value) in self.logits.iter_mut().zip(engine.logits(0)) {
            *wide = value.to_f32();
        }
        drop(engine);
        self.sampler
            .next(&mut self.logits, &self.ids, u64::from(position))
            .map_err(RunError::Sample)
    }
}

/// A prompt fits the context, which is a `u32`.
fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("broken invariant `prompt.fits`")
}
