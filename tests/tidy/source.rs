//! Rules about the text of sources: size, `unsafe`, words, what is read from outside.

use super::tree::Tree;
use super::{Breach, Rule};

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 120;

/// Where `unsafe` may stand, and why.
const UNSAFE_PLACES: [(&str, &str); 8] = [
    ("kernels/src/emit/memory.rs", "inkwell declares its address arithmetic unsafe"),
    ("kernels/src/emit/run.rs", "tests execute the code they compiled"),
    ("runtime/src/device/", "runs compiled code over mapped memory"),
    ("tests/gpucheck/src/gpu.rs", "launches recorded kernels on a real GPU"),
    ("tests/fakecuda/src/", "answers calls of C with pointers, in the place of a driver"),
    ("runtime/tests/no_allocation.rs", "an allocator that counts"),
    ("compiler/src/dialect.rs", "MLIR calls that melior does not wrap"),
    ("compiler/src/rewrite.rs", "MLIR calls that melior does not wrap"),
];

/// Environment variables that may change what the house does.
const ENVIRONMENT: [&str; 4] = ["BLESS", "SAIL_LOG", "SAIL_PTXAS", "SAIL_FAKECUDA"];

pub const RULES: &[Rule] = &[
    Rule {
        name: "first-line",
        sentence: "the first line of every source says what the file is for",
        reason: "a reader who opened the wrong file should see it at once",
        fix: "begin the file with `//! What this is for.`",
        check: |tree| {
            let said = |text: &str| text.strip_prefix("//! ").is_some_and(|rest| rest.len() > 20);
            let silent = tree.sources().filter(|(_, text)| !said(text));
            silent.map(|(path, _)| Breach::new(path, "does not begin with `//! …`")).collect()
        },
        broken: || vec![Tree::of(&[("ir/src/op.rs", "use std::fmt;\n")])],
        kept: || vec![Tree::of(&[("ir/src/op.rs", "//! What an op row is: its name.\n")])],
    },
    Rule {
        name: "file-size",
        sentence: "no source has more than 600 lines before its tests",
        reason: "a file about one thing is shorter; the aim is 200",
        fix: "split it by what its parts are for, or add a line with a reason to `tests/tidy.allow`",
        check: |tree| {
            let sized = tree.sources().map(|(path, text)| (path, lines_without_tests(text)));
            sized
                .filter(|(_, lines)| *lines > MAX_FILE_LINES)
                .map(|(path, lines)| Breach::counted(path, format!("{lines} lines"), lines))
                .collect()
        },
        broken: || vec![Tree::of(&[("ir/src/op.rs", &"x\n".repeat(601))])],
        kept: || {
            let long_tests = format!("x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(700));
            vec![Tree::of(&[("ir/src/op.rs", &long_tests)])]
        },
    },
    Rule {
        name: "function-size",
        sentence: "no function has more than 120 lines",
        reason: "a function that fits a screen can be checked by reading; the aim is 60",
        fix: "name its parts",
        check: |tree| {
            let mut breaches = Vec::new();
            for (path, text) in tree.sources() {
                for (name, lines) in functions(text) {
                    if lines > MAX_FUNCTION_LINES {
                        breaches.push(Breach::new(path, format!("`{name}` has {lines} lines")));
                    }
                }
            }
            breaches
        },
        broken: || {
            let body = "    x();\n".repeat(120);
            vec![Tree::of(&[("a.rs", &format!("pub fn long(\n    x: u8,\n) {{\n{body}}}\n"))])]
        },
        kept: || {
            let body = "    x();\n".repeat(100);
            let text = format!(
                "trait T {{\n    fn none(&self);\n}}\nfn a() {{}}\nfn b() {{\n{body}}}\n{body}{body}"
            );
            vec![Tree::of(&[("a.rs", &text)])]
        },
    },
    Rule {
        name: "unsafe-places",
        sentence: "unsafe code stands in the listed files only, with SAFETY above it",
        reason: "what cannot be checked by the compiler is kept where it is looked for",
        fix: "put a safe function into one of the listed files, and say why it is sound",
        check: unsafe_places,
        broken: || {
            vec![
                Tree::of(&[("runtime/src/text.rs", "// SAFETY: none\nunsafe { f() }")]),
                Tree::of(&[("runtime/src/device/host.rs", "let x = 1;\nunsafe { f() }")]),
            ]
        },
        kept: || {
            let code =
                "// SAFETY: `f` has no conditions.\nlet x = unsafe { f() };\n// an unsafe word\n";
            vec![Tree::of(&[("runtime/src/device/host.rs", code)])]
        },
    },
    Rule {
        name: "path-words",
        sentence: "no path has a word that says nothing",
        reason: "what has no subject collects everything",
        fix: "name the file after what is in it",
        check: |tree| {
            let words =
                ["utils", "util", "common", "helpers", "helper", "misc", "v2", "legacy", "impl"];
            let idle = |path: &str| {
                path.split(['/', '_', '.', '-'])
                    .find(|part| words.contains(part))
                    .map(str::to_owned)
            };
            tree.files
                .keys()
                .filter_map(|path| Some(Breach::new(path, format!("has `{}`", idle(path)?))))
                .collect()
        },
        broken: || {
            vec![
                Tree::of(&[("ir/src/op_utils.rs", "")]),
                Tree::of(&[("kernels/src/v2/norm.rs", "")]),
            ]
        },
        kept: || vec![Tree::of(&[("kernels/src/linear/mod.rs", "")])],
    },
    Rule {
        name: "open-ends",
        sentence: "no note to do something later stands without its condition",
        reason: "a note without a condition is never done and never deleted",
        fix: "do it, or write `TODO(when CONDITION): …`, or leave it out",
        check: open_ends,
        broken: || {
            let note = format!("// {}: think\n", MARKS[0]);
            vec![Tree::of(&[("a.rs", &note)]), Tree::of(&[("README.md", MARKS[3])])]
        },
        kept: || {
            let note = format!("// {}(when LLVM 23 is in Debian): drop this\n", MARKS[0]);
            vec![Tree::of(&[("a.rs", &note)]), Tree::of(&[("b.rs", "let ABXXXC = 1;")])]
        },
    },
    Rule {
        name: "environment",
        sentence: "no environment variable is read but BLESS, SAIL_LOG and cargo's own",
        reason: "what changes behaviour is a flag, so that `--help` shows it and a command line reproduces it",
        fix: "make it an option of the command",
        check: environment,
        broken: || {
            vec![
                Tree::of(&[("a.rs", "let x = std::env::var(\"SAIL_FAST\");")]),
                Tree::of(&[("a.rs", "for (k, v) in env::vars() {}")]),
                Tree::of(&[("a.rs", "#[arg(long, env = \"SAIL_TARGET\")]")]),
                Tree::of(&[("a.rs", "env::var_os(name)")]),
            ]
        },
        kept: || {
            vec![Tree::of(&[(
                "a.rs",
                "env::var_os(\"BLESS\"); env!(\"CARGO_PKG_VERSION\"); env::args()",
            )])]
        },
    },
    Rule {
        name: "streams",
        sentence: "the command lines write through `sail_ir::output`",
        reason: "`print!` and its kin panic when the reader has gone away or the disk is full",
        fix: "`output::put` for results, `output::tell` for words",
        check: streams,
        broken: || {
            vec![
                Tree::of(&[("runtime/src/cli/run.rs", "    println!(\"done\");")]),
                Tree::of(&[("compiler/src/cli.rs", "eprint!(\"> \");")]),
            ]
        },
        kept: || {
            let text = "//! println!(\"{x}\");\noutput::put(&text)\n";
            vec![Tree::of(&[("runtime/src/session.rs", text), ("tests/house.rs", "print!(\"x\")")])]
        },
    },
    Rule {
        name: "switched-off-tests",
        sentence: "no test is switched off by an attribute",
        reason: "a skip must be loud and say what is missing",
        fix: "return `Outcome::Skipped` with the reason from a test in `tests/`",
        check: |tree| {
            let attribute = concat!("#[ig", "nore");
            let off = tree.sources().filter(|(_, text)| text.contains(attribute));
            off.map(|(path, _)| Breach::new(path, format!("has `{attribute}]`"))).collect()
        },
        broken: || vec![Tree::of(&[("a.rs", concat!("#[test]\n#[ig", "nore]\nfn f() {}"))])],
        kept: || vec![Tree::of(&[("a.rs", "#[test]\nfn f() {}")])],
    },
    Rule {
        name: "own-words",
        sentence: "no file names a place on somebody's machine",
        reason: "the project stands alone; such a path is wrong everywhere else",
        fix: "say it relative to the workspace",
        check: |tree| {
            let places = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/")];
            let mut breaches = Vec::new();
            for (path, text) in &tree.files {
                for place in places.iter().filter(|place| text.contains(**place)) {
                    breaches.push(Breach::new(path, format!("names `{place}`")));
                }
            }
            breaches
        },
        broken: || vec![Tree::of(&[("a.rs", concat!("let x = \"/ho", "me/me/x\";"))])],
        kept: || vec![Tree::of(&[("a.rs", "let x = \"/usr/lib/llvm-22\";")])],
    },
];

/// Lines before `#[cfg(test)] mod …`.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests =
        lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    tests.unwrap_or(lines.len())
}

