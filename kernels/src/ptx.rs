//! Kernels of a CUDA target as one PTX module.

use std::collections::HashMap;

use sail_ir::plan::Cuda;
use sail_ir::target::Target;

use crate::emit::nvptx::entry_name;
use crate::kernel::{EmitError, Kernel, assembly, each};

/// The line of LLVM's output after which the functions stand.
const LAST_OF_HEAD: &str = ".address_size 64";

/// What an entry begins with.
const ENTRY: &str = ".visible .entry";

/// PTX text of several kernels, one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ptx {
    pub text: String,
    /// Byte at which each kernel's entry is declared, in the order they were given.
    pub offsets: Vec<u64>,
}

impl Ptx {
    /// What `.version` says: `8.0`.
    #[must_use]
    pub fn version(&self) -> &str {
        let line = self.text.lines().find_map(|line| line.strip_prefix(".version "));
        line.unwrap_or_default().trim()
    }
}

/// The PTX text of `kernels` for the CUDA `target`, printed in `threads` threads; the text does not
/// depend on `threads`.
///
/// Refuses what a kernel refuses. An [`EmitError`] other than `NoFit` is a defect of ours.
pub fn ptx(kernels: &[&dyn Kernel], target: &Target, threads: usize) -> Result<Ptx, EmitError> {
    let mut names: HashMap<String, String> = HashMap::new();
    for kernel in kernels {
        let symbol = kernel.symbol();
        if let Some(other) = names.insert(entry_name(&symbol), symbol.clone()) {
            panic!("broken invariant `ptx.entries`: `{symbol}` and `{other}` have one name in PTX");
        }
    }
    let texts = each(kernels, threads, |kernel| {
        let text = assembly(kernel, target)?;
        let (head, body) = text
            .split_once(LAST_OF_HEAD)
            .ok_or_else(|| EmitError::llvm(kernel, "the PTX has no head".to_owned()))?;
        Ok((head.to_owned(), body.to_owned()))
    })?;
    let mut text = match texts.first() {
        Some((head, _)) => format!("{head}{LAST_OF_HEAD}"),
        None => String::new(),
    };
    let mut offsets = Vec::with_capacity(texts.len());
    for (_, body) in &texts {
        let entry = body.find(ENTRY).expect("a module has its entry");
        offsets.push((text.len() + entry) as u64);
        text.push_str(body);
    }
    Ok(Ptx { text, offsets })
}

/// How the plan says that a kernel is launched; `None` of one for x86-64.
#[must_use]
pub fn launch(kernel: &dyn Kernel) -> Option<Cuda> {
    kernel.thread_block().map(|block| Cuda {
        entry: entry_name(&kernel.symbol()),
        threads: block.threads,
        shared_bytes: block.shared_bytes,
        cluster: block.cluster,
        most_blocks: block.most_blocks,
        tensor_maps: block.tensor_maps,
    })
}
