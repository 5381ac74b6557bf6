//! PTX text as tokens: words, punctuation, and the line each stands on.

use crate::fault::{Fault, Kind};

/// A word (`ld.global.v4.b32`, `%r1`, `$L__BB0_1`, `0f3F800000`), a string, or one character.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub text: String,
    pub line: u32,
    /// Index of its first character.
    pub at: usize,
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// Tokens of `source`. Comments and lines of debug information are left out.
pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, Fault> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens: Vec<Token> = Vec::new();
    let (mut at, mut line) = (0, 1);
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let c = chars[at];
        let start = at;
        if c == '\n' {
            line += 1;
            at += 1;
        } else if c.is_whitespace() {
            at += 1;
        } else if c == '/' && peek(at + 1) == '/' {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if c == '/' && peek(at + 1) == '*' {
            at += 2;
            while at < chars.len() && !(chars[at] == '*' && peek(at + 1) == '/') {
                line += u32::from(chars[at] == '\n');
                at += 1;
            }
            at += 2;
        } else if c == '"' {
            at += 1 + chars[at + 1..].iter().take_while(|c| **c != '"').count() + 1;
            let text = chars[start..at.min(chars.len())].iter().collect();
            tokens.push(Token { text, line, at: start });
        } else if in_word(c) {
            while in_word(peek(at)) || (peek(at) == ':' && peek(at + 1) == ':') {
                at += if peek(at) == ':' { 2 } else { 1 };
            }
            let text: String = chars[start..at].iter().collect();
            if text == ".loc" || text == ".file" {
                at += chars[at..].iter().take_while(|c| **c != '\n').count();
            } else {
                tokens.push(Token { text, line, at: start });
            }
        } else if "{}[]()<>,;:@!|+-=&~*".contains(c) {
            tokens.push(Token { text: c.to_string(), line, at: start });
            at += 1;
        } else {
            return Err(Fault::new(Kind::Text, format!("the text has a stray `{c}`")).at_line(line));
        }
    }
    Ok(tokens)
}

/// The bits of a number word: decimal, `0x`, octal, binary, `0f` and `0d` forms.
pub(crate) fn number(word: &str) -> Option<u64> {
    let lower = word.to_ascii_lowercase();
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    if let Some(hex) = lower.strip_prefix("0f") {
        return (hex.len() == 8).then(|| u64::from_str_radix(hex, 16).ok())?;
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        return (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?;
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    if let Some(binary) = digits.strip_prefix("0b") {
        return u64::from_str_radix(binary, 2).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return u64::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_lines() {
        let text = "ld.shared::cta.b32 %r1, [%rd2+-4]; // note\n$L: @!%p1 bra $L;";
        let tokens = tokens(text).unwrap();
        let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(words[0], "ld.shared::cta.b32");
        assert_eq!(&words[3..8], ["[", "%rd2", "+", "-", "4"]);
        assert_eq!(&words[10..15], ["$L", ":", "@", "!", "%p1"]);
        assert_eq!(tokens[10].line, 2);
        assert_eq!(number("0f3F800000"), Some(0x3f80_0000));
        assert_eq!(number("0x1F"), Some(31));
        assert_eq!(number("12"), Some(12));
        assert_eq!(number("abc"), None);
    }
}
