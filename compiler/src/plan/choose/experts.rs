//! Routing, grouping, grouped products and their sum.

use sail_kernels::Rows;
use sail_kernels::experts::{
    Combine, GroupByExpert, Grouped, GroupedProblem, GroupedProduct, LinearRoute, Route,
};

use super::Argument::{Choice, Operand, Result};
use super::{Found, Scope, step};

/// The kernels of a mixture of experts.
pub fn choose(scope: &Scope<'_>) -> Found {
    match scope.op.op.name {
        "route" => {
            let experts = scope.width(0);
            let chosen = Choice { of: experts };
            step(route(scope, experts), &[Operand(0), chosen, Result(1)])
        }
        "linear_route" => {
            let [experts, width] = scope.operand(1)[..] else { return None };
            let kernel = LinearRoute::new(width, route(scope, experts), scope.target);
            let chosen = Choice { of: experts };
            step(kernel, &[Operand(0), Operand(1), chosen, Result(1)])
        }
        "group_by_expert" => {
            let kernel = GroupByExpert { experts: scope.size("experts"), top_k: scope.width(0) };
            step(kernel, &[Operand(0), Result(0), Result(1), Result(2)])
        }
        "grouped_gate_up_silu" => {
            let [experts, _, k] = scope.operand(3)[..] else { return None };
            let kernel = grouped(scope, Grouped::GateUpSilu, experts, k)?;
            step(kernel, &[Operand(0), Operand(1), Operand(2), Operand(3), Result(0)])
        }
        "grouped_linear" => {
            let [experts, _, k] = scope.operand(2)[..] else { return None };
            let kernel = grouped(scope, Grouped::Linear, experts, k)?;
            step(kernel, &[Operand(0), Operand(1), Operand(2), Result(0)])
        }
        "combine" | "combine_add" => {
            let [top_k, width] = scope.operand(0)[..] else { return None };
            let residual = scope.op.op.name == "combine_add";
            let kernel = Combine { width, top_k, residual };
            let mut arguments = vec![Operand(0), Operand(1), Operand(2)];
            if residual {
                arguments.push(Operand(3));
            }
            arguments.push(Result(0));
            step(kernel, &arguments)
        }
        _ => None,
    }
}

fn route(scope: &Scope<'_>, experts: u32) -> Route {
    let (top_k, renormalize) = (scope.size("top_k"), scope.flag("renormalize"));
    Route { experts, top_k, renormalize }
}

fn grouped(scope: &Scope<'_>, what: Grouped, experts: u32, k: u32) -> Option<GroupedProduct> {
    let [top_k, n] = scope.result(0)[..] else { return None };
    let rows = Rows { per: top_k, ..scope.counted(0) };
    let problem = GroupedProblem { what, rows, experts, n, k, scheme: scope.scheme() };
    Some(GroupedProduct::new(problem, scope.target))
}
