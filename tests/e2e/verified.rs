//! Compiled models, carried out by the runtime, against recorded reference outputs.

use sail_runtime::{Options, Program};
use sail_tests::compiled::{artifact, open, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::run::{observe, positions, rule};
use sailc::golden::{Golden, Rule, judge};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for one in RECORDED {
        let name = one.name;
        let plain =
            format!("compiled {name} lies within the bounds, stage by stage and token by token");
        tests.push(Test::new(plain, move || every_target(&one, false)));
        let forced = format!("compiled {name} lies within the bounds with the golden's routes");
        if name.contains("moe") || name.contains("tiny") {
            tests.push(Test::new(forced, move || every_target(&one, true)));
        }
    }
    tests
}

fn every_target(recorded: &Recorded, forced: bool) -> Result<(), Outcome> {
    let golden = Golden::open(&recorded.paths()?.1).map_err(told)?;
    for target in targets()? {
        let context = Some(positions(&golden).map_err(|error| failed(error.to_string()))?);
        let options = Options { context, slots: 1, taps: true, ..Options::default() };
        let program = open(&artifact(recorded, &target)?, &options)?;
        lies_within(&program, &golden, forced).map_err(|outcome| match outcome {
            Outcome::Failed(text) => Outcome::Failed(format!("for {target}\n{text}")),
            other => other,
        })?;
    }
    Ok(())
}

/// Every case of `golden` is green.
pub fn lies_within(program: &Program, golden: &Golden, forced: bool) -> Result<(), Outcome> {
    let rule = rule(program, forced);
    assert!(!forced || matches!(rule, Rule::Forced { .. }), "the model has experts");
    for case in golden.cases() {
        let observed = observe(program, &case, rule).map_err(|error| failed(error.to_string()))?;
        let verdict = judge(&case, &observed, rule).map_err(told)?;
        if !verdict.is_green() {
            return Err(failed(verdict));
        }
    }
    Ok(())
}
