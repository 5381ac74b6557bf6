//! All cases, by the groups that criterion reports them in.

mod attention;
mod experts;
mod products;
mod rows;

use crate::Case;

/// Cases that are reported together.
pub struct Group {
    pub name: &'static str,
    /// Measurements of each; fewer of what takes long.
    pub samples: usize,
    pub cases: Vec<Case>,
}

/// Every family of x86-64 at a size that occurs; no buffer is made yet.
#[must_use]
pub fn all() -> Vec<Group> {
    let group = |name, samples, cases| Group { name, samples, cases };
    vec![
        group("attention", 20, attention::decoder()),
        group("tile_attention", 20, attention::tile()),
        group("cache", 100, attention::cache()),
        group("experts", 100, experts::cases()),
        group("products", 10, products::cases()),
        group("rows", 100, rows::cases()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sail_kernels::table::KERNELS;

    use super::*;

    #[test]
    fn every_family_of_x86_64_has_a_case() {
        let groups = all();
        let cases = groups.iter().flat_map(|group| &group.cases);
        let timed: BTreeSet<&str> = cases.map(|case| case.kernel.family()).collect();
        let here = KERNELS.iter().filter(|row| row.targets.contains(&"x86-64"));
        let here: BTreeSet<&str> = here.map(|row| row.name).collect();
        assert_eq!(timed, here);
    }

    #[test]
    fn no_two_cases_of_a_group_have_one_name() {
        for group in all() {
            let names: BTreeSet<String> = group.cases.iter().map(Case::name).collect();
            assert_eq!(names.len(), group.cases.len(), "{}", group.name);
        }
    }
}
