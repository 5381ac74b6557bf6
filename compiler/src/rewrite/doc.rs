//! The header of a rule's file is its test: the rule turns the first `mlir` block into the second.
//!
//! A block is the body of a function: values it reads and does not make are arguments, values that
//! nobody reads are what it returns.

use std::collections::{BTreeMap, BTreeSet};

use crate::dialect;
use crate::passes::fuse;
use crate::stage::{Fused, Module};

/// Refuses a header whose second block is not what rule `name` makes of its first.
pub(crate) fn check(name: &str, source: &str) {
    let [before, after] = &blocks(source)[..] else { panic!("two `mlir` blocks in the header") };
    let head = Head::of(before);
    let (found, records) = fuse::on_text(&head.function(before), "header", &[name]).unwrap();
    let context = dialect::context();
    let expected = Module::<Fused>::parse(&context, &head.function(after), "header").unwrap();
    assert_eq!(found, expected.text(), "the header of `{name}`; its records: {records:#?}");
    assert!(records.iter().any(|record| record.declined.is_none()), "`{name}` did not fire");
}

fn blocks(source: &str) -> Vec<String> {
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let header: Vec<&str> = header.collect();
    let header = header.join("\n");
    let parts = header.split("```");
    parts.filter_map(|part| Some(part.strip_prefix("mlir\n")?.to_owned())).collect()
}

/// What a block is given and gives back.
struct Head {
    arguments: Vec<(String, String)>,
    results: Vec<(String, String)>,
}

impl Head {
    fn of(block: &str) -> Self {
        let (mut made, mut types) = (Vec::new(), BTreeMap::new());
        let (mut arguments, mut read) = (Vec::new(), BTreeSet::new());
        for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (result, op) = line.split_once(" = ").expect("a value on every line");
            let operands = split(between(op, "\"(", ")"));
            let signature = op.rsplit_once(" : (").expect("types after a colon").1;
            let (given, gives) = signature.rsplit_once(") -> ").expect("an arrow");
            for (name, ty) in operands.iter().zip(split(given)) {
                let base = name.split('#').next().unwrap_or(name);
                if !made.iter().any(|made: &String| made == base) && read.insert(base.to_owned()) {
                    arguments.push((base.to_owned(), ty));
                }
                read.insert(base.to_owned());
            }
            let result = result.trim().split(':').next().expect("a name").to_owned();
            types.insert(result.clone(), gives.to_owned());
            made.push(result);
        }
        let unread = made.into_iter().filter(|name| !read.contains(name));
        let results = unread.flat_map(|name| {
            let all = split(types[&name].trim_start_matches('(').trim_end_matches(')'));
            let several = all.len() > 1;
            let numbered = all.into_iter().enumerate().map(move |(index, ty)| {
                (if several { format!("{name}#{index}") } else { name.clone() }, ty)
            });
            numbered.collect::<Vec<_>>()
        });
        Self { arguments, results: results.collect() }
    }

    fn function(&self, block: &str) -> String {
        let list = |pairs: &[(String, String)], part: fn(&(String, String)) -> String| {
            pairs.iter().map(part).collect::<Vec<_>>().join(", ")
        };
        let arguments = list(&self.arguments, |(name, ty)| format!("{name}: {ty}"));
        let types = list(&self.results, |(_, ty)| ty.clone());
        let names = list(&self.results, |(name, _)| name.clone());
        format!("func.func @f({arguments}) -> ({types}) {{\n{block}return {names} : {types}\n}}\n")
    }
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    let rest = text.split_once(open).expect("operands").1;
    rest.split_once(close).expect("operands").0
}

/// Cut at commas outside of brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in text.chars() {
        depth += i32::from("<[(".contains(letter)) - i32::from(">])".contains(letter));
        match (letter, depth) {
            (',', 0) => parts.push(String::new()),
            _ => parts.last_mut().expect("never empty").push(letter),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}