/// Name and lines of each function with a body, as rustfmt lays them out.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, rest)) = code.split_once("fn ") else { continue };
        let qualifiers = before.split_whitespace().all(|word| {
            ["pub", "const", "async", "unsafe", "extern", "\"C\""].contains(&word)
                || word.starts_with("pub(")
        });
        if !qualifiers {
            continue;
        }
        let indent = line.len() - code.len();
        let at_indent = |line: &&str| line.len() - line.trim_start().len() == indent;
        let end = lines[start..].iter().position(|line| {
            let line_code = line.trim_end();
            at_indent(line) && (line_code.ends_with('}') || line_code.ends_with(';'))
        });
        let name = rest.split(['(', '<']).next().unwrap_or(rest);
        if let Some(end) = end {
            found.push((name, end + 1));
        }
    }
    found
}

/// A line without its comment. A `//` in a text literal also cuts; rules can live with that.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn has_word(line: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(inner) && !line[at + word.len()..].starts_with(inner))
}

fn unsafe_places(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.sources().filter(|(path, _)| !path.starts_with("tests/tidy")) {
        let lines: Vec<&str> = text.lines().collect();
        let allowed = UNSAFE_PLACES.iter().any(|(place, _)| path.starts_with(place));
        for (index, _) in
            lines.iter().enumerate().filter(|(_, line)| has_word(code(line), "unsafe"))
        {
            let above =
                lines[..index].iter().rev().take(12).take_while(|line| !line.trim().is_empty());
            let reasoned =
                above.clone().any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            if !allowed {
                breaches.push(Breach::new(path, format!("line {} has `unsafe`", index + 1)));
            } else if !reasoned {
                breaches
                    .push(Breach::new(path, format!("line {}: no `SAFETY:` above it", index + 1)));
            }
        }
    }
    breaches
}

