//! A file test's form: a head of `//! key: value` lines, then cases, each with what follows from it.
//!
//! Cases are cut by `// -----`. Below the line `// ==>` of a case stands what the run said, every
//! line as a comment; `// ==> unchanged` where the module came out as it went in. A case whose
//! test is `verify` has its messages on the lines they are about instead: `… // error: MESSAGE`.

/// Cuts cases.
const CUT: &str = "// -----";
/// Begins what follows from a case.
const ARROW: &str = "// ==>";
/// Begins a message at the end of the line it is about.
pub const ERROR: &str = " // error: ";

/// A file in parts.
pub struct FileTest {
    head: Vec<String>,
    pub cases: Vec<Case>,
}

/// One module, as it stands in the file.
pub struct Case {
    /// The text to run on, with its comments; messages at line ends are taken off.
    pub input: String,
}

impl FileTest {
    pub fn parse(text: &str) -> Result<Self, String> {
        let head: Vec<String> =
            text.lines().take_while(|line| line.starts_with("//!")).map(str::to_owned).collect();
        let body = text.lines().skip(head.len()).collect::<Vec<_>>();
        let cases = body.split(|line| *line == CUT).map(Case::parse).collect();
        let test = Self { head, cases };
        test.value("test").ok_or("no line `//! test: KIND` at the top")?;
        Ok(test)
    }

    /// The value of `//! key: value`.
    pub fn value(&self, key: &str) -> Option<&str> {
        let values = self.head.iter().filter_map(|line| line.strip_prefix("//! ")?.split_once(':'));
        values.filter(|(name, _)| *name == key).map(|(_, value)| value.trim()).next()
    }

    /// The whole file, with `follows` below each case.
    pub fn render(&self, follows: &[Follows]) -> String {
        let cases = self.cases.iter().zip(follows).map(|(case, follows)| case.render(follows));
        let cases: Vec<String> = cases.collect();
        format!("{}\n\n{}", self.head.join("\n"), cases.join(&format!("\n{CUT}\n\n")))
    }
}

/// What a run of one case said.
pub enum Follows {
    /// Records, and the module when it changed.
    Output { records: Vec<String>, changed: Option<String> },
    /// Messages, each with the line of the case it is about, from 1.
    Messages(Vec<(usize, String)>),
}

impl Case {
    fn parse(lines: &[&str]) -> Self {
        let input = lines.iter().take_while(|line| !line.starts_with(ARROW));
        let without = |line: &&str| line.split(ERROR).next().unwrap_or_default().to_owned() + "\n";
        let input: String = input.map(without).collect();
        Self { input: input.trim().to_owned() + "\n" }
    }

    fn render(&self, follows: &Follows) -> String {
        let comment = |line: &str| format!("// {line}").trim_end().to_owned() + "\n";
        match follows {
            Follows::Messages(messages) => {
                let lines = self.input.lines().enumerate().map(|(index, line)| {
                    let about = messages.iter().filter(|(at, _)| *at == index + 1);
                    let about: String = about.map(|(_, text)| format!("{ERROR}{text}")).collect();
                    format!("{line}{about}\n")
                });
                lines.collect()
            }
            Follows::Output { records, changed } => {
                let arrow =
                    if changed.is_some() { ARROW.to_owned() } else { format!("{ARROW} unchanged") };
                let records: String = records.iter().map(|record| comment(record)).collect();
                let text: String =
                    changed.iter().flat_map(|text| text.lines()).map(comment).collect();
                format!("{}{arrow}\n{records}{text}", self.input)
            }
        }
    }
}
