//! Find where outliers of activations can be moved into weights (SmoothQuant, Xiao et al. 2023).
//!
//! A product that quantizes what it reads gives all channels of a row one scale, so one wide channel
//! costs bits of all others. Dividing a channel where it is made and multiplying its column where it
//! is read changes nothing but the widths. It is made by a norm, whose weight takes the divisor, or by
//! the product `up` of a feed-forward, whose output does. By which factor, says `../calibrate/migrate.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::tap_inputs::{input, key, paths, twin};
use crate::stage::{Graph, Module};
use crate::view::{Function, Op, Value};

/// A value that only products read, and whose channels can be divided where they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// As a calibration calls it.
    pub input: String,
    /// The tensor whose rows, or values of a norm, are divided.
    pub made_by: String,
    /// The tensors whose columns are multiplied.
    pub products: Vec<String>,
}

/// Every such value, in the order of the functions.
#[must_use]
pub fn sites(module: &Module<'_, Graph>) -> Vec<Site> {
    let functions = module.functions();
    let shared = others(&functions);
    let mut sites: Vec<Site> = Vec::new();
    for function in functions {
        let Some(twin) = twin(function) else { continue };
        let mut seen = Vec::new();
        for product in function.ops() {
            let Some(x) = input(product).filter(|x| !seen.contains(x)) else { continue };
            seen.push(x);
            let found = site(&twin, x);
            sites.extend(found.filter(|site| {
                site.products.iter().chain([&site.made_by]).all(|path| !shared.contains(path))
            }));
        }
    }
    sites
}

fn site(twin: &str, x: Value<'_, '_>) -> Option<Site> {
    let made_by = match x.made_by("rms_norm") {
        Some(norm) => norm.operand("weight"),
        None => {
            let up = x.made_by("mul")?.operand("y").made_by("linear")?;
            let readers = up.result().readers();
            readers.iter().all(|reader| reader.is("mul")).then(|| up.operand("weight"))?
        }
    };
    let readers = x.readers().into_iter().filter(|reader| !reader.is("tap"));
    let products = readers.map(|reader| columns(reader, x)).collect::<Option<Vec<_>>>()?;
    let made_by = <[String; 1]>::try_from(paths(made_by)).ok()?;
    let [made_by] = made_by;
    Some(Site { input: key(twin, x), made_by, products: products.concat() })
}

/// The tensors whose columns meet `x` in `reader`; `None` when it reads `x` in another way.
fn columns(reader: Op<'_, '_>, x: Value<'_, '_>) -> Option<Vec<String>> {
    input(reader).filter(|read| *read == x)?;
    let names: &[&str] = if reader.is("experts") { &["gate", "up"] } else { &["weight"] };
    Some(names.iter().flat_map(|name| paths(reader.operand(name))).collect())
}

/// Tensors that are read in more than one way, within a function or by different ones: a table that
/// is the head as well.
fn others(functions: &[Function<'_, '_>]) -> BTreeSet<String> {
    let mut readers: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for function in functions {
        for weight in function.ops().into_iter().filter(|op| op.is("weight")) {
            for path in paths(weight.result()) {
                let names = weight.result().readers().into_iter().map(|reader| reader.name());
                readers.entry(path).or_default().extend(names);
            }
        }
    }
    readers.into_iter().filter(|(_, names)| names.len() > 1).map(|(path, _)| path).collect()
}
