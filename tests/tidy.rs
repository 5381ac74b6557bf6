//! House rules as tests: each failure says the rule, its reason and the fix.
//!
//! A rule is a row of [`RULES`]: a check over a [`Tree`] and small trees that break and keep it, so
//! that every rule is seen failing. Exceptions stand in `tidy.allow` with a reason; one that is no
//! longer needed is itself a failure.

mod readme;
mod source;
mod tree;
mod walls;

use std::fmt::Write as _;
use std::fs;

use sail_tests::harness::{Outcome, Test, failed};
use sail_tests::places::workspace;

use tree::Tree;

/// One rule of the house.
pub struct Rule {
    /// Its word in `tidy.allow`.
    pub name: &'static str,
    /// The rule as a sentence.
    pub sentence: &'static str,
    pub reason: &'static str,
    pub fix: &'static str,
    pub check: fn(&Tree) -> Vec<Breach>,
    /// Small trees that must be refused, each for one way to break the rule.
    pub broken: fn() -> Vec<Tree>,
    /// Small trees that must pass although they come near.
    pub kept: fn() -> Vec<Tree>,
}

/// A place where a rule does not hold.
#[derive(Debug)]
pub struct Breach {
    pub path: String,
    pub said: String,
    /// What was counted, for rules with a limit that an allowance may raise.
    pub count: Option<usize>,
}

impl Breach {
    pub fn new(path: impl Into<String>, said: impl Into<String>) -> Self {
        Self { path: path.into(), said: said.into(), count: None }
    }

    pub fn counted(path: impl Into<String>, said: impl Into<String>, count: usize) -> Self {
        Self { path: path.into(), said: said.into(), count: Some(count) }
    }
}

fn rules() -> impl Iterator<Item = &'static Rule> {
    walls::RULES.iter().chain(source::RULES).chain(readme::RULES)
}

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::new("every rule refuses the small trees that break it", seen_failing),
        Test::new("every rule passes the small trees that keep it", seen_passing),
        Test::new(
            "every allowance in tidy.allow names a rule and is still needed",
            no_stale_allowance,
        ),
    ];
    tests.extend(rules().map(|rule| Test::new(rule.sentence, || hold(rule))));
    tests.into_iter().map(Test::independent).collect()
}

fn hold(rule: &Rule) -> Result<(), Outcome> {
    let allowances = allowances()?;
    let breaches: Vec<_> = (rule.check)(Tree::workspace()?)
        .into_iter()
        .filter(|breach| !allowances.iter().any(|allowance| allowance.covers(rule, breach)))
        .collect();
    if breaches.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for Breach { path, said, .. } in &breaches {
        writeln!(text, "{path}: {said}").expect("writing to a string cannot fail");
    }
    write!(text, "because {}\nhint: {}", rule.reason, rule.fix)
        .expect("writing to a string cannot fail");
    Err(failed(text))
}

fn seen_failing() {
    for rule in rules() {
        for (index, tree) in (rule.broken)().iter().enumerate() {
            assert!(!(rule.check)(tree).is_empty(), "`{}` passes broken tree {index}", rule.name);
        }
        assert!(!(rule.broken)().is_empty(), "`{}` was never seen failing", rule.name);
    }
}

fn seen_passing() {
    for rule in rules() {
        for (index, tree) in (rule.kept)().iter().enumerate() {
            let breaches = (rule.check)(tree);
            assert!(breaches.is_empty(), "`{}` refuses kept tree {index}: {breaches:?}", rule.name);
        }
    }
}

/// A line of `tidy.allow`: `RULE PATH [LIMIT] # REASON`.
#[derive(Debug)]
struct Allowance {
    rule: String,
    path: String,
    limit: Option<usize>,
}

impl Allowance {
    fn parse(line: &str) -> Option<Self> {
        let (words, reason) = line.split_once('#')?;
        let mut words = words.split_whitespace();
        let allowance = Self {
            rule: words.next()?.to_owned(),
            path: words.next()?.to_owned(),
            limit: words.next().map(str::parse).transpose().ok()?,
        };
        (words.next().is_none() && reason.trim().len() > 10).then_some(allowance)
    }

    fn covers(&self, rule: &Rule, breach: &Breach) -> bool {
        self.rule == rule.name && self.path == breach.path && breach.count <= self.limit
    }
}

fn allowances() -> Result<Vec<Allowance>, Outcome> {
    let path = workspace().join("tests/tidy.allow");
    let text = fs::read_to_string(&path)
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            Allowance::parse(line)
                .ok_or_else(|| failed(format!("`{line}` is not `RULE PATH [LIMIT] # REASON`")))
        })
        .collect()
}

fn no_stale_allowance() -> Result<(), Outcome> {
    let tree = Tree::workspace()?;
    for allowance in allowances()? {
        let rule = rules().find(|rule| rule.name == allowance.rule);
        let rule = rule.ok_or_else(|| failed(format!("no rule is called `{}`", allowance.rule)))?;
        let breaches = (rule.check)(tree);
        let needed = breaches.iter().find(|breach| allowance.covers(rule, breach));
        match needed {
            None => {
                return Err(failed(format!(
                    "`{} {}` is no longer needed, or its limit is passed: the list may only shrink",
                    allowance.rule, allowance.path
                )));
            }
            Some(breach) if breach.count < allowance.limit => {
                return Err(failed(format!(
                    "`{}` is down to {}: lower its limit, the list may only shrink",
                    allowance.path,
                    breach.count.unwrap_or_default()
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
