//! Machine code as text, by NVIDIA's disassembler.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sail_tests::harness::{Outcome, failed};
use sail_tests::places::workspace;

/// Where `cargo ptxas` puts it.
const INSTALLED: &str = "target/cuda/nvdisasm/nvidia/cu13/bin/nvdisasm";

/// The disassembler: the one that `cargo ptxas` installed, else the one that the shell would start.
pub fn find() -> Option<PathBuf> {
    let installed = workspace().join(INSTALLED);
    if installed.is_file() {
        return Some(installed);
    }
    let answers = Command::new("nvdisasm").arg("--version").output();
    answers.is_ok_and(|said| said.status.success()).then(|| PathBuf::from("nvdisasm"))
}

/// The instructions of each function of a cubin, by its name.
pub fn functions(nvdisasm: &Path, cubin: &[u8]) -> Result<BTreeMap<String, String>, Outcome> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let file = folder.path().join("kernels.cubin");
    fs::write(&file, cubin).map_err(failed)?;
    let output = Command::new(nvdisasm).arg("--print-code").arg(&file).output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(split(&String::from_utf8_lossy(&output.stdout)))
}

fn split(text: &str) -> BTreeMap<String, String> {
    let mut functions: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some(".section") {
            let place = words.next().and_then(|place| place.strip_prefix(".text."));
            let name = place.and_then(|rest| rest.split(',').next());
            current = name.map(|name| functions.entry(name.to_owned()).or_default());
        }
        if let Some(code) = &mut current {
            code.push_str(line);
            code.push('\n');
        }
    }
    functions
}

/// Functions are told apart, and what only begins like a section's line is none.
pub fn each_is_found() {
    let text = "\t.section\t.text.a,\"ax\",@progbits\n\t.sectioninfo\t@\"SHI_REGISTERS=32\"\n/*0000*/ HMMA ;\n\
                \t.section\t.nv.info,\"\"\nnothing\n\t.section\t.text.b,\"ax\"\n/*0000*/ EXIT ;\n";
    let found = split(text);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(found["a"].contains("HMMA") && !found["a"].contains("nothing"));
    assert!(found["b"].contains("EXIT"));
}
