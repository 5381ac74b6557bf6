//! How the tests of op rows are written: operand types and attributes as text, then what the rule says.

use expect_test::Expect;

use crate::op::{Attribute, Attributes, Op, ShapeError, infer_written};
use crate::shape::Type;

/// Apply the rule of `op` to `input`, for example
/// `tensor<?x64xbf16>, tensor<64xbf16> {eps = 1e-6}`, and compare its answer.
///
/// ` -> TYPE` after the operands is the result type as written on the op.
pub(super) fn check_infer(op: &Op, input: &str, expected: Expect) {
    let (input, written) = input.split_once(" -> ").unwrap_or((input, ""));
    let (types, attributes) = match input.split_once('{') {
        Some((types, rest)) => (types, attributes(op, rest.trim_end_matches('}'))),
        None => (input, Attributes::new()),
    };
    expected.assert_eq(&match infer_written(op, &parse(types), &attributes, &parse(written)) {
        Ok(results) => results.iter().map(Type::to_string).collect::<Vec<_>>().join(", "),
        Err(ShapeError { message, hint: None }) => format!("error: {message}"),
        Err(ShapeError { message, hint: Some(hint) }) => format!("error: {message}\nhint: {hint}"),
    });
}

fn parse(types: &str) -> Vec<Type> {
    let parts = split(types);
    parts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Cut at commas outside of brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in text.chars() {
        depth += match letter {
            '<' | '[' => 1,
            '>' | ']' => -1,
            _ => 0,
        };
        match (letter, depth) {
            (',', 0) => parts.push(String::new()),
            _ => parts.last_mut().expect("never empty").push(letter),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn attributes(op: &Op, text: &str) -> Attributes {
    let pairs = split(text);
    let pairs = pairs.iter().map(|pair| pair.split_once(" = ").expect("`name = value`"));
    pairs.map(|(name, text)| (field(op, name), value(text))).collect()
}

fn field(op: &Op, name: &str) -> &'static str {
    let field = op.attributes.iter().find(|field| field.name == name);
    field.map_or("unknown", |field| field.name)
}

fn value(text: &str) -> Attribute {
    let quoted = |text: &str| text.trim_matches('"').to_owned();
    match text {
        "true" | "false" => Attribute::Bool(text == "true"),
        _ if text.starts_with('[') => {
            let inside = text.trim_start_matches('[').trim_end_matches(']');
            Attribute::Texts(split(inside).iter().map(|text| quoted(text)).collect())
        }
        _ if text.starts_with('"') => Attribute::Text(quoted(text)),
        _ => text.parse().map(Attribute::Int).unwrap_or_else(|_| {
            Attribute::Float(text.parse().unwrap_or_else(|_| panic!("`{text}` is no value")))
        }),
    }
}
