//! Routing, grouping, grouped products and their sum.

use sail_kernels::Rows;
use sail_kernels::experts::{
    Combine, GroupByExpert, Grouped, GroupedProblem, GroupedProduct, LinearRoute, Route, Router,
    RouterProblem,
};

use sail_ir::op::Attribute;

use super::Argument::{Choice, Operand, Order, Result};
use super::{Argument, Found, Scope, step};

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
        "norm_linear_route_group" => {
            let [experts, width] = scope.operand(2)[..] else { return None };
            let (route, eps) = (route(scope, experts), scope.float("eps"));
            let problem = RouterProblem { route, width, eps };
            let [most, _] = scope.most;
            let kernel = Router::new(problem, scope.target, most)?;
            let chosen = Choice { of: experts };
            let operands = [Operand(0), Operand(1), Operand(2), chosen];
            let results = (1..6).map(Result);
            step(kernel, &operands.into_iter().chain(results).collect::<Vec<_>>())
        }
        "grouped_gate_up_silu" => {
            let [experts, _, k] = scope.operand(3)[..] else { return None };
            let kernel = grouped(scope, Grouped::GateUpSilu, experts, k)?;
            step(kernel, &with_order(scope, 3))
        }
        "grouped_linear" => {
            let [experts, _, k] = scope.operand(2)[..] else { return None };
            let kernel = grouped(scope, Grouped::Linear, experts, k)?;
            step(kernel, &with_order(scope, 2))
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
    let placed = scope.placement.is_some();
    let problem = GroupedProblem { what, rows, experts, n, k, scheme: scope.scheme(), placed };
    let kernel = GroupedProduct::new(problem, scope.target);
    Some(scope.placement.map_or(kernel, |placement| kernel.for_load(placement.busiest())))
}

/// The operands up to the weight, which is operand `weight`, and the result; before the weight the
/// order in which its experts are stored, where there is one.
fn with_order(scope: &Scope<'_>, weight: usize) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = (0..weight).map(Operand).collect();
    let made_by = scope.view.producer(scope.op.operands[weight]);
    if let Some(Attribute::Texts(paths)) = made_by.and_then(|op| op.attributes.get("paths")) {
        arguments.extend(scope.order_of(&paths[0]).map(|(layer, _)| Order { layer }));
    }
    arguments.extend([Operand(weight), Result(0)]);
    arguments
}
