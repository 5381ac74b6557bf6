//! Rules about what is written down: READMEs, their paths, the reasons of dependencies, op rows.

use std::collections::BTreeSet;

use super::tree::Tree;
use super::{Breach, Rule};

const MAX_ROOT_LINES: usize = 250;
const MAX_LINES: usize = 80;
const MIN_LINES_OF_A_CRATE: usize = 30;
const MIN_LINES_BESIDE_CODE: usize = 10;

/// Extensions that make a quoted word without `/` a file name.
const NAMED_FILES: [&str; 6] = [".rs", ".md", ".toml", ".mlir", ".py", ".allow"];

pub const RULES: &[Rule] = &[
    Rule {
        name: "readme",
        sentence: "every folder with code has a README",
        reason: "a newcomer asks first what a folder is for and what it must never do",
        fix: "write 10 to 80 lines: purpose, what it must never do, where to start, how to add the usual thing",
        check: |tree| {
            let has = |folder: &str| tree.files.contains_key(&format!("{folder}/README.md"));
            let mut folders = code_folders(tree);
            folders.retain(|folder| !has(folder) && !folder.strip_suffix("/src").is_some_and(has));
            folders.into_iter().map(|folder| Breach::new(folder, "no README.md")).collect()
        },
        broken: || {
            vec![Tree::of(&[
                ("ir/src/ops/add.rs", ""),
                ("ir/src/ops/mul.rs", ""),
                ("ir/README.md", ""),
            ])]
        },
        kept: || {
            vec![Tree::of(&[("ir/src/op.rs", ""), ("ir/src/id.rs", ""), ("ir/README.md", "")])]
        },
    },
    Rule {
        name: "readme-size",
        sentence: "a README has at most 80 lines, beside code at least 10, a crate's 30; the root's at most 250",
        reason: "shorter says nothing, longer is not read",
        fix: "say less, or move the detail into the doc comment of what it is about",
        check: |tree| {
            let mut breaches = Vec::new();
            let code = code_folders(tree);
            for (path, text) in tree.texts("md").filter(|(path, _)| path.ends_with("README.md")) {
                let lines = text.lines().count();
                let folder = path.strip_suffix("/README.md").unwrap_or_default();
                let least = match tree.holds(&format!("{folder}/Cargo.toml")) {
                    true => MIN_LINES_OF_A_CRATE,
                    false if code.contains(folder) => MIN_LINES_BESIDE_CODE,
                    false => 0,
                };
                let fits = match folder {
                    "" => lines <= MAX_ROOT_LINES,
                    _ => (least..=MAX_LINES).contains(&lines),
                };
                if !fits {
                    breaches.push(Breach::counted(path, format!("{lines} lines"), lines));
                }
            }
            breaches
        },
        broken: || {
            vec![
                Tree::of(&[("README.md", &"x\n".repeat(251))]),
                Tree::of(&[("ir/README.md", &"x\n".repeat(81))]),
                Tree::of(&[("ir/README.md", &"x\n".repeat(29)), ("ir/Cargo.toml", "")]),
                Tree::of(&[("a/b/README.md", "x\n"), ("a/b/c.rs", ""), ("a/b/d.rs", "")]),
            ]
        },
        kept: || {
            vec![Tree::of(&[
                ("README.md", &"x\n".repeat(250)),
                ("ir/README.md", &"x\n".repeat(80)),
                ("tests/goldens/README.md", "x\n"),
            ])]
        },
    },
    Rule {
        name: "readme-paths",
        sentence: "every path in a README exists",
        reason: "documentation that is not executed rots",
        fix: "correct the path, relative to the README or to the workspace",
        check: |tree| {
            let mut breaches = Vec::new();
            for (path, text) in tree.texts("md").filter(|(path, _)| path.ends_with("README.md")) {
                let folder = path.strip_suffix("README.md").unwrap_or_default();
                for word in
                    quoted_paths(text).into_iter().filter(|word| !exists(tree, folder, word))
                {
                    breaches.push(Breach::new(path, format!("`{word}` is not there")));
                }
            }
            breaches
        },
        broken: || {
            vec![
                Tree::of(&[("README.md", "see `ir/src/gone.rs`\n")]),
                Tree::of(&[("README.md", "see [it](docs/gone.md)\n")]),
                Tree::of(&[("ir/README.md", "see `gone.rs`\n")]),
            ]
        },
        kept: || {
            let text = "`src/op.rs`, `op.rs`, `ir/src/`, `../shared/reference`, `tokens/s`, `x.sail`, [u](https://a/b)\n";
            vec![Tree::of(&[("ir/README.md", text), ("ir/src/op.rs", "")])]
        },
    },
    Rule {
        name: "dependency-reasons",
        sentence: "every dependency has a word why",
        reason: "a dependency is code we answer for",
        fix: "add a comment to its line in the workspace's `Cargo.toml`",
        check: |tree| {
            let text = tree.files.get("Cargo.toml").map(String::as_str).unwrap_or_default();
            let table = text.split("\n[").find(|part| part.starts_with("workspace.dependencies]"));
            let lines = table.unwrap_or_default().lines().skip(1);
            lines
                .filter(|line| {
                    line.contains('=') && !line.contains("path = ") && !line.contains('#')
                })
                .map(|line| Breach::new("Cargo.toml", line))
                .collect()
        },
        broken: || vec![Tree::of(&[("Cargo.toml", "\n[workspace.dependencies]\nserde = \"1\"\n")])],
        kept: || {
            let text = "\n[workspace.dependencies]\nir = { path = \"ir\" }\nserde = \"1\" # JSON\n";
            vec![Tree::of(&[("Cargo.toml", text)])]
        },
    },
    Rule {
        name: "op-rows",
        sentence: "every op row has a doc comment, a unit test and a file test",
        reason: "an op nobody can look up is written twice",
        fix: "document the row as its neighbours do; add it to a module under `tests/filetests`",
        check: op_rows,
        broken: || {
            let row = "//! `sail.add`\n\n/// Sum.\npub const ADD: Op = Op { name: \"add\" };\n";
            let bare = "pub const ADD: Op = Op { name: \"add\" };\n#[cfg(test)]\nmod tests {}\n";
            let used = ("tests/filetests/a.mlir", "\"sail.add\"(%x)");
            vec![
                Tree::of(&[("ir/src/ops/add.rs", row), used]),
                Tree::of(&[("ir/src/ops/add.rs", bare), used]),
                Tree::of(&[("ir/src/ops/add.rs", &format!("{row}#[cfg(test)]\nmod tests {{}}\n"))]),
            ]
        },
        kept: || {
            let row =
                "/// Sum.\npub const ADD: Op = Op { name: \"add\" };\n#[cfg(test)]\nmod tests {}\n";
            vec![Tree::of(&[
                ("ir/src/ops/add.rs", row),
                ("tests/filetests/a.mlir", "\"sail.add\"(%x)"),
            ])]
        },
    },
];

