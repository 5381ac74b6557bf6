//! What kernels have and do not need, each with the reason.

use sail_ir::Target;

use super::score::Redundant;

/// What no kernel of a kind needs on `target`.
pub fn redundant(target: &Target) -> Vec<&'static Redundant> {
    let own = if target.name == "sm_90" { ON_SM_90 } else { ON_SM_80 };
    EVERYWHERE.iter().chain(own).collect()
}

const fn row(
    kind: &'static str,
    opcode: &'static str,
    nth: usize,
    reason: &'static str,
) -> Redundant {
    Redundant { kind, opcode, nth, reason }
}

const COMMIT: &str = "cp.async.commit_group";

/// Where a kernel lets its successor start, and waits for its predecessor.
const WAIT: &str = "griddepcontrol.wait";

const EVERYWHERE: &[Redundant] = &[row("attention*.together", COMMIT, 0, QUERIES)];

const ON_SM_80: &[Redundant] = &[
    row("tile_attention", COMMIT, 0, QUERIES),
    row("attention*.alone*", COMMIT, 0, NONE),
    row("attention*.alone*", COMMIT, 1, NONE),
    row("attention*.alone*", COMMIT, 7, LAST),
];

const ON_SM_90: &[Redundant] = &[
    row("attention*.alone*", COMMIT, 0, OLD),
    row("attention*.alone*", COMMIT, 1, OLD),
    row("attention*.alone*", COMMIT, 4, NONE),
    row("attention*.alone*", COMMIT, 9, LAST),
    row("attention*.alone*", WAIT, 1, PAST),
    row("tile_attention.wgmma", "mbarrier.arrive.shared::cta.b64", 3, NEVER),
    row("gate_up_silu*.rows*", WAIT, 1, PAST),
    row("linear*.rows*", WAIT, 1, PAST),
    row("norm_linear_route_group*", WAIT, 1, PAST),
    row("qk_norm_rope_write*", WAIT, 1, PAST),
];

const OLD: &str =
    "of a warp whose run ended before this call and that has none: there is no such warp";

const NONE: &str =
    "of a warp without pages, which waits for none: it is there so that both ways count alike";

const LAST: &str = "of a warp that has no further page and waits no more: it is there so that both ways count alike";

const PAST: &str = "of blocks past the counts, needed where a call counts nothing: outputs may be none, and tokens \
                    are not";

const NEVER: &str = "of a block's last values, behind which no step is brought: it is there because attention over the cache \
     has several runs of positions and the same code";

const QUERIES: &str =
    "the queries are waited for together with the first page, whatever their group";
