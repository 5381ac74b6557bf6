//! Tokens to a module: entries with parameters, declared registers and memory, and statements.

use std::collections::HashMap;

use crate::fault::{Fault, Kind};
use crate::text::{Token, number, tokens};

/// Where a register lives: predicates are bits of a warp, all else 64-bit words of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reg {
    Pred(u32),
    /// Slot and declared width in bits.
    Word(u32, u32),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Reg(Reg),
    /// A predicate with `!` before it.
    Not(Reg),
    /// Bits of a number; a negative one is sign extended.
    Number(u64),
    /// A special register, a label, a parameter or a declared place.
    Name(String),
    Vector(Vec<Operand>),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    /// `[map, {coordinates}]`.
    Tensor(Box<Operand>, Vec<Operand>),
    /// `a|b`.
    Pair(Box<Operand>, Box<Operand>),
    /// `_`.
    Discard,
}

#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub line: u32,
    pub guard: Option<(Reg, bool)>,
    pub opcode: String,
    pub operands: Vec<Operand>,
}

/// A declared piece of memory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub name: String,
    pub align: u64,
    /// `None` for `[]`: as much as the launch gives.
    pub bytes: Option<u64>,
    /// Initial values; what they do not name is zero.
    pub data: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub name: String,
    pub line: u32,
    /// Name, offset in the parameter bytes, size.
    pub params: Vec<(String, u64, u64)>,
    pub param_bytes: u64,
    pub max_threads: Option<u64>,
    pub exact_threads: Option<[u32; 3]>,
    /// Of a thread, when the kernel begins.
    pub registers: Option<u32>,
    pub cluster: Option<[u32; 3]>,
    pub words: u32,
    pub preds: u32,
    pub shared: Vec<Place>,
    pub local: Vec<Place>,
    pub statements: Vec<Statement>,
    /// Statement that a label stands before.
    pub labels: HashMap<String, usize>,
    /// Labels that a `.branchtargets` lists.
    pub tables: HashMap<String, Vec<String>>,
}

#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub target: String,
    pub shared: Vec<Place>,
    pub global: Vec<Place>,
    pub entries: Vec<Entry>,
}

pub(crate) struct Parser {
    pub(crate) tokens: Vec<Token>,
    pub(crate) at: usize,
}

pub(crate) fn parse(source: &str) -> Result<Parsed, Fault> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0 };
    let mut parsed = Parsed::default();
    while parser.at < parser.tokens.len() {
        parser.item(&mut parsed)?;
    }
    if parsed.target.is_empty() {
        return Err(Fault::new(Kind::Text, "the text has no `.target`"));
    }
    Ok(parsed)
}

