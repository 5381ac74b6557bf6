//! The router, the grouping and the sum of experts, at the sizes of the mixture-of-experts model.

use sail_kernels::emit::run::{i32_bytes, poisoned};
use sail_kernels::experts::{Combine, GroupByExpert, LinearRoute, Route};
use sail_kernels::reference::group_by_expert;

use crate::{Case, drawn, machine, tokens};

const EXPERTS: u32 = 128;
const TOP_K: u32 = 8;
const WIDTH: u32 = 2_048;

pub fn cases() -> Vec<Case> {
    [1, 512].into_iter().flat_map(of_rows).collect()
}

fn of_rows(rows: u32) -> Vec<Case> {
    let (counts, pairs) = (tokens(rows), (rows * TOP_K) as usize);
    let route = Route { experts: EXPERTS, top_k: TOP_K, renormalize: true };
    let routed = move |name: &str| match name {
        "x" => drawn(1, rows * WIDTH),
        "weight" => drawn(2, EXPERTS * WIDTH),
        "logits" => drawn(3, rows * EXPERTS),
        "ids" => poisoned(4 * pairs),
        _ => poisoned(2 * pairs),
    };
    let ids =
        move || -> Vec<i32> { (0..pairs as i32).map(|pair| pair * 89 % EXPERTS as i32).collect() };
    let grouped = move |name: &str| match name {
        "ids" => i32_bytes(&ids()),
        "starts" => poisoned(4 * (EXPERTS as usize + 1)),
        _ => poisoned(4 * pairs),
    };
    let combined = move |name: &str| match name {
        "out" => drawn(3, rows * TOP_K * WIDTH),
        "place" => i32_bytes(&group_by_expert(&ids(), EXPERTS as usize).place),
        "weights" => drawn(4, rows * TOP_K),
        "residual" => drawn(5, rows * WIDTH),
        _ => poisoned(2 * (rows * WIDTH) as usize),
    };
    let mut cases = vec![
        Case::new(LinearRoute::new(WIDTH, route.clone(), &machine()), counts, routed),
        Case::new(route, counts, routed),
        Case::new(GroupByExpert { experts: EXPERTS, top_k: TOP_K }, counts, grouped),
    ];
    for residual in [true, false] {
        let kernel = Combine { width: WIDTH, top_k: TOP_K, residual };
        cases.push(Case::new(kernel, counts, combined));
    }
    cases
}
