//! Kernels of the published sizes, and how small models come to have such.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sail_ir::help::report;
use sail_ir::plan::Count;
use sail_ir::{CacheScheme, Scheme, Target};
use sail_kernels::{Config, Kernel};
use sail_models::WeightSource;
use sail_models::synth::SIZES;
use sail_tests::harness::{Outcome, failed, told};
use sail_tests::published::without_weights;
use sailc::lock::Lock;
use sailc::options::Options;
use sailc::pipeline;

use super::models::Case;
use super::score;

/// A template in a config that a published size has.
#[derive(Debug, Clone)]
pub struct Published {
    pub size: &'static str,
    scheme: Scheme,
    cache: CacheScheme,
    family: &'static str,
    choice: Option<Choice>,
}

impl Published {
    /// Whether it is to be pinned even where the rule chooses it: for fewer blocks, see [`choice`].
    pub fn is_shared_out(&self) -> bool {
        self.choice.as_ref().is_some_and(|choice| choice.fewer)
    }
}

/// How a kernel is carried out where there is a choice.
#[derive(Debug, Clone)]
struct Choice {
    /// What a lock calls the kernel.
    pinned_as: String,
    way: String,
    /// A config for its code.
    config: String,
    /// Whether fewer blocks have a part of a row than the rule says.
    fewer: bool,
}

/// Rows of the largest call of `decode.wide`, which takes many conversations: `sail run` has one.
const WIDE: u32 = 64;

/// What the published sizes have, by kind.
pub fn published(target: &Target, folder: &Path) -> Result<BTreeMap<String, Published>, Outcome> {
    let mut all = BTreeMap::new();
    for (size, _) in SIZES {
        let checkpoint = without_weights(size, folder)?;
        for (scheme, cache) in Case::ways() {
            let weights = WeightSource::Random { seed: 1 };
            let options = Options { scheme, cache, weights, ..Options::new(target.clone()) };
            let of = pipeline::kernels(&checkpoint, &options, |kernels| {
                let one = |kernel: &&dyn Kernel| {
                    let (family, choice) = (kernel.family(), choice(*kernel));
                    let one = Published { size, scheme, cache, family, choice };
                    (score::kind(family, &kernel.symbol()), one)
                };
                Ok(kernels.iter().map(one).collect::<Vec<_>>())
            });
            match of {
                Ok(of) => of.into_iter().for_each(|(kind, one)| {
                    all.entry(kind).or_insert(one);
                }),
                Err(error) if matches!(error.code(), "SC0307" | "SC0310") => {}
                Err(error) => return Err(failed(report(error.as_ref()))),
            }
        }
    }
    Ok(all)
}

/// A choice for the code of a kernel. Of a small model each block must have several runs of positions and
/// several steps, so few blocks share those of a row.
fn choice(kernel: &dyn Kernel) -> Option<Choice> {
    let shaped = kernel.shaped()?;
    let pinned_as = shaped.pinned_as();
    let way = pinned_as.rsplit('.').nth(1).expect("a way stands before the rows").to_owned();
    let own = shaped.config();
    let shared = way == "wgmma" && kernel.family() == "attention" && own.get("parts") > 1;
    let config = match way.as_str() {
        "alone" => own.with("blocks", 2),
        _ if shared => own.with("parts", 2),
        _ => own.clone(),
    };
    Some(Choice { pinned_as, way, fewer: config != own, config: config.to_string() })
}

/// Cases whose kernels are shaped as those of `missing` are, as far as they can be: a lock pins configs that
/// the rule would not choose for such small models.
pub fn pinned(
    target: &Target,
    folder: &Path,
    mut missing: BTreeMap<String, Published>,
) -> Result<Vec<Case>, Outcome> {
    let mut cases = Vec::new();
    for case in Case::all().into_iter().filter(Case::answers_all) {
        // Configs that want the same kernel come one after the other.
        while let Some(lock) = pins(&case, target, folder, &mut missing)? {
            let name = format!("{}-{}", target.name, cases.len());
            let path = folder.join(name).with_extension("lock");
            lock.write(&path).map_err(told)?;
            cases.push(Case { lock: Some(path), ..case.clone() });
        }
    }
    Ok(cases)
}

/// Pin what `case` can have of `missing`, and take it out; nothing if that is nothing.
fn pins(
    case: &Case,
    target: &Target,
    folder: &Path,
    missing: &mut BTreeMap<String, Published>,
) -> Result<Option<Lock>, Outcome> {
    let is_of = |one: &Published| one.scheme == case.scheme && one.cache == case.cache;
    if !missing.values().any(is_of) {
        return Ok(None);
    }
    let checkpoint = case.checkpoint(folder)?;
    let mut lock = Lock::default();
    let found = pipeline::kernels(&checkpoint, &case.options(target), |kernels| {
        let mut kernels: Vec<&dyn Kernel> = kernels.to_vec();
        kernels.retain(|kernel| case.sees() || kernel.grid().count != Count::Images);
        // Rings wrap most where rows are long, and end in their midst where these are no whole steps.
        kernels.sort_by_key(|kernel| {
            let length = length(&kernel.symbol());
            (length.is_multiple_of(128), std::cmp::Reverse(length))
        });
        let mut taken = BTreeSet::new();
        missing.retain(|_, one| {
            let Some(wanted) = one.choice.as_ref().filter(|_| is_of(one)) else {
                return true;
            };
            for kernel in &kernels {
                let Some(own) = choice(*kernel) else { continue };
                let shaped = kernel.shaped().expect("it has a choice");
                let launched = shaped.most_rows() != Some(WIDE);
                let same = launched && kernel.family() == one.family && own.way == wanted.way;
                let config = Config::parse(&wanted.config, &shaped.space()).ok();
                let Some(config) = config.filter(|config| shaped.fits(config)) else { continue };
                if same && taken.insert(own.pinned_as.clone()) {
                    lock.pin(target, own.pinned_as, &config);
                    return false;
                }
            }
            true
        });
        Ok(())
    });
    match found {
        Ok(()) => Ok(Some(lock).filter(|lock| !lock.is_empty())),
        Err(error) if matches!(error.code(), "SC0307" | "SC0310") => Ok(None),
        Err(error) => Err(failed(report(error.as_ref()))),
    }
}

/// The K of a product's symbol.
fn length(symbol: &str) -> u32 {
    let words = symbol.split('.').filter_map(|word| word.strip_prefix('k')?.parse().ok());
    words.max().unwrap_or(0)
}
