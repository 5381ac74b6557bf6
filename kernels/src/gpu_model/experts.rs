//! Products of the experts of a mixture: which way for how many tokens, and how each is cut.
//!
//! | tokens of a call | way | an expert's rows are taken |
//! | --- | --- | --- |
//! | up to [`FEW_TOKENS`] | `rows` | [`FEW_TOKENS`] at once: a token goes through an expert once |
//! | up to [`FEW_ROWS`] rows of an expert on average | `rows` | [`FEW_AT_ONCE`] at once |
//! | more | `wgmma` or `mixed` where these take the operands, else `tile` | a tile's at once |
//!
//! What a call takes is reckoned as if tokens chose at random how many experts have rows, and these had from
//! half as many as on average up to some more than half as many again.

use sail_ir::target::Target;

use super::product::Product;
use super::{Chip, Expected, MixedOfExperts, RowsOfExperts, TilesOfExperts, WarpgroupsOfExperts};
use crate::linear::nvptx::Sizes;
use crate::linear::nvptx::finish::Finish;
use crate::linear::nvptx::mixed::Mixed;
use crate::linear::nvptx::warpgroup::Warpgroups;

/// Tokens of a call of which an expert has no more rows than one matrix instruction takes.
const FEW_TOKENS: u32 = 8;

/// Rows that an expert has on average, at most, where rows count as few.
const FEW_ROWS: u32 = 8;

/// Rows of an expert that are multiplied together then: of experts with so many on average, few have
/// more.
const FEW_AT_ONCE: u32 = 16;

/// Tokens that tiles are cut for, in every class: of fewer, reading an expert's weight takes longer than all
/// that a tile changes.
const MANY_TOKENS: u32 = 4096;

/// Rows of the experts that have some, by their share of the average: of each kind as many.
const LOADS: [f64; 4] = [0.5, 0.8, 1.1, 1.6];

/// The way of a grouped product for calls of at most so many tokens.
pub(crate) enum ExpertsByRule {
    Rows(RowsOfExperts),
    Warpgroups(WarpgroupsOfExperts),
    Mixed(MixedOfExperts),
    Tile(TilesOfExperts),
}

impl ExpertsByRule {
    /// As the table of the module says; `table` bytes of shared memory are taken by the groups of rows.
    pub(crate) fn of(sizes: &Sizes, most_tokens: u32, table: u64, target: &Target) -> Option<Self> {
        let most = most_tokens.saturating_mul(sizes.rows.per);
        let experts = Experts(Product { sizes: *sizes, most, chip: Chip::of(target)? });
        let few = u64::from(most) <= u64::from(FEW_ROWS) * u64::from(sizes.weights);
        Some(if most_tokens <= FEW_TOKENS {
            // As a rule, one token.
            let weights = sizes.rows.per.min(sizes.weights);
            Self::Rows(RowsOfExperts::new(experts, [FEW_TOKENS, weights]))
        } else if few {
            Self::Rows(RowsOfExperts::new(experts, [FEW_AT_ONCE, sizes.weights]))
        } else if Warpgroups::takes(sizes, target) {
            Self::Warpgroups(WarpgroupsOfExperts { experts, table })
        } else if Mixed::takes(sizes, target) {
            Self::Mixed(MixedOfExperts(experts))
        } else {
            Self::Tile(TilesOfExperts(experts))
        })
    }
}

/// What these ways have in common: the product of an expert, `most` being the sorted rows of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Experts(pub Product);

/// So many groups of rows of an expert, of which so many rows are multiplied.
pub(super) type Groups = Vec<(f64, u32)>;

impl Experts {
    /// Sorted rows that it is cut for, where tokens are many.
    pub fn many(&self) -> u32 {
        MANY_TOKENS.saturating_mul(self.0.sizes.rows.per)
    }

    /// Experts that have some of `rows` sorted rows.
    pub fn at_work(&self, rows: u32) -> f64 {
        let Sizes { rows: of_call, weights, .. } = self.0.sizes;
        let [all, per] = [weights, of_call.per.min(weights)].map(f64::from);
        let tokens = f64::from(rows) / per;
        all * (1.0 - (1.0 - per / all).powf(tokens))
    }