/// Words of notes, put together so that this file does not break its own rule.
const MARKS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("XX", "X")];

fn open_ends(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let read = ["rs", "md", "toml", "mlir", "py", "sh"];
    for (path, text) in read.iter().flat_map(|extension| tree.texts(extension)) {
        for (index, line) in text.lines().enumerate() {
            let open = MARKS
                .iter()
                .find(|mark| has_word(line, mark) && !line.contains(&format!("{mark}(when ")));
            if let Some(mark) = open
                && !path.starts_with("tests/tidy")
            {
                breaches.push(Breach::new(path, format!("line {} has `{mark}`", index + 1)));
            }
        }
    }
    breaches
}

fn streams(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let told = |path: &str| ["compiler/src/", "runtime/src/"].iter().any(|it| path.starts_with(it));
    for (path, text) in tree.sources().filter(|(path, _)| told(path) && !path.ends_with("tests.rs"))
    {
        for (index, line) in text.lines().enumerate() {
            let printing = ["print!(", "println!("].iter().find(|it| code(line).contains(**it));
            if let Some(printing) = printing {
                breaches.push(Breach::new(path, format!("line {} has `{printing}`", index + 1)));
            }
        }
    }
    breaches
}

fn environment(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.sources().filter(|(path, _)| !path.starts_with("tests/tidy")) {
        for (index, line) in text.lines().enumerate() {
            for call in ["env::var(", "env::var_os(", "env!(", "env::vars", "env = "] {
                let Some((_, rest)) = code(line).split_once(call) else { continue };
                let name =
                    rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                let known = name
                    .is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with("CARGO"));
                if !known {
                    let name = name.unwrap_or("a variable by a computed name");
                    breaches.push(Breach::new(path, format!("line {} reads {name}", index + 1)));
                }
            }
        }
    }
    breaches
}
