//! Which layer's weights get which scheme: `--quant` for all, and a recipe file for some.
//!
//! ```toml
//! # The first rule that matches a layer decides; all others are stored as `--quant` says.
//! [[rule]]
//! layers = "language_model.model.layers.0.*"
//! scheme = "bf16"
//!
//! [[rule]]
//! layers = "*.mlp.down_proj"
//! scheme = "int8"
//! ```
//!
//! A layer is called as its weight in the checkpoint, without `.weight`. `*` stands for any text,
//! `?` for one character, `[ab]` for one of some.

use std::fmt;
use std::path::Path;

use glob::{Pattern, PatternError};
use sail_ir::{Help, Scheme};
use serde::Deserialize;

use crate::error::plain;

/// One line of a recipe: layers, and what their weights are stored as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    layers: Pattern,
    pub scheme: Scheme,
}

/// What is asked for a layer, and by which rule, if by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub scheme: Scheme,
    pub rule: Option<usize>,
}

/// A scheme for all layers, and rules for some.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub scheme: Scheme,
    pub rules: Vec<Rule>,
}

impl Rule {
    /// Refuses, with its place, what is no pattern.
    pub fn new(layers: &str, scheme: Scheme) -> Result<Self, PatternError> {
        Ok(Self { layers: Pattern::new(layers)?, scheme })
    }

    /// Does it mean this layer?
    #[must_use]
    pub fn matches(&self, layer: &str) -> bool {
        self.layers.matches(layer)
    }

    /// Does it name one layer, no pattern?
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.layers.as_str().contains(['*', '?', '['])
    }

    /// The layers, as they were written.
    #[must_use]
    pub fn layers(&self) -> &str {
        self.layers.as_str()
    }
}

/// `*.down_proj:int4`, as an artifact keeps it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.layers, self.scheme)
    }
}

impl From<Scheme> for Recipe {
    fn from(scheme: Scheme) -> Self {
        Self { scheme, rules: Vec::new() }
    }
}

impl Recipe {
    /// The schemes that it names.
    pub fn schemes(&self) -> impl Iterator<Item = Scheme> {
        std::iter::once(self.scheme).chain(self.rules.iter().map(|rule| rule.scheme))
    }

    /// What is asked for `layer`.
    #[must_use]
    pub fn asked(&self, layer: &str) -> Asked {
        match self.rules.iter().position(|rule| rule.matches(layer)) {
            Some(rule) => Asked { scheme: self.rules[rule].scheme, rule: Some(rule) },
            None => Asked { scheme: self.scheme, rule: None },
        }
    }
}

/// The layer whose weight is at `path` of the checkpoint.
#[must_use]
pub fn layer_of(path: &str) -> &str {
    path.strip_suffix(".weight").unwrap_or(path)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    layers: toml::Spanned<String>,
    scheme: toml::Spanned<String>,
}

/// The rules of the file at `path`, in its order.
///
/// Refuses what is no TOML, keys it does not know, a pattern or a scheme that is none, and a file
/// without rules.
pub fn read(path: &Path) -> Result<Vec<Rule>, RecipeError> {
    let malformed = |because| RecipeError::File { path: path.display().to_string(), because };
    let text = std::fs::read_to_string(path).map_err(|error| malformed(plain(&error)))?;
    let rules = parse(&text).map_err(malformed)?;
    if rules.is_empty() {
        return Err(malformed("it has no `[[rule]]`".to_owned()));
    }
    Ok(rules)
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let line = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
    let file: File = toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| format!(" in line {}", line(span.start)));
        format!("{}{}", error.message().trim_end().replace('\n', ", "), place.unwrap_or_default())
    })?;
    let rules = file.rule.into_iter().map(|FileRule { layers, scheme }| {
        let place = line(scheme.span().start);
        let scheme = scheme.get_ref().parse().map_err(|error| format!("{error} (line {place})"))?;
        Rule::new(layers.get_ref(), scheme).map_err(|error| {
            let (place, written) = (line(layers.span().start), layers.get_ref());
            format!("`{written}` in line {place} is no pattern: {}", error.msg)
        })
    });
    rules.collect()
}

