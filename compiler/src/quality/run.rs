//! Ask a program a prompt, and look inside of it while it reads prompt and answer again.

use sail_runtime::sample::Sampling;
use sail_runtime::taps::{Pattern, Tensor};
use sail_runtime::{Input, Picture, Program, Request, Session};

use super::prompts::Prompt;
use crate::error::{Failure, boxed};

/// Tokens of an answer that are read again, at most.
const ANSWER_TOKENS: u32 = 64;

/// What `reference` reads and answers, without the last token, and where the answer begins.
pub fn answered(
    reference: &Program,
    prompt: &Prompt,
    pictures: &[Picture],
) -> Result<(Vec<u32>, usize), Failure> {
    let mut session = Session::new(reference).map_err(boxed)?;
    let mut request = Request::new(reference, &prompt.text).with_pictures(pictures);
    request.sampling = Sampling::default();
    request.max_tokens = ANSWER_TOKENS;
    let answer = session.ask(&request, &mut |_| ()).map_err(boxed)?;
    let mut ids = answer.prompt;
    let start = ids.len();
    // What would follow the last token is no part of the answer.
    ids.extend(&answer.ids[..answer.ids.len() - 1]);
    Ok((ids, start))
}

/// What `program` computes for a prompt with its answer, of what `pattern` matches.
pub fn inside(
    program: &Program,
    ids: &[u32],
    pictures: &[Picture],
    pattern: &Pattern,
) -> Result<Vec<Tensor>, Failure> {
    let mut session = Session::new(program).map_err(boxed)?;
    let mut request = Request::new(program, "").with_pictures(pictures);
    request.input = Input::Ids(ids);
    let (tensors, _) = session.inside(&request, pattern).map_err(boxed)?;
    Ok(tensors)
}