impl Parser {
    pub(crate) fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", |token| token.text.as_str())
    }

    pub(crate) fn peek_at(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text.as_str())
    }

    pub(crate) fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(0, |token| token.line)
    }

    pub(crate) fn next(&mut self) -> String {
        let text = self.peek().to_owned();
        self.at += 1;
        text
    }

    pub(crate) fn takes(&mut self, text: &str) -> bool {
        let found = self.peek() == text;
        self.at += usize::from(found);
        found
    }

    pub(crate) fn fail<T>(&self, sentence: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::new(Kind::Text, sentence).at_line(self.line()))
    }

    pub(crate) fn expect(&mut self, text: &str) -> Result<(), Fault> {
        if self.takes(text) {
            return Ok(());
        }
        self.fail(format!("`{}` stands where `{text}` is expected", self.peek()))
    }

    pub(crate) fn number(&mut self) -> Result<u64, Fault> {
        let negative = self.takes("-");
        match number(self.peek()) {
            Some(value) => {
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            None => self.fail(format!("`{}` is no number", self.peek())),
        }
    }

    fn item(&mut self, parsed: &mut Parsed) -> Result<(), Fault> {
        match self.peek() {
            ".version" | ".address_size" => self.at += 2,
            ".target" => {
                self.at += 1;
                parsed.target = self.next();
                while self.takes(",") {
                    self.at += 1;
                }
            }
            ".visible" | ".weak" | ".extern" if self.peek_at(1) == ".func" => self.skip_func(),
            ".func" => self.skip_func(),
            ".visible" | ".weak" | ".extern" | ".common" => self.at += 1,
            ".entry" => {
                self.at += 1;
                let entry = self.entry()?;
                parsed.entries.push(entry);
            }
            ".shared" => {
                let place = self.place()?;
                parsed.shared.push(place);
            }
            ".global" | ".const" => {
                let place = self.place()?;
                parsed.global.push(place);
            }
            ".section" => {
                while !self.peek().is_empty() && !self.takes("}") {
                    self.at += 1;
                }
            }
            other => return self.fail(format!("`{other}` is not known at the top of a module")),
        }
        Ok(())
    }

    /// A function's declaration: kernels here call nothing, so only its end matters.
    fn skip_func(&mut self) {
        while !self.peek().is_empty() && !self.takes(";") {
            self.at += 1;
        }
    }

    /// `.shared .align 16 .b8 name[1024] = {…};`
    pub(crate) fn place(&mut self) -> Result<Place, Fault> {
        self.at += 1;
        let mut align = 0;
        let mut element = 1;
        loop {
            match self.peek() {
                ".align" => {
                    self.at += 1;
                    align = self.number()?;
                }
                word if word.starts_with('.') => {
                    element = match type_bits(&word[1..]) {
                        Some(bits) => u64::from(bits / 8),
                        None => return self.fail(format!("`{word}` is not known here")),
                    };
                    self.at += 1;
                }
                _ => break,
            }
        }
        let name = self.next();
        let mut bytes = Some(element);
        while self.takes("[") {
            bytes = if self.takes("]") {
                None
            } else {
                let count = self.number()?;
                self.expect("]")?;
                bytes.map(|bytes| bytes * count)
            };
        }
        let mut data = Vec::new();
        if self.takes("=") {
            let list = self.takes("{");
            loop {
                let value = self.number()?;
                data.extend_from_slice(&value.to_le_bytes()[..element as usize]);
                if !self.takes(",") {
                    break;
                }
            }
            if list {
                self.expect("}")?;
            }
        }
        self.expect(";")?;
        Ok(Place { name, align: align.max(element), bytes, data })
    }

    fn entry(&mut self) -> Result<Entry, Fault> {
        let mut entry = Entry { line: self.line(), ..Entry::default() };
        entry.name = self.next();
        if self.takes("(") {
            while !self.takes(")") {
                self.param(&mut entry)?;
                self.takes(",");
            }
        }
        while self.peek() != "{" {
            let directive = self.next();
            let mut values = Vec::new();
            while number(self.peek()).is_some() {
                values.push(self.number()?);
                self.takes(",");
            }
            let three = |at: usize| values.get(at).copied().unwrap_or(1) as u32;
            match directive.as_str() {
                ".maxntid" => entry.max_threads = Some(values.iter().product()),
                ".reqntid" => entry.exact_threads = Some([three(0), three(1), three(2)]),
                ".reqnctapercluster" => entry.cluster = Some([three(0), three(1), three(2)]),
                ".maxnreg" => entry.registers = Some(three(0)),
                ".minnctapersm" | ".explicitcluster" | ".noreturn" | ".maxclusterrank" => {}
                other => return self.fail(format!("`{other}` of an entry is not known")),
            }
        }
        self.at += 1;
        self.body(&mut entry)?;
        Ok(entry)
    }

    fn param(&mut self, entry: &mut Entry) -> Result<(), Fault> {
        self.expect(".param")?;
        let (mut size, mut align) = (0, 0);
        while self.peek().starts_with('.') {
            let word = self.next();
            match word.as_str() {
                ".align" => {
                    let value = self.number()?;
                    if size == 0 {
                        align = value;
                    }
                }
                ".ptr" => {
                    // What follows speaks of the memory pointed to.
                    while self.peek().starts_with('.') {
                        let of = self.next();
                        if of == ".align" {
                            self.number()?;
                        }
                    }
                }
                _ => match type_bits(&word[1..]) {
                    Some(bits) => size = u64::from(bits / 8),
                    None => return self.fail(format!("`{word}` of a parameter is not known")),
                },
            }
        }
        let name = self.next();
        let align = if align == 0 { size } else { align };
        if self.takes("[") {
            size *= self.number()?;
            self.expect("]")?;
        }
        let offset = entry.param_bytes.next_multiple_of(align.max(1));
        entry.params.push((name, offset, size));
        entry.param_bytes = offset + size;
        Ok(())
    }
}

/// Bits of a PTX type; predicates have none.
pub(crate) fn type_bits(name: &str) -> Option<u32> {
    Some(match name {
        "b8" | "u8" | "s8" => 8,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 16,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "s16x2" | "u16x2" => 32,
        "b64" | "u64" | "s64" | "f64" => 64,
        "b128" => 128,
        _ => return None,
    })
}
