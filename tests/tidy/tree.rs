//! What rules look at: the files of the repository and who depends on whom; or a small fake of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use sail_tests::harness::{Outcome, failed};
use sail_tests::places::workspace;
use serde_json::Value;

/// Extensions of files whose text is read; of others only the path counts.
const TEXT: [&str; 12] =
    ["rs", "md", "toml", "mlir", "txt", "py", "json", "jsonl", "allow", "yml", "sh", "lock"];

/// Texts above this size are data.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Files by path relative to the root with `/`, and packages by name.
#[derive(Debug, Default)]
pub struct Tree {
    pub files: BTreeMap<String, String>,
    pub packages: BTreeMap<String, Package>,
}

/// A package and the packages its normal dependencies name.
#[derive(Debug, Default)]
pub struct Package {
    pub member: bool,
    pub needs: BTreeSet<String>,
}

impl Tree {
    /// The repository, read once.
    pub fn workspace() -> Result<&'static Self, Outcome> {
        static TREE: OnceLock<Result<Tree, String>> = OnceLock::new();
        TREE.get_or_init(|| {
            let mut tree = Self { packages: packages()?, ..Self::default() };
            walk(workspace(), "", &mut tree.files).map_err(|error| error.to_string())?;
            Ok(tree)
        })
        .as_ref()
        .map_err(failed)
    }

    /// A tree of these files.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: files.collect(), ..Self::default() }
    }

    /// The same tree where the member `name` needs `needs`.
    pub fn member(mut self, name: &str, needs: &[&str]) -> Self {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        self.packages.insert(name.to_owned(), Package { member: true, needs });
        self
    }

    /// Rust sources.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts("rs")
    }

    pub fn texts<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.rsplit_once('.').is_some_and(|(_, end)| end == extension))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Is there a file or folder at `path`?
    pub fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let inside = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&inside))
    }

    /// `name` and everything its normal dependencies reach.
    pub fn closure(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> =
            self.packages.get_key_value(name).map(|(name, _)| name.as_str()).into_iter().collect();
        while let Some(name) = open.pop() {
            if reached.insert(name)
                && let Some(package) = self.packages.get(name)
            {
                open.extend(package.needs.iter().map(String::as_str));
            }
        }
        reached
    }
}

fn walk(root: &Path, inside: &str, files: &mut BTreeMap<String, String>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(inside))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let foreign = name == "target" || name == "__pycache__" || name == ".git";
            if !foreign {
                walk(root, &path, files)?;
            }
        } else if kind.is_file() {
            let extension = name.rsplit('.').next().unwrap_or_default();
            let readable = TEXT.contains(&extension) && entry.metadata()?.len() <= MAX_TEXT_BYTES;
            let text = if readable { fs::read_to_string(entry.path())? } else { String::new() };
            files.insert(path, text);
        }
    }
    Ok(())
}

/// What `cargo metadata` says of this platform's dependencies.
fn packages() -> Result<BTreeMap<String, Package>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    read(&metadata).ok_or_else(|| "`cargo metadata` has another form than expected".to_owned())
}

fn read(metadata: &Value) -> Option<BTreeMap<String, Package>> {
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
    let mut names = BTreeMap::new();
    for package in metadata["packages"].as_array()? {
        names.insert(package["id"].as_str()?, package["name"].as_str()?);
    }
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array()? {
        let id = node["id"].as_str()?;
        let package = packages.entry((*names.get(id)?).to_owned()).or_default();
        package.member |= members.contains(id);
        for need in node["deps"].as_array()? {
            let kinds = need["dep_kinds"].as_array()?;
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                package.needs.insert((*names.get(need["pkg"].as_str()?)?).to_owned());
            }
        }
    }
    Some(packages)
}
