//! What the person who compiles has asked for.

use std::path::PathBuf;

use sail_ir::{CacheScheme, Scheme, Target};
use sail_models::WeightSource;

use crate::quality::Wanted;
use crate::recipe::{Recipe, Rule};

/// Options of one compile. Only `target`, `scheme`, `scheme_rules`, `cache`, `weights`, `code_only`,
/// `context`, `disabled_rules`, `quality`, `calibration`, `smooth`, `expert_profile`, `lock` and `assemble`
/// change the artifact.
#[derive(Debug, Clone)]
pub struct Options {
    pub target: Target,
    pub scheme: Scheme,
    /// Layers that have another scheme.
    pub scheme_rules: Vec<Rule>,
    /// How keys and values are kept.
    pub cache: CacheScheme,
    pub weights: WeightSource,
    /// Store no weights: the runtime makes them of the seed.
    pub code_only: bool,
    /// Longest sequence; the model's own limit or [`DEFAULT_CONTEXT`], if that is less, by default.
    pub context: Option<u32>,
    pub threads: usize,
    /// Run the artifact on a prompt set, and what it must reach there.
    pub quality: Option<Wanted>,
    /// What products read when the model is at work: weights are rounded by it.
    pub calibration: Option<PathBuf>,
    /// Move outliers of activations into weights, by this share; needs `calibration`.
    pub smooth: Option<f32>,
    /// Which experts tokens went through: they are stored by it.
    pub expert_profile: Option<PathBuf>,
    /// Configs of kernels that `sailc tune` found.
    pub lock: Option<PathBuf>,
    /// Store machine code for a GPU beside the PTX, where there is an assembler.
    pub assemble: bool,
    /// Tap what products read, for calibrating.
    pub tap_inputs: bool,
    /// Fusion rules that are not applied, by name.
    pub disabled_rules: Vec<String>,
    /// Passes after which the module is printed on standard error, by name.
    pub print_ir_after: Vec<String>,
    /// Print the time of each pass on standard error.
    pub timings: bool,
}

/// Longest sequence unless asked otherwise: what the model was tuned with.
pub const DEFAULT_CONTEXT: u32 = 16_384;

impl Options {
    /// Everything at its default for `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            scheme: Scheme::Bf16,
            scheme_rules: Vec::new(),
            cache: CacheScheme::Bf16,
            weights: WeightSource::Checkpoint,
            code_only: false,
            context: None,
            threads: 1,
            quality: None,
            calibration: None,
            smooth: None,
            expert_profile: None,
            lock: None,
            assemble: true,
            tap_inputs: false,
            disabled_rules: Vec::new(),
            print_ir_after: Vec::new(),
            timings: false,
        }
    }

    /// What each layer's weight is stored as.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        Recipe { scheme: self.scheme, rules: self.scheme_rules.clone() }
    }

    /// The same compile in `bf16`, of which nothing is asked or shown.
    #[must_use]
    pub fn in_bf16(&self) -> Self {
        let (context, threads, weights) = (self.context, self.threads, self.weights);
        let disabled_rules = self.disabled_rules.clone();
        Self { context, threads, weights, disabled_rules, ..Self::new(self.target.clone()) }
    }

    /// Options that changed the artifact, as `--name=value`, for the artifact.
    #[must_use]
    pub fn echo(&self) -> Vec<String> {
        let mut echo =
            vec![format!("--target={}", self.target), format!("--quant={}", self.scheme)];
        echo.extend(self.scheme_rules.iter().map(|rule| format!("--quant-config={rule}")));
        if self.cache != CacheScheme::Bf16 {
            echo.push(format!("--kv={}", self.cache));
        }
        if let WeightSource::Random { seed } = self.weights {
            echo.push(format!("--weights=random:{seed}"));
        }
        if self.code_only {
            echo.push("--code-only".to_owned());
        }
        echo.extend(self.context.map(|context| format!("--context={context}")));
        echo.extend(self.disabled_rules.iter().map(|rule| format!("--disable-rule={rule}")));
        echo.extend(self.smooth.map(|alpha| format!("--smooth={alpha}")));
        let goals = self.quality.iter().flat_map(|wanted| &wanted.goals);
        echo.extend(goals.map(|goal| format!("--goal={goal}")));
        echo
    }
}
