//! Functions for tests of the executor alone, in the place of `decode`.

use sail_ir::plan::{Count, Function, Place, Port};

use super::toy::{Draft, control};

/// `x` goes round `rounds` times through `shift`: each value moves down by one and grows by one.
pub fn shifting(rounds: u32, rows: u32) -> Function {
    let mut draft = Draft::new(Count::Tokens);
    control(&mut draft);
    draft.buffer("logits", Place::Port { port: Port::Logits }, &[320], Some(Count::Tokens));
    draft.step("embed", &["ids", "x"], Count::Tokens, &[]);
    for round in 0..rounds {
        let arguments = if round % 2 == 0 { ["x", "y"] } else { ["y", "x"] };
        draft.step("shift", &arguments, Count::Tokens, &[round]);
    }
    let last = if rounds.is_multiple_of(2) { "x" } else { "y" };
    draft.step("remember", &[last, "rows", "pages", "cache"], Count::Tokens, &[rounds]);
    draft.step("recall", &["cache", "rows", "pages", "logits"], Count::Tokens, &[rounds + 1]);
    draft.function("decode", &[rows], rows, &[])
}

/// Takes about a second on one thread.
pub fn slow() -> Function {
    let mut draft = Draft::new(Count::Tokens);
    control(&mut draft);
    draft.step("embed", &["ids", "x"], Count::Tokens, &[]);
    for round in 0..20 {
        let arguments = if round % 2 == 0 { ["x", "y"] } else { ["y", "x"] };
        draft.step("slow", &arguments, Count::Tokens, &[round]);
    }
    draft.function("decode", &[1], 1, &[])
}
