//! Make fewer, larger ops: local rules, one file each, run until none fires.
//!
//! A rule may only decline; what it declines still has a kernel of its own. A fused op is named by
//! what it contains, in order. Adding a rule: a file in `fuse/`, a line in [`RULES`], a file test.

mod gate_up_silu;
pub(super) mod group_experts;
mod joint_qkv;
mod last_position;
mod linear_add;
mod linear_bias_gelu;
mod linear_route;
mod norm_linear;
mod norm_linear_route_group;
mod patch_embed;
mod qk_norm_rope_write;
mod shuffle_norm_linear_gelu;

use std::cell::RefCell;
use std::fmt::Write;

use sail_ir::op::Attribute;

use super::{Pass, Passes, Settings};
use crate::dialect;
use crate::rewrite::{self, Record, Rule};
use crate::stage::{Fused, Module, TextError};
use crate::view::Value;

/// Every rule, in the order they are tried.
///
/// Products are joined before norms are fused into them: a norm then has one reader.
pub static RULES: &[Rule] = &[
    last_position::RULE,
    joint_qkv::RULE,
    qk_norm_rope_write::RULE,
    gate_up_silu::RULE,
    linear_route::RULE,
    group_experts::RULE,
    norm_linear_route_group::RULE,
    patch_embed::RULE,
    linear_bias_gelu::RULE,
    shuffle_norm_linear_gelu::RULE,
    norm_linear::RULE,
    linear_add::RULE,
];

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

/// `text` of stage `graph` or `fused` after the rules of these names alone, and what they did.
///
/// Refuses text that is not of stage `fused`. For file tests and the rules' own headers.
///
/// # Panics
///
/// When there is no rule of such a name.
pub fn on_text(text: &str, file: &str, names: &[&str]) -> Result<(String, Vec<Record>), TextError> {
    let context = dialect::context();
    let module = Module::<Fused>::parse(&context, text, file)?;
    let unknown = names.iter().find(|name| RULES.iter().all(|rule| rule.name != **name));
    assert_eq!(unknown, None, "a rule of this name");
    let others = RULES.iter().filter(|rule| !names.contains(&rule.name));
    let passes = Passes::new(Settings {
        disabled_rules: others.map(|rule| rule.name.to_owned()).collect(),
        ..Settings::default()
    });
    let passes = passes.expect("rules of the table");
    let fused = passes.run_rules(module.open());
    let records = passes.watch().records.clone();
    Ok((fused.text(), records))
}

/// A name beside that of `value` in the checkpoint's modules: `layers.0.mlp.gate_up.weight` beside
/// `layers.0.mlp.gate_proj.weight`.
fn beside(value: Value<'_, '_>, new: &str) -> String {
    let name = value.name();
    let module = name.strip_suffix(".weight").unwrap_or(&name);
    match module.rsplit_once('.') {
        Some((parent, _)) => format!("{parent}.{new}"),
        None => new.to_owned(),
    }
}

pub(super) fn int(value: u64) -> Attribute {
    Attribute::Int(i64::try_from(value).expect("sizes of a checked model fit i64"))
}
