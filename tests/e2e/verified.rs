//! Compiled models, carried out by the runtime, against recorded reference outputs.

use sail_ir::{Scheme, Target};
use sail_runtime::{Options, Program};
use sail_tests::compiled::{artifact, compile, open, targets};
use sail_tests::harness::{Outcome, Test, failed, told};
use sail_tests::recorded::{RECORDED, Recorded};
use sailc::golden::run::{observe, positions, rule};
use sailc::golden::{Golden, Rule, judge};
use sailc::options::Options as Compiling;

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
    tests.push(Test::new(
        "a token that the golden's experts explain is told from one that they do not",
        explained,
    ));
    tests
}

/// Case 2 of the larger model with experts goes another way than the golden from its second token on, in
/// schemes of fewer bits and without a near-tie in its logits.
fn explained() -> Result<(), Outcome> {
    let [.., recorded, _] = RECORDED;
    assert_eq!(recorded.name, "random-moe");
    let (checkpoint, golden) = recorded.paths()?;
    let golden = Golden::open(&golden).map_err(told)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    for (scheme, explained) in [(Scheme::Int8, true), (Scheme::Int4, false)] {
        let file = folder.path().join(format!("{scheme}.sail"));
        let target = Target::parse("x86-64-v3").map_err(told)?;
        let compiling = Compiling { scheme, threads: 2, ..Compiling::new(target) };
        compile(&checkpoint, &compiling, &file)?;
        let context = Some(positions(&golden).map_err(|error| failed(error.to_string()))?);
        let options = Options { context, slots: 1, taps: true, ..Options::default() };
        let program = open(&file, &options)?;
        let rule = rule(&program, false);
        let case = golden.cases()[2];
        let observed = observe(&program, &case, rule).map_err(|error| failed(error.to_string()))?;
        let greedy = judge(&case, &observed, rule).map_err(told)?.greedy.expect("it generated");
        assert_eq!((greedy.equal, greedy.near_tie), (1, Some(16)), "{scheme}");
        assert_eq!(greedy.swap.map(|swap| swap.step), explained.then_some(1), "{scheme}");
        assert_eq!(greedy.within, explained, "{scheme}");
    }
    Ok(())
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
