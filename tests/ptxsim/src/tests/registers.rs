//! `setmaxnreg`: what one warpgroup gives back, another may have.

use super::*;

/// Two warpgroups of threads with 128 registers; `first` is carried out by the first, `second` by the
/// other; `%p2` is true in three warps of each.
fn run_groups(begin: &str, first: &str, second: &str) -> Result<Vec<u32>, Fault> {
    let body = format!(
        "and.b32 %r10, %r0, 96; setp.ne.u32 %p2, %r10, 96;\nsetp.ge.u32 %p1, %r0, 128; @%p1 bra $second;\n\
         {first}\nbra $end;\n$second:\n{second}\n$end:\nst.global.b32 [%rd3], %r0;"
    );
    let text = text(&body).replace("k_map[128]) {", &format!("k_map[128])\n{begin}\n{{"));
    Setting::threads(256).run_text(&text)
}

const BEGIN: &str = ".maxnreg 128";
const GIVE: &str = "setmaxnreg.dec.sync.aligned.u32 40;";

fn refuse(kind: Kind, words: &str, result: Result<Vec<u32>, Fault>) {
    let fault = result.expect_err("the kernel breaks a rule");
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.to_string().contains(words), "{fault}");
}

#[test]
fn what_one_gives_the_other_takes() {
    let all = "setmaxnreg.inc.sync.aligned.u32 216;";
    assert!(run_groups(BEGIN, GIVE, all).is_ok());
    assert!(run_groups(BEGIN, all, GIVE).is_ok(), "whoever comes first");
    let more = "setmaxnreg.inc.sync.aligned.u32 224;";
    refuse(Kind::Deadlock, "setmaxnreg", run_groups(BEGIN, GIVE, more));
    refuse(Kind::Deadlock, "setmaxnreg", run_groups(BEGIN, "", all));
}

#[test]
fn counts_must_be_what_they_say() {
    let of = |count: &str| run_groups(BEGIN, &format!("setmaxnreg.{count};"), "");
    refuse(Kind::Operand, "that have 128", of("dec.sync.aligned.u32 136"));
    refuse(Kind::Operand, "that have 128", of("inc.sync.aligned.u32 120"));
    refuse(Kind::Operand, "to 44 registers", of("dec.sync.aligned.u32 44"));
    refuse(Kind::Operand, "to 16 registers", of("dec.sync.aligned.u32 16"));
    refuse(Kind::Operand, "ignores", run_groups("", GIVE, ""));
    assert!(of("dec.sync.aligned.u32 128").is_ok());
}

#[test]
fn a_warpgroup_changes_as_a_whole() {
    refuse(Kind::Divergence, "warpgroup 0", run_groups(BEGIN, &format!("@%p2 {GIVE}"), ""));
    let one_lane = "setp.eq.u32 %p3, %r0, 3; @%p3 setmaxnreg.dec.sync.aligned.u32 40;";
    refuse(Kind::Divergence, "setmaxnreg", run_groups(BEGIN, one_lane, ""));
}
