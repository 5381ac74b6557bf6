//! Kernels with one ordering instruction less: a test that runs them measures how much it would notice.

use crate::fault::{Fault, Kind};
use crate::text::{Token, tokens};

/// A module's text with one instruction removed or weakened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    pub kernel: String,
    /// Line of the instruction, from 1.
    pub line: u32,
    /// The instruction as it stood.
    pub instruction: String,
    /// What stands there now; empty where it was removed.
    pub replacement: String,
    pub text: String,
}

/// The text of `source` with no other entry than `kernel`; tables stay.
///
/// # Errors
///
/// [`crate::Kind::Text`] if the text has a stray character or no such entry.
pub fn alone(source: &str, kernel: &str) -> Result<String, Fault> {
    let tokens = tokens(source)?;
    let mut others = Vec::new();
    let mut found = false;
    for (at, token) in tokens.iter().enumerate() {
        if token.text != ".entry" {
            continue;
        }
        if tokens.get(at + 1).is_some_and(|name| name.text == kernel) {
            found = true;
            continue;
        }
        let first = if before(&tokens, at, 1) == ".visible" { at - 1 } else { at };
        let mut depth = 0;
        let end = tokens[at..].iter().find(|token| {
            depth += i32::from(token.text == "{") - i32::from(token.text == "}");
            token.text == "}" && depth == 0
        });
        let end = end.map_or(source.len(), |end| end.at + 1);
        others.push(tokens[first].at..end);
    }
    if !found {
        return Err(Fault::new(Kind::Text, format!("the text has no entry `{kernel}`")));
    }
    // Places are counted in characters.
    let mut chars = source.chars().enumerate().peekable();
    let mut text = String::with_capacity(source.len());
    for other in others {
        while let Some((_, c)) = chars.next_if(|(at, _)| *at < other.start) {
            text.push(c);
        }
        while chars.next_if(|(at, _)| *at < other.end).is_some() {}
    }
    text.extend(chars.map(|(_, c)| c));
    Ok(text)
}

/// Every barrier, fence, wait, commit, arrival and `expect_tx` of `source`, each missing in one mutant.
/// A wait that gives a predicate becomes one that always succeeds; an arrival with bytes also becomes
/// one without. An access of global memory that acquires or releases becomes one that does not, or does
/// one of the two. `griddepcontrol` is among them: see [`crate::Options::programmatic`].
///
/// # Errors
///
/// [`crate::Kind::Text`] if the text has a stray character.
pub fn mutants(source: &str) -> Result<Vec<Mutant>, Fault> {
    let chars: Vec<char> = source.chars().collect();
    let tokens = tokens(source)?;
    let mut kernel = String::new();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if at > 0 && tokens[at - 1].text == ".entry" {
            kernel.clone_from(&token.text);
        }
        if !orders(&token.text) || !begins(&tokens, at) {
            continue;
        }
        let Some(end) = tokens[at..].iter().position(|token| token.text == ";") else { continue };
        let (from, to) = (token.at, tokens[at + end].at + 1);
        let instruction: String = chars[from..to].iter().collect();
        for replacement in replacements(&token.text, &tokens[at + 1..at + end], &instruction) {
            // A guard needs an instruction to guard.
            let filling = match replacement.as_str() {
                "" if guarded(&tokens, at) => "griddepcontrol.launch_dependents;",
                other => other,
            };
            let text = format!(
                "{}{filling}{}",
                chars[..from].iter().collect::<String>(),
                chars[to..].iter().collect::<String>()
            );
            found.push(Mutant {
                kernel: kernel.clone(),
                line: token.line,
                instruction: instruction.clone(),
                replacement,
                text,
            });
        }
    }
    Ok(found)
}

fn orders(word: &str) -> bool {
    let words: Vec<&str> = word.split('.').collect();
    let has = |word: &str| words.contains(&word);
    match words[0] {
        "bar" | "barrier" | "fence" | "membar" => words.len() > 1,
        "mbarrier" => !has("init") && !has("inval"),
        "wgmma" => has("fence") || has("commit_group") || has("wait_group"),
        "cp" => ["commit_group", "wait_group", "wait_all"].iter().any(|word| has(word)),
        "griddepcontrol" => has("wait"),
        "atom" | "red" | "ld" | "st" => {
            ["acquire", "release", "acq_rel"].iter().any(|word| has(word))
        }
        _ => false,
    }
}