/// Why a recipe cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeError {
    /// The file is none.
    File { path: String, because: String },
    /// A rule that no weight of a product answers to.
    Unmatched { rule: String, near: Vec<String> },
    /// A rule for the head, which is no weight of its own: the table of tokens is.
    Tied { rule: String, head: String, table: String },
    /// A rule whose layers earlier rules have taken.
    Shadowed { rule: String, by: String },
    /// A rule that is left with layers which stay `bf16` whatever a pattern asks; `always`: whatever
    /// a name asks, too.
    Vain { rule: Rule, layer: String, because: &'static str, always: bool },
    /// Weights that are one operand of one kernel have different schemes; `experts`: no fusion made
    /// them one.
    Mixed { weight: String, layers: [String; 2], schemes: [Scheme; 2], experts: bool },
    /// A layer is named whose kernel has no other scheme.
    NoFit { layer: String, scheme: Scheme, because: &'static str },
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, because } => {
                write!(f, "the recipe cannot be read\n  in `{path}`\n  because {because}")
            }
            Self::Unmatched { rule, .. } | Self::Tied { rule, .. } => write!(
                f,
                "rule `{rule}` of the recipe matches no layer of this model whose weight is multiplied"
            ),
            Self::Shadowed { rule, by } => write!(
                f,
                "rule `{rule}` of the recipe decides nothing\n  because `{by}` and others before it match all of its layers"
            ),
            Self::Vain { rule, layer, because, .. } => write!(
                f,
                "rule `{}` of the recipe decides nothing\n  because `{layer}`, like all that it could decide, stays `bf16`: {because}",
                rule.layers()
            ),
            Self::Mixed { weight, layers: [one, other], schemes: [first, second], .. } => write!(
                f,
                "`{weight}` cannot have two schemes\n  because the recipe asks `{first}` for `{one}` and `{second}` for `{other}`, and one kernel reads them as one weight"
            ),
            Self::NoFit { layer, scheme, because } => {
                write!(f, "`{layer}` cannot be stored as `{scheme}`\n  because {because}")
            }
        }
    }
}

impl std::error::Error for RecipeError {}

impl Help for RecipeError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SC0330",
            Self::Unmatched { .. }
            | Self::Tied { .. }
            | Self::Shadowed { .. }
            | Self::Vain { .. } => "SC0331",
            Self::Mixed { .. } => "SC0332",
            Self::NoFit { .. } => "SC0333",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => Some(
                "a rule is `[[rule]]`, `layers = \"*.mlp.down_proj\"`, `scheme = \"int8\"`"
                    .to_owned(),
            ),
            Self::Unmatched { near, .. } => {
                let near: Vec<_> = near.iter().map(|layer| format!("`{layer}`")).collect();
                Some(format!("layers are called like {}", near.join(", ")))
            }
            Self::Shadowed { .. } => Some("put narrower rules before wider ones".to_owned()),
            Self::Tied { head, table, .. } => Some(format!(
                "this model has no `{head}`: its head is `{table}`, the table of tokens"
            )),
            Self::Vain { rule, layer, always: false, .. } => {
                Some(format!("to store it as `{}` all the same, name it: `{layer}`", rule.scheme))
            }
            Self::Vain { always: true, .. } | Self::NoFit { .. } => {
                Some("leave the rule out: no kernel of such a layer has another scheme".to_owned())
            }
            Self::Mixed { experts: true, .. } => Some(
                "all experts of a layer share one scheme, and so do their gate and up: write `*.experts.*`, or `*.experts.*.down_proj` for down alone"
                    .to_owned(),
            ),
            Self::Mixed { .. } => Some(
                "one rule for all of them, or `--disable-rule` of the fusion that joined them"
                    .to_owned(),
            ),
        }
    }

    fn exit_code(&self) -> u8 {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(layers: &str, scheme: &str) -> String {
        format!("[[rule]]\nlayers = \"{layers}\"\nscheme = \"{scheme}\"\n")
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let text = rule("*.layers.0.*", "bf16") + &rule("*.down_proj", "int4");
        let recipe = Recipe { scheme: Scheme::Int8, rules: parse(&text).unwrap() };
        let asked = |layer| recipe.asked(layer);
        assert_eq!(asked("m.layers.0.mlp.down_proj").scheme, Scheme::Bf16);
        let of_second = Asked { scheme: Scheme::Int4, rule: Some(1) };
        assert_eq!(asked("m.layers.10.mlp.down_proj"), of_second);
        assert_eq!(asked("lm_head"), Asked { scheme: Scheme::Int8, rule: None });
    }

    #[test]
    fn what_is_no_recipe_is_refused_with_its_line() {
        let errors = [
            (rule("a", "bf16") + "layers = 3", "line 4"),
            ("\n[[rule]]\nlayers = \"a\"\n".to_owned(), "scheme"),
            (rule("a", "int3"), "line 3"),
            (rule("a[", "int8"), "line 2"),
            ("[rules]\n".to_owned(), "rules"),
        ];
        for (text, part) in errors {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
