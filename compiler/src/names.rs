//! Names of values in text: gives every named value the location that keeps its name.
//!
//! `%y = …` becomes `%y = … loc("y"("FILE":LINE:COLUMN))`, and so do function arguments. MLIR
//! drops the name on parsing and keeps the location; the printer then uses the location as name.
//! Works line by line: an op, and the head of a function, stand on one line each. Values that
//! have a location already keep it.

use std::fmt::Write;

/// `text` with a location after every named value.
pub(crate) fn locate(text: &str, file: &str) -> String {
    let file = file.replace(['"', '\\'], "_");
    let mut located = String::with_capacity(text.len() * 2);
    for (index, line) in text.lines().enumerate() {
        let (code, comment) = line.split_at(code_length(line));
        let source = Source { file: &file, line: index + 1 };
        if code.contains(" loc(") {
            located.push_str(code);
        } else if code.trim_start().starts_with("func.func") {
            source.arguments(code, &mut located);
        } else {
            source.result(code, &mut located);
        }
        located.push_str(comment);
        located.push('\n');
    }
    located
}

struct Source<'a> {
    file: &'a str,
    line: usize,
}

impl Source<'_> {
    fn append(&self, name: &str, column: usize, to: &mut String) {
        write!(to, " loc(\"{name}\"(\"{}\":{}:{column}))", self.file, self.line)
            .expect("writing to a string cannot fail");
    }

    /// The op of a line: its first result's name, if it has any.
    fn result(&self, code: &str, located: &mut String) {
        let op = code.trim();
        located.push_str(code.trim_end());
        if let Some(name) = op.strip_prefix('%') {
            let end = name.find([' ', ':', ',', '=']).unwrap_or(name.len());
            self.append(&name[..end], code.len() - code.trim_start().len() + 1, located);
        }
        located.push_str(&code[code.trim_end().len()..]);
    }

    /// The head of a function: the name of every argument.
    fn arguments(&self, code: &str, located: &mut String) {
        let mut depth = 0_usize;
        let mut quoted = false;
        let mut open: Option<usize> = None;
        let mut done = false;
        for (at, letter) in code.char_indices() {
            quoted ^= letter == '"';
            if !quoted && !done {
                match letter {
                    ')' | ',' if depth == 1 => {
                        if let Some(start) = open.take() {
                            let name = code[start..].split(':').next().unwrap_or_default().trim();
                            self.append(name, start, located);
                        }
                        done = letter == ')';
                    }
                    '(' | '[' | '<' | '{' => depth += 1,
                    ')' | ']' | '>' | '}' => depth = depth.saturating_sub(1),
                    '%' if depth == 1 => open = Some(at + 1),
                    _ => {}
                }
            }
            located.push(letter);
        }
    }
}

/// Bytes of `line` before a comment.
fn code_length(line: &str) -> usize {
    let mut quoted = false;
    let bytes = line.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if at == 0 || bytes[at - 1] != b'\\' => quoted = !quoted,
            b'/' if !quoted && bytes.get(at + 1) == Some(&b'/') => return at,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_arguments_get_their_name_as_location() {
        let text = "func.func @f(%x: !sail.packed<[1, 2], \"a\">, %y: f32) -> f32 {\n  %z:2 = \"a\"(%x) : () -> () // %n\n";
        let expected = "func.func @f(%x: !sail.packed<[1, 2], \"a\"> loc(\"x\"(\"t\":1:14)), %y: f32 loc(\"y\"(\"t\":1:45))) -> f32 {\n  %z:2 = \"a\"(%x) : () -> () loc(\"z\"(\"t\":2:3)) // %n\n";
        assert_eq!(locate(text, "t"), expected);
    }

    #[test]
    fn a_location_that_is_written_stays() {
        let text = "  %z = \"a\"() : () -> f32 loc(\"other\")\n";
        assert_eq!(locate(text, "t"), text);
    }

    #[test]
    fn slashes_in_a_string_are_no_comment() {
        assert_eq!(code_length("a \"b//c\" // d"), 9);
    }
}
