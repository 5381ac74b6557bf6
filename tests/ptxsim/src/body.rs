//! The body of an entry: scopes with their registers, labels, statements and operands.

use std::collections::HashMap;

use crate::fault::Fault;
use crate::parse::{Entry, Operand, Parser, Reg, Statement, type_bits};
use crate::text::number;

/// Registers by name: `%r<46>` declares a stem with numbers, `one` a single name.
#[derive(Default)]
struct Scope {
    names: HashMap<String, Reg>,
}

impl Parser {
    /// Statements up to the brace that closes the entry.
    pub(crate) fn body(&mut self, entry: &mut Entry) -> Result<(), Fault> {
        let mut scopes = vec![Scope::default()];
        while !scopes.is_empty() {
            match self.peek() {
                "" => return self.fail("the entry is not closed"),
                "{" => {
                    self.at += 1;
                    scopes.push(Scope::default());
                }
                "}" => {
                    self.at += 1;
                    scopes.pop();
                }
                ";" => self.at += 1,
                ".reg" => {
                    let scope = scopes.last_mut().expect("the loop ends without scopes");
                    self.registers(entry, scope)?;
                }
                ".shared" => {
                    let place = self.place()?;
                    entry.shared.push(place);
                }
                ".local" => {
                    let place = self.place()?;
                    entry.local.push(place);
                }
                ".pragma" => {
                    while !self.takes(";") {
                        self.at += 1;
                    }
                }
                _ if self.peek_at(1) == ":" => {
                    let label = self.next();
                    self.at += 1;
                    if self.peek() == ".branchtargets" {
                        let targets = self.targets();
                        entry.tables.insert(label, targets);
                        continue;
                    }
                    if entry.labels.insert(label.clone(), entry.statements.len()).is_some() {
                        return self.fail(format!("the label `{label}` stands twice"));
                    }
                }
                _ => {
                    let statement = self.statement(&scopes)?;
                    entry.statements.push(statement);
                }
            }
        }
        Ok(())
    }

    /// Labels of a table, up to its end.
    fn targets(&mut self) -> Vec<String> {
        self.at += 1;
        let mut targets = Vec::new();
        while !self.peek().is_empty() && !self.takes(";") {
            targets.push(self.next());
            self.takes(",");
        }
        targets
    }

    fn registers(&mut self, entry: &mut Entry, scope: &mut Scope) -> Result<(), Fault> {
        self.at += 1;
        let kind = self.next();
        let bits = type_bits(&kind[1..]);
        if bits.is_none() && kind != ".pred" || bits == Some(128) {
            return self.fail(format!("registers of type `{kind}` are not known"));
        }
        let mut fresh = || match bits {
            Some(bits) => {
                entry.words += 1;
                Reg::Word(entry.words - 1, bits)
            }
            None => {
                entry.preds += 1;
                Reg::Pred(entry.preds - 1)
            }
        };
        loop {
            let name = self.next();
            if self.takes("<") {
                let count = self.number()?;
                self.expect(">")?;
                for at in 0..count {
                    scope.names.insert(format!("{name}{at}"), fresh());
                }
            } else {
                scope.names.insert(name, fresh());
            }
            if !self.takes(",") {
                break;
            }
        }
        self.expect(";")
    }

    fn statement(&mut self, scopes: &[Scope]) -> Result<Statement, Fault> {
        let line = self.line();
        let mut guard = None;
        if self.takes("@") {
            let negated = self.takes("!");
            let name = self.next();
            match find(scopes, &name) {
                Some(reg @ Reg::Pred(_)) => guard = Some((reg, negated)),
                _ => return self.fail(format!("`{name}` is no predicate")),
            }
        }
        let opcode = self.next();
        let mut operands = Vec::new();
        if !self.takes(";") {
            loop {
                operands.push(self.operand(scopes)?);
                if !self.takes(",") {
                    break;
                }
            }
            self.expect(";")?;
        }
        Ok(Statement { line, guard, opcode, operands })
    }

    fn operand(&mut self, scopes: &[Scope]) -> Result<Operand, Fault> {
        if self.takes("{") {
            let mut parts = Vec::new();
            while !self.takes("}") {
                parts.push(self.operand(scopes)?);
                self.takes(",");
            }
            return Ok(Operand::Vector(parts));
        }
        if self.takes("[") {
            return self.address(scopes);
        }
        if self.takes("!") {
            return match self.operand(scopes)? {
                Operand::Reg(reg @ Reg::Pred(_)) => Ok(Operand::Not(reg)),
                _ => self.fail("`!` stands before something that is no predicate"),
            };
        }
        if self.peek() == "-" || number(self.peek()).is_some() {
            return Ok(Operand::Number(self.number()?));
        }
        let name = self.next();
        let first = match find(scopes, &name) {
            Some(reg) => Operand::Reg(reg),
            None if name == "_" => Operand::Discard,
            None => Operand::Name(name),
        };
        if self.takes("|") {
            let second = self.operand(scopes)?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        if self.takes("+") {
            let offset = self.number()? as i64;
            return Ok(Operand::Address(Box::new(first), offset));
        }
        Ok(first)
    }

    fn address(&mut self, scopes: &[Scope]) -> Result<Operand, Fault> {
        let base = self.operand(scopes)?;
        let address = if self.takes(",") {
            let Operand::Vector(coordinates) = self.operand(scopes)? else {
                return self.fail("coordinates of a tensor stand in braces");
            };
            Operand::Tensor(Box::new(base), coordinates)
        } else {
            match base {
                Operand::Address(..) => base,
                Operand::Number(value) => Operand::Address(Box::new(Operand::Number(value)), 0),
                base => {
                    let negative = self.peek() == "-";
                    let offset = if negative { self.number()? as i64 } else { 0 };
                    Operand::Address(Box::new(base), offset)
                }
            }
        };
        self.expect("]")?;
        Ok(address)
    }
}

fn find(scopes: &[Scope], name: &str) -> Option<Reg> {
    scopes.iter().rev().find_map(|scope| scope.names.get(name).copied())
}
