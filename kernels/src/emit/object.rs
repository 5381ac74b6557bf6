//! From LLVM's object file to a flat, position-independent run of bytes.
//!
//! A kernel's code and its constants are laid out behind each other and every reference between
//! them is resolved here, so that the runtime needs no loader: it maps the bytes and jumps.

use std::collections::HashMap;

use object::elf::{R_X86_64_PC32, R_X86_64_PLT32};
use object::{
    Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionIndex,
    SectionKind, SymbolSection,
};

/// Alignment of a kernel's first byte.
pub const CODE_ALIGNMENT: usize = 64;

/// A kernel's bytes; the function starts at `entry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    pub bytes: Vec<u8>,
    pub entry: u64,
}

/// Lay out the code and constants of `object` and resolve the references between them.
///
/// Refuses a reference to a name that is not defined in the object (a library call) and kinds of
/// references that depend on where the bytes are loaded; the message says which.
pub fn flatten(object: &[u8], symbol: &str) -> Result<Flat, String> {
    let file = object::File::parse(object).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut places: HashMap<SectionIndex, usize> = HashMap::new();
    for section in file.sections().filter(is_loaded) {
        let align = usize::try_from(section.align()).map_err(|error| error.to_string())?;
        bytes.resize(bytes.len().next_multiple_of(align.max(CODE_ALIGNMENT)), 0);
        places.insert(section.index(), bytes.len());
        bytes.extend_from_slice(section.data().map_err(|error| error.to_string())?);
    }
    for section in file.sections().filter(is_loaded) {
        for (offset, relocation) in section.relocations() {
            let at = places[&section.index()] + offset as usize;
            let target = place_of(&file, &places, relocation.target())?;
            let value = match relocation.flags() {
                RelocationFlags::Elf { r_type: R_X86_64_PC32 | R_X86_64_PLT32 } => {
                    target as i64 + relocation.addend() - at as i64
                }
                other => return Err(format!("a reference of kind {other:?} cannot be resolved")),
            };
            let value = i32::try_from(value).map_err(|_| "a reference is too far".to_owned())?;
            let field = bytes.get_mut(at..at + 4).ok_or("a reference is out of its section")?;
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
    let entry = file
        .symbols()
        .filter(|found| found.name() == Ok(symbol))
        .find_map(|found| Some(*places.get(&found.section_index()?)? as u64 + found.address()))
        .ok_or_else(|| format!("`{symbol}` is not in the object"))?;
    Ok(Flat { bytes, entry })
}

fn is_loaded<'a>(section: &impl ObjectSection<'a>) -> bool {
    section.size() > 0
        && matches!(
            section.kind(),
            SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString
        )
        && section.name() != Ok(".eh_frame")
}

fn place_of(
    file: &object::File<'_>,
    places: &HashMap<SectionIndex, usize>,
    target: RelocationTarget,
) -> Result<usize, String> {
    let RelocationTarget::Symbol(index) = target else {
        return Err(format!("a reference to {target:?} cannot be resolved"));
    };
    let symbol = file.symbol_by_index(index).map_err(|error| error.to_string())?;
    let name = symbol.name().unwrap_or("a nameless symbol");
    let SymbolSection::Section(section) = symbol.section() else {
        return Err(format!("the code calls `{name}`, which is not in it"));
    };
    let base = places.get(&section).ok_or_else(|| format!("`{name}` is in a section left out"))?;
    Ok(base + symbol.address() as usize)
}