    /// Rows that an expert has, on average of those that have some.
    pub fn average(&self, rows: u32) -> f64 {
        f64::from(rows) / self.at_work(rows).max(1.0)
    }

    /// The weights of the experts that have rows, the rows of x, those of y, each once.
    pub fn memory(&self, rows: u32) -> u64 {
        let Sizes { rows: of_call, n, finish, .. } = self.0.sizes;
        let of_tokens = if finish == Finish::Gated { rows / of_call.per } else { rows };
        let x = u64::from(of_tokens) * self.0.sizes.row_bytes()[0];
        let weights = self.at_work(rows) * self.0.weight_bytes() as f64;
        weights as u64 + x + 2 * u64::from(rows) * u64::from(n)
    }

    /// The groups of at most `most` rows that `rows` sorted ones are cut into, of which as many are
    /// multiplied as there are, in whole `step`s.
    pub fn groups(&self, rows: u32, [most, step]: [u32; 2]) -> Groups {
        let of_kind = self.at_work(rows) / LOADS.len() as f64;
        let average = self.average(rows);
        let kinds = LOADS.into_iter().flat_map(|share| {
            let load = ((share * average).round() as u32).max(1);
            let [whole, rest] = [load / most, load % most];
            let last = if rest > 0 { of_kind } else { 0.0 };
            [(of_kind * f64::from(whole), most), (last, rest.next_multiple_of(step))]
        });
        kinds.collect()
    }

    /// What a call takes whose `groups` each meet all tiles of `columns` weight rows of their expert. A
    /// tile of so many rows reads `bytes` from the cache.
    pub fn in_tiles(
        &self,
        rows: u32,
        (groups, columns): (&Groups, u32),
        bytes: impl Fn(u32) -> u64,
    ) -> Expected {
        let Product { sizes, chip, .. } = self.0;
        let tiles = f64::from(sizes.weight_rows().div_ceil(columns));
        let items: f64 = groups.iter().map(|(count, _)| count * tiles).sum();
        let processors = f64::from(chip.processors);
        let waves = (items / processors).ceil().max(1.0);
        // Of the average tile, those of the multiprocessor that has most.
        let of_busiest = |each: &dyn Fn(u32) -> u64| {
            let all: f64 = groups.iter().map(|(count, rows)| count * each(*rows) as f64).sum();
            (waves * all * tiles / items.max(1.0)) as u64
        };
        let operations = |rows| self.0.operations(rows, columns);
        let parts = [
            chip.read(self.memory(rows)),
            chip.fed(of_busiest(&bytes)),
            chip.multiplied(of_busiest(&operations), self.0.of_bytes()),
            chip.ends,
        ];
        Expected { rows, blocks: items.round() as u32, waves: waves as u32, parts }
    }

    /// Bytes of a tile that is read step by step: so many rows of x and so many of the weight.
    pub fn tile_bytes(&self, rows: u32, columns: u32) -> u64 {
        let sizes = self.0.sizes;
        u64::from(rows) * sizes.row_bytes()[1] + u64::from(columns) * sizes.pitch()
    }

    /// What many rows are, as a reason begins.
    pub fn of_many(&self) -> String {
        let (rows, per) = (self.many(), self.0.sizes.rows.per);
        let tokens = rows / per;
        format!("{tokens} tokens give an expert about {:.0} rows", self.average(rows))
    }
}

#[cfg(test)]
mod tests {
    use sail_ir::plan::Count;
    use sail_ir::scheme::Scheme;

    use super::super::Way;
    use super::*;
    use crate::config::Config;
    use crate::kernel::Rows;
    use crate::linear::{Epilogue, Prologue};