fn before(tokens: &[Token], at: usize, back: usize) -> &str {
    at.checked_sub(back).map_or("", |at| tokens[at].text.as_str())
}

fn guarded(tokens: &[Token], at: usize) -> bool {
    before(tokens, at, 2) == "@" || before(tokens, at, 2) == "!" && before(tokens, at, 3) == "@"
}

/// Does an instruction begin here, and not an operand?
fn begins(tokens: &[Token], at: usize) -> bool {
    matches!(before(tokens, at, 1), ";" | "{" | "}" | ":") || guarded(tokens, at)
}

fn replacements(opcode: &str, operands: &[Token], instruction: &str) -> Vec<String> {
    if opcode.contains("_wait.") && opcode.starts_with("mbarrier") {
        let result = operands.first().map_or("_", |token| token.text.as_str());
        return vec![format!("setp.eq.u32 {result}, 0, 0;")];
    }
    let orders = ["atom.", "red.", "ld.", "st."].iter().any(|word| opcode.starts_with(word));
    if orders {
        let weaker = match opcode {
            both if both.contains("acq_rel") => &["relaxed", "acquire", "release"][..],
            _ => &["relaxed"],
        };
        let order =
            ["acq_rel", "acquire", "release"].into_iter().find(|word| opcode.contains(word));
        let order = order.expect("it was chosen for its order");
        return weaker.iter().map(|weak| instruction.replacen(order, weak, 1)).collect();
    }
    let mut all = vec![String::new()];
    if opcode.contains("arrive.expect_tx") {
        let plain = instruction.replacen(".expect_tx", "", 1);
        if let Some(last) = plain.rfind(',') {
            all.push(format!("{};", &plain[..last]));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_is_left_with_the_tables() {
        let text = ".version 8.0\n.global .b8 t[1] = {1};\n.visible .entry a(.param .u64 x) {\n{ \
                    bar.sync 0; }\n}\n// \u{fc}\n.visible .entry b() {\nret;\n}\n";
        let (a, b) = (alone(text, "a").unwrap(), alone(text, "b").unwrap());
        assert!(a.contains("t[1]") && a.contains("{ bar.sync 0; }\n}") && !a.contains("entry b"));
        assert!(b.contains("t[1]") && b.contains("b() {\nret;\n}") && !b.contains("bar.sync"));
        assert_eq!(alone(text, "c").unwrap_err().kind, Kind::Text);
    }

    #[test]
    fn each_ordering_instruction_goes_once() {
        let text = ".entry k() {\n@%p1 bar.sync 0;\n{ mbarrier.try_wait.parity.b64 done, [%r1], 0; }\n\
                    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 256; add.s32 %r1, %r1, 1;\n}";
        let found = mutants(text).unwrap();
        let shown: Vec<(u32, &str, &str)> = found
            .iter()
            .map(|it| (it.line, it.instruction.split(' ').next().unwrap(), it.replacement.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (2, "bar.sync", ""),
                (3, "mbarrier.try_wait.parity.b64", "setp.eq.u32 done, 0, 0;"),
                (4, "mbarrier.arrive.expect_tx.shared::cta.b64", ""),
                (
                    4,
                    "mbarrier.arrive.expect_tx.shared::cta.b64",
                    "mbarrier.arrive.shared::cta.b64 _, [%r2];"
                ),
            ]
        );
        assert!(found.iter().all(|it| it.kernel == "k" && it.text.contains("add.s32")));
        assert!(!found[0].text.contains("bar.sync"));
    }

    #[test]
    fn accesses_that_order_blocks_are_weakened() {
        let text = ".entry k() {\natom.acq_rel.gpu.global.inc.u32 %r1, [%rd1], %r2;\n\
                    ld.acquire.gpu.global.u32 %r1, [%rd1]; red.release.gpu.global.add.u32 [%rd1], 1;\n\
                    atom.global.add.u32 %r1, [%rd1], 1; ld.global.u32 %r1, [%rd1];\n}";
        let found = mutants(text).unwrap();
        let shown: Vec<(u32, &str)> =
            found.iter().map(|it| (it.line, it.replacement.split(' ').next().unwrap())).collect();
        assert_eq!(
            shown,
            [
                (2, "atom.relaxed.gpu.global.inc.u32"),
                (2, "atom.acquire.gpu.global.inc.u32"),
                (2, "atom.release.gpu.global.inc.u32"),
                (3, "ld.relaxed.gpu.global.u32"),
                (3, "red.relaxed.gpu.global.add.u32"),
            ]
        );
    }
}
