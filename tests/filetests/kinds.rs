//! What a file test may ask for: the value of its `//! test:` line, and what then runs on each case.

use sail_ir::Scheme;
use sailc::dialect;
use sailc::passes::{Passes, Settings, fuse};
use sailc::recipe::{Recipe, Rule};
use sailc::stage::{Fused, Graph, Kernels, Module, Packed, Stage, TextError};

use crate::filetests::format::{Case, FileTest, Follows};

/// Name in messages of the text of a case.
const FILE: &str = "case";

/// The file as it should be.
pub fn run(test: &FileTest) -> Result<String, String> {
    let follows: Result<Vec<Follows>, String> =
        test.cases.iter().map(|case| follows(test, case)).collect();
    Ok(test.render(&follows?))
}

fn follows(test: &FileTest, case: &Case) -> Result<Follows, String> {
    let text = |error: TextError| error.to_string();
    match test.value("test").unwrap_or_default() {
        "fuse" => fused(test, case).map_err(text),
        "tap_inputs" => {
            tapped::<Graph>(case, |passes, module| passes.tap_inputs(module).text()).map_err(text)
        }
        "tap_experts" => {
            tapped::<Fused>(case, |passes, module| passes.tap_experts(module).text()).map_err(text)
        }
        "quantize" => quantized(test, case).map_err(text),
        "lower" => lowered(test, case).map_err(text),
        "verify" => match test.value("stage").unwrap_or("graph") {
            "graph" => Ok(verified::<Graph>(case)),
            "fused" => Ok(verified::<Fused>(case)),
            "packed" => Ok(verified::<Packed>(case)),
            "kernels" => Ok(verified::<Kernels>(case)),
            other => Err(format!("no stage `{other}`")),
        },
        // Text in = text out, in no stage: MLIR's own checks only.
        "text" => {
            let context = dialect::context();
            let module = dialect::parse(&context, &case.input, FILE);
            let module = module.map_err(|error| error.to_string())?;
            Ok(output(case, Vec::new(), dialect::print(&module)))
        }
        other => Err(format!(
            "no test `{other}`: fuse, quantize, lower, verify, text or a pass that taps"
        )),
    }
}

fn fused(test: &FileTest, case: &Case) -> Result<Follows, TextError> {
    let rules = test.value("rules").unwrap_or_default();
    let rules: Vec<&str> = rules.split(", ").filter(|name| !name.is_empty()).collect();
    let (text, records) = fuse::on_text(&case.input, FILE, &rules)?;
    let records = records.iter().map(|record| {
        let outcome = match &record.declined {
            None => "fired".to_owned(),
            Some(decline) => format!("declined: {}", decline.0),
        };
        format!("{} %{}: {outcome}", record.rule, record.value)
    });
    Ok(output(case, records.collect(), text))
}

fn quantized(test: &FileTest, case: &Case) -> Result<Follows, TextError> {
    let context = dialect::context();
    let module = Module::<Fused>::parse(&context, &case.input, FILE)?;
    let scheme = test.value("scheme").map_or(Scheme::Bf16, |name| name.parse().expect("a scheme"));
    let rules = test.value("recipe").unwrap_or_default();
    let rules =
        rules.split(", ").filter_map(|rule| rule.split_once(':')).map(|(layers, scheme)| {
            let scheme = scheme.parse().expect("a scheme");
            Rule::new(layers, scheme).expect("a pattern")
        });
    let recipe = Recipe { scheme, rules: rules.collect() };
    let passes = Passes::new(Settings { recipe, ..Settings::default() });
    let passes = passes.expect("no names to know");
    let packed = passes.quantize(module).expect("a recipe that can be followed");
    let reasons = passes.explain_quantize();
    let reasons =
        reasons.lines().filter(|line| line.starts_with("  ")).map(|l| l.trim().to_owned());
    Ok(output(case, reasons.collect(), packed.text()))
}

fn tapped<S: Stage>(
    case: &Case,
    pass: impl FnOnce(Passes, Module<'_, S>) -> String,
) -> Result<Follows, TextError> {
    let context = dialect::context();
    let module = Module::<S>::parse(&context, &case.input, FILE)?;
    let passes = Passes::new(Settings::default()).expect("no names to know");
    Ok(output(case, Vec::new(), pass(passes, module)))
}

fn lowered(test: &FileTest, case: &Case) -> Result<Follows, TextError> {
    let context = dialect::context();
    let module = Module::<Packed>::parse(&context, &case.input, FILE)?;
    let positions = test.value("positions").and_then(|text| text.parse().ok()).unwrap_or(40);
    Ok(output(case, Vec::new(), passes(positions).lower(module).text()))
}

fn passes(positions: u64) -> Passes {
    Passes::new(Settings { positions, ..Settings::default() }).expect("no names to know")
}

fn output(case: &Case, records: Vec<String>, text: String) -> Follows {
    let code = case.input.lines().filter(|line| !line.trim_start().starts_with("//"));
    let input: String = code.map(|line| format!("{line}\n")).collect();
    Follows::Output { records, changed: (input != text).then_some(text) }
}

fn verified<S: Stage>(case: &Case) -> Follows {
    let context = dialect::context();
    let line = |place: Option<[usize; 2]>| place.map_or(1, |[line, _]| line);
    let messages = match Module::<S>::parse(&context, &case.input, FILE) {
        Ok(_) => Vec::new(),
        Err(TextError::Parse(error)) => vec![(line(error.place), error.message)],
        Err(TextError::Verify(errors)) => {
            let violations = errors.violations.into_iter();
            violations.map(|it| (line(it.place), it.message)).collect()
        }
    };
    Follows::Messages(messages)
}