/// Folders that hold more than one source; a lone source says on its first line what it is for.
fn code_folders(tree: &Tree) -> BTreeSet<String> {
    let folders: Vec<&str> = tree
        .sources()
        .filter_map(|(path, _)| path.rsplit_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    let many = |folder: &&&str| folders.iter().filter(|other| *other == *folder).count() > 1;
    folders.iter().filter(many).map(|folder| (*folder).to_owned()).collect()
}

/// Words in backquotes or link targets that look like a path of this repository.
fn quoted_paths(text: &str) -> Vec<&str> {
    let quoted = text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| {
        line.split('`').skip(1).step_by(2).filter(|word| !word.contains(char::is_whitespace))
    });
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let path = |word: &&str| {
        let inside =
            word.contains('/') && !word.starts_with(['/', '-']) && !word.starts_with("../shared");
        inside || NAMED_FILES.iter().any(|end| word.ends_with(end))
    };
    let mut words: Vec<&str> = quoted.filter(plain).filter(path).collect();
    words.extend(links.filter(|word| plain(word) && !word.starts_with('#')));
    words
}

/// A word with `/` is a path when it names something below the README's folder or the root, or a
/// word for something else when its first part is no folder of either.
fn exists(tree: &Tree, folder: &str, word: &str) -> bool {
    if let Some(word) = word.strip_prefix("../") {
        let above = folder.trim_end_matches('/').rsplit_once('/');
        return exists(
            tree,
            &above.map(|(above, _)| format!("{above}/")).unwrap_or_default(),
            word,
        );
    }
    let places = [folder.to_owned(), format!("{folder}src/"), String::new()];
    if places.iter().any(|place| tree.holds(&format!("{place}{word}"))) {
        return true;
    }
    let is_file = NAMED_FILES.iter().any(|end| word.ends_with(end));
    if let Some((first, _)) = word.split_once('/') {
        let known = places.iter().any(|place| tree.holds(&format!("{place}{first}")));
        return !(known || is_file);
    }
    tree.files.keys().any(|path| path.rsplit('/').next() == Some(word))
}

fn op_rows(tree: &Tree) -> Vec<Breach> {
    let file_tests: Vec<&str> = tree
        .texts("mlir")
        .filter(|(path, _)| path.starts_with("tests/filetests/"))
        .map(|(_, text)| text)
        .collect();
    let mut breaches = Vec::new();
    for (path, text) in tree.sources().filter(|(path, _)| path.starts_with("ir/src/ops/")) {
        let rows: Vec<&str> =
            text.split("name: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let lines: Vec<&str> = text.lines().collect();
        let constants = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.starts_with("pub const ") && line.contains(": Op ="));
        for (index, line) in constants {
            let documented = index > 0
                && (lines[index - 1].starts_with("///") || lines[index - 1].starts_with("#["));
            if !documented {
                breaches.push(Breach::new(path, format!("`{line}` has no doc comment")));
            }
        }
        if !rows.is_empty() && !text.contains("#[cfg(test)]") {
            breaches.push(Breach::new(path, "has no unit test"));
        }
        for name in rows {
            let used = format!("\"sail.{name}\"(");
            if !file_tests.iter().any(|text| text.contains(&used)) {
                breaches.push(Breach::new(path, format!("`sail.{name}` is in no file test")));
            }
        }
    }
    breaches
}
