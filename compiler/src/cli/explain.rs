//! `sailc explain CODE`: what an error code means and what usually helps.

use std::fmt;

use clap::Args;
use sail_ir::{Help, output};

use crate::codes::{self, Code};
use crate::error::{Failure, boxed};

/// Say more about an error code.
#[derive(Debug, Args)]
#[command(after_help = "Example: sailc explain SC0301")]
pub struct Explain {
    /// `SC` and four digits, as errors show it; without it, all codes are listed.
    code: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub fn run(&self) -> Result<(), Failure> {
        let rows: Vec<&Code> = match &self.code {
            None => codes::all().collect(),
            Some(code) => {
                let wanted = code.to_ascii_uppercase();
                let found = codes::all().find(|row| row.code == wanted);
                vec![found.ok_or_else(|| Box::new(UnknownCode { code: code.clone() }) as Failure)?]
            }
        };
        let text = if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    serde_json::json!({"code": row.code, "title": row.title, "exit": row.exit, "text": row.text})
                })
                .collect();
            format!("{}\n", serde_json::json!({"schema": "sailc.explain/1", "codes": rows}))
        } else if let (Some(_), [row]) = (&self.code, rows.as_slice()) {
            format!("{}: {} (exit status {})\n\n{}\n", row.code, row.title, row.exit, row.text)
        } else {
            rows.iter().map(|row| format!("{}  {}\n", row.code, row.title)).collect()
        };
        output::put(&text).map_err(boxed)
    }
}

#[derive(Debug)]
struct UnknownCode {
    code: String,
}

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no error code `{}`", self.code.chars().take(40).collect::<String>())
    }
}

impl std::error::Error for UnknownCode {}

impl Help for UnknownCode {
    fn code(&self) -> &'static str {
        "SC0101"
    }
    fn hint(&self) -> Option<String> {
        Some("`sailc explain` lists all codes".to_owned())
    }
    fn exit_code(&self) -> u8 {
        2
    }
}
