//! Finds recorded outputs of the reference implementation for this crate's tests.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Once;

use safetensors::SafeTensors;

/// A file of `shared`, the folder beside the workspace; `None`, said once, when it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if file.exists() {
        return Some(file);
    }
    static SAY: Once = Once::new();
    SAY.call_once(|| {
        // Written past the test harness, which swallows what a passing test prints.
        let line = "skipped: no `../shared` with recorded outputs beside the workspace";
        let _ = writeln!(std::io::stderr(), "{line}");
    });
    None
}

/// One recorded question: its metadata, and the golden's name for its tensors.
pub struct Case {
    pub folder: PathBuf,
    /// Prefix of the case's tensors, such as `1`.
    pub name: String,
    pub question: String,
    pub images: Vec<PathBuf>,
    /// The golden's own rendering of what `greedy` says.
    pub greedy_text: String,
}

/// Call `check` with every recorded case of every fixture; returns how many there were.
pub fn for_each_case(mut check: impl FnMut(&Case, &SafeTensors)) -> usize {
    let mut count = 0;
    for fixture in ["random-dense", "random-moe", "random-long"] {
        let Some(folder) = shared(&format!("fixtures/{fixture}")) else { continue };
        let bytes = fs::read(folder.join("golden.safetensors")).expect("a golden is readable");
        let tensors = SafeTensors::deserialize(&bytes).expect("a golden is a safetensors file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a golden has a header");
        let cases: &HashMap<_, _> = header.metadata().as_ref().expect("a golden has metadata");
        for (name, json) in cases {
            let json: serde_json::Value = serde_json::from_str(json).expect("a case is JSON");
            let text = |key: &str| json[key].as_str().expect("a case has texts").to_owned();
            let images = match &json["image"] {
                serde_json::Value::Null => Vec::new(),
                serde_json::Value::Array(names) => names.clone(),
                name => vec![name.clone()],
            };
            let file = |name: &serde_json::Value| folder.join(name.as_str().expect("a file name"));
            let case = Case {
                folder: folder.clone(),
                name: name.clone(),
                question: text("question"),
                images: images.iter().map(file).collect(),
                greedy_text: text("greedy_text"),
            };
            check(&case, &tensors);
            count += 1;
        }
    }
    count
}

/// A recorded list of token ids.
pub fn ids(tensors: &SafeTensors, name: &str) -> Vec<u32> {
    let data = tensors.tensor(name).expect("a golden has its ids").data();
    let id = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    data.chunks_exact(8).map(|bytes| u32::try_from(id(bytes)).expect("an id")).collect()
}

/// A recorded f32 tensor.
pub fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let data = tensors.tensor(name).expect("a golden has its pixels").data();
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    data.chunks_exact(4).map(float).collect()
}
