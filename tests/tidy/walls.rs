//! Who may depend on whom; the diagram stands in the root `README.md`.

use super::tree::Tree;
use super::{Breach, Rule};

/// Packages that hold MLIR or LLVM.
const COMPILER_LIBRARIES: [&str; 6] =
    ["melior", "melior-macro", "mlir-sys", "inkwell", "llvm-sys", "tblgen"];

/// The arrows between members; a member not listed here may see everything, and nothing sees it.
const ARROWS: [(&str, &[&str]); 7] = [
    ("sail-ir", &[]),
    ("sail-ptxsim", &[]),
    ("sail-gpucheck", &["sail-ir"]),
    ("sail-models", &["sail-ir"]),
    ("sail-kernels", &["sail-ir"]),
    ("sail-runtime", &["sail-ir"]),
    ("sailc", &["sail-ir", "sail-models", "sail-kernels", "sail-runtime"]),
];

/// Members that may link MLIR.
const MLIR_USERS: [&str; 2] = ["sailc", "sail-tests"];

pub const RULES: &[Rule] = &[
    Rule {
        name: "runtime-without-compiler",
        sentence: "the runtime depends on no compiler library and no compiler crate",
        reason: "an artifact runs on machines that have no LLVM, and opens in milliseconds",
        fix: "move what the runtime needs into `sail-ir`, or decide it when compiling",
        check: |tree| {
            let ours = ["sail-kernels", "sail-models", "sailc"];
            reaches(tree, "sail-runtime", &[&COMPILER_LIBRARIES[..], &ours].concat())
        },
        broken: || {
            vec![
                Tree::default().member("sail-runtime", &["serde", "melior"]),
                Tree::default()
                    .member("sail-runtime", &["sail-ir"])
                    .member("sail-ir", &["sail-kernels"])
                    .member("sail-kernels", &[]),
            ]
        },
        kept: || {
            vec![Tree::default().member("sail-runtime", &["sail-ir"]).member("sail-ir", &["serde"])]
        },
    },
    Rule {
        name: "vocabulary-without-llvm",
        sentence: "sail-ir depends on nothing that needs LLVM",
        reason: "the runtime and every tool read the vocabulary",
        fix: "keep the MLIR or LLVM side in `compiler/` or `kernels/`",
        check: |tree| reaches(tree, "sail-ir", &COMPILER_LIBRARIES),
        broken: || vec![Tree::default().member("sail-ir", &["inkwell"])],
        kept: || vec![Tree::default().member("sail-ir", &["serde", "blake3"])],
    },
    Rule {
        name: "arrows",
        sentence: "every arrow between crates is one of the diagram's",
        reason: "a new arrow changes what can be built and understood alone",
        fix: "change the diagram in `README.md` and this table in one commit, or do not add it",
        check: |tree| {
            let mut breaches = Vec::new();
            for (name, package) in tree.packages.iter().filter(|(_, package)| package.member) {
                let allowed = ARROWS.iter().find(|(from, _)| from == name);
                for need in &package.needs {
                    let ours = tree.packages.get(need).is_some_and(|need| need.member);
                    let fits = match allowed {
                        Some((_, to)) => to.contains(&need.as_str()),
                        None => ARROWS.iter().any(|(seen, _)| seen == need) || need == "sail-tests",
                    };
                    if ours && !fits {
                        breaches.push(Breach::new(name, format!("depends on `{need}`")));
                    }
                }
            }
            breaches
        },
        broken: || {
            vec![
                Tree::default()
                    .member("sail-models", &["sail-kernels"])
                    .member("sail-kernels", &[]),
                Tree::default().member("sailc", &["sail-bench"]).member("sail-bench", &[]),
            ]
        },
        kept: || {
            vec![Tree::default().member("sail-bench", &["sailc", "serde"]).member("sailc", &[])]
        },
    },
    Rule {
        name: "one-mlir-executable",
        sentence: "only sailc and sail-tests link MLIR",
        reason: "Debian has MLIR's C API as 58 static libraries only; each executable costs seconds of linking",
        fix: "call through the `sailc` library from `tests/`",
        check: |tree| {
            let members = tree.packages.iter().filter(|(_, package)| package.member);
            members
                .filter(|(name, _)| !MLIR_USERS.contains(&name.as_str()))
                .flat_map(|(name, _)| reaches(tree, name, &["mlir-sys"]))
                .collect()
        },
        broken: || vec![Tree::default().member("sail-bench", &["mlir-sys"])],
        kept: || {
            vec![Tree::default().member("sailc", &["mlir-sys"]).member("sail-tests", &["sailc"])]
        },
    },
    Rule {
        name: "raw-edges",
        sentence: "raw MLIR calls stand in dialect.rs and rewrite.rs, the driver's under runtime/src/device",
        reason: "two files can be audited, a habit cannot",
        fix: "add a safe function to one of those files",
        check: |tree| {
            let walls: [(&str, &[&str]); 3] = [
                ("mlir_sys", &["compiler/src/dialect.rs", "compiler/src/rewrite.rs"]),
                ("cudarc", &["runtime/src/device/", "tests/gpucheck/src/"]),
                ("llvm_sys", &[]),
            ];
            let mut breaches = Vec::new();
            for (path, text) in tree.sources().filter(|(path, _)| !path.starts_with("tests/tidy")) {
                for (word, places) in walls {
                    if text.contains(word) && !places.iter().any(|place| path.starts_with(place)) {
                        breaches.push(Breach::new(path, format!("uses `{word}`")));
                    }
                }
            }
            breaches
        },
        broken: || {
            vec![
                Tree::of(&[("compiler/src/import.rs", "use mlir_sys::mlirOpPrint;")]),
                Tree::of(&[("runtime/src/execute.rs", "use cudarc::driver;")]),
            ]
        },
        kept: || vec![Tree::of(&[("compiler/src/dialect.rs", "use mlir_sys::mlirOpPrint;")])],
    },
    Rule {
        name: "no-anyhow",
        sentence: "no crate of ours uses a catch-all error type",
        reason: "an error of the house knows its code, hint and exit status",
        fix: "add a variant to the crate's error and say it in `Display`",
        check: |tree| {
            let members = tree.packages.iter().filter(|(_, package)| package.member);
            members
                .flat_map(|(name, package)| package.needs.iter().map(move |need| (name, need)))
                .filter(|(_, need)| ["anyhow", "eyre", "color-eyre"].contains(&need.as_str()))
                .map(|(name, need)| Breach::new(name, format!("depends on `{need}`")))
                .collect()
        },
        broken: || vec![Tree::default().member("sailc", &["anyhow"])],
        kept: || vec![Tree::default().member("sailc", &["serde"])],
    },
];

fn reaches(tree: &Tree, from: &str, forbidden: &[&str]) -> Vec<Breach> {
    tree.closure(from)
        .into_iter()
        .filter(|name| *name != from && forbidden.contains(name))
        .map(|name| Breach::new(from, format!("reaches `{name}`")))
        .collect()
}