    /// Gate and up, or down, of a layer of 30B-A3B.
    fn sizes(gated: bool, scheme: Scheme) -> Sizes {
        let each = Finish::Each(Epilogue::NONE);
        let (n, k, finish) = if gated { (768, 2048, Finish::Gated) } else { (2048, 768, each) };
        let rows = Rows { count: Count::Tokens, per: 8 };
        Sizes { rows, n, k, scheme, prologue: Prologue::Direct, finish, weights: 128 }
    }

    fn way(sizes: &Sizes, most: u32, target: &str) -> Box<dyn Way> {
        let target = Target::parse(target).unwrap();
        match ExpertsByRule::of(sizes, most, 2064, &target).unwrap() {
            ExpertsByRule::Rows(way) => Box::new(way),
            ExpertsByRule::Warpgroups(way) => Box::new(way),
            ExpertsByRule::Mixed(way) => Box::new(way),
            ExpertsByRule::Tile(way) => Box::new(way),
        }
    }

    /// Microseconds of a call of so many tokens.
    fn expected(way: &dyn Way, tokens: u32) -> f64 {
        1e6 * way.expected(&way.config(), 8 * tokens).seconds()
    }

    #[test]
    fn what_the_rule_chooses_fits_and_is_read_back_as_it_was() {
        for target in ["sm_80", "sm_90"] {
            for scheme in Scheme::ALL {
                for most in [1, 8, 64, 128, 129, 512, 4096] {
                    for gated in [false, true] {
                        let way = way(&sizes(gated, scheme), most, target);
                        let config = way.config();
                        let read = Config::parse(&config.to_string(), &way.space());
                        assert_eq!(read.as_ref(), Ok(&config));
                        assert!(way.fits(&config), "{target} {scheme} {most}: {config}");
                        assert_eq!(way.most_rows(), 8 * most);
                    }
                }
            }
        }
    }

    #[test]
    fn the_way_goes_by_tokens_and_by_what_multiplies() {
        let name = |scheme, most, target| {
            let way = way(&sizes(true, scheme), most, target);
            format!("{} {}", way.name(), way.config())
        };
        for scheme in Scheme::ALL {
            assert!(name(scheme, 8, "sm_90").starts_with("rows "));
            assert!(name(scheme, 128, "sm_90").starts_with("rows "));
        }
        assert_eq!(name(Scheme::Bf16, 129, "sm_90"), "wgmma columns=256 stages=4");
        assert_eq!(name(Scheme::Fp8, 4096, "sm_90"), "wgmma columns=128 stages=6");
        assert_eq!(name(Scheme::Int8Weight, 4096, "sm_90"), "mixed tile=128 columns=256");
        assert_eq!(name(Scheme::Int4, 4096, "sm_90"), "mixed tile=128 columns=128");
        assert_eq!(name(Scheme::Int4, 4096, "sm_80"), "tile tile=64 columns=64");
    }

    /// What one way takes by what another does for as many tokens.
    #[test]
    fn the_rule_changes_ways_where_both_take_about_as_long() {
        for scheme in Scheme::ALL {
            for gated in [false, true] {
                let sizes = sizes(gated, scheme);
                let [one, few, many] = [8, 128, 4096].map(|most| way(&sizes, most, "sm_90"));
                let [one, few, many] = [&*one, &*few, &*many];
                let ratio = |way, other, tokens| expected(way, tokens) / expected(other, tokens);
                for tokens in [1, 8] {
                    assert!(ratio(one, few, tokens) < 1.2, "{scheme}, {tokens} tokens");
                    assert!(ratio(one, many, tokens) < 1.25, "{scheme}, {tokens} tokens");
                }
                for tokens in [16, 64, 128] {
                    assert!(ratio(few, one, tokens) < 1.02, "{scheme}, {tokens} tokens");
                    assert!(ratio(few, many, tokens) < 1.1, "{scheme}, {tokens} tokens");
                }
                for (tokens, least) in [(129, 0.95), (512, 1.0), (3072, 2.0)] {
                    assert!(ratio(few, many, tokens) > least, "{scheme}, {tokens} tokens");
                }
            }
        }
    }
}
