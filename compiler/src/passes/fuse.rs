//! Make fewer, larger ops: local rules, one file each, run until none fires.
//!
//! A rule may only decline; what it declines still has a kernel of its own. A fused op is named by
//! what it contains, in order. Adding a rule: a file in `fuse/`, a line in [`RULES`], a file test.

use std::cell::RefCell;
use std::fmt::Write;

use super::Pass;
use crate::rewrite::{self, Record, Rule};

/// Every rule, in the order they are tried.
pub static RULES: &[Rule] = &[];

pub(super) fn pass<'p>(rules: &'p [Rule], records: &'p RefCell<Vec<Record>>) -> Pass<'p> {
    Pass::new("fuse", |function, rewriter| {
        records.borrow_mut().extend(rewrite::run(function, rules, rewriter));
    })
}

/// What each rule did: where it fired, where it declined and why, function by function.
#[must_use]
pub fn explain(rules: &[Rule], records: &[Record]) -> String {
    let mut text = String::new();
    for rule in rules {
        let of_rule = || records.iter().filter(|record| record.rule == rule.name);
        let fired = of_rule().filter(|record| record.declined.is_none()).count();
        let declined = of_rule().count() - fired;
        writeln!(text, "{}: fired {fired}, declined {declined}", rule.name)
            .expect("writing to a string cannot fail");
        for record in of_rule() {
            let what = match &record.declined {
                None => "fired".to_owned(),
                Some(decline) => format!("declined: {}", decline.0),
            };
            writeln!(text, "  @{} %{}: {what}", record.function, record.value)
                .expect("writing to a string cannot fail");
        }
    }
    text
}
