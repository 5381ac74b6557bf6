//! The router, the grouping and the sum of experts, at the sizes of the mixture-of-experts model.

use criterion::Criterion;
use sail_bench::{drawn, time, tokens};
use sail_kernels::emit::run::{host, i32_bytes, poisoned};
use sail_kernels::experts::{Combine, GroupByExpert, LinearRoute, Route};
use sail_kernels::reference::group_by_expert;

const EXPERTS: u32 = 128;
const TOP_K: u32 = 8;
const WIDTH: u32 = 2_048;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("experts");
    for rows in [1, 512] {
        let pairs = (rows * TOP_K) as usize;
        let counts = tokens(rows);
        let route = Route { experts: EXPERTS, top_k: TOP_K, renormalize: true };
        let [x, weight] = [rows, EXPERTS].map(|rows| drawn(rows.into(), rows * WIDTH));
        let target = host().expect("kernels need at least x86-64-v3");
        let kernel = LinearRoute::new(WIDTH, route, &target);
        let buffers = [x.clone(), weight, poisoned(4 * pairs), poisoned(2 * pairs)];
        time(&mut group, &kernel, counts, 0, &buffers);

        let kernel = GroupByExpert { experts: EXPERTS, top_k: TOP_K };
        let ids: Vec<i32> = (0..pairs as i32).map(|pair| pair * 89 % EXPERTS as i32).collect();
        let starts = poisoned(4 * (EXPERTS as usize + 1));
        let buffers = [i32_bytes(&ids), poisoned(4 * pairs), poisoned(4 * pairs), starts];
        time(&mut group, &kernel, counts, 0, &buffers);

        let kernel = Combine { width: WIDTH, top_k: TOP_K, residual: true };
        let place = i32_bytes(&group_by_expert(&ids, EXPERTS as usize).place);
        let out = drawn(3, rows * TOP_K * WIDTH);
        let weights = drawn(4, rows * TOP_K);
        let y = poisoned(x.len());
        time(&mut group, &kernel, counts, 0, &[out, place, weights, x, y]);
    }
    group.finish();
}
