//! Rows walked by several threads together, vector by vector.

use sail_ir::plan::Grid;

use super::super::{Builder, Carried, Index, Number, Piece};
use super::WARP;

/// Threads that share a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Team {
    /// All threads of the block.
    Block,
    /// The threads of a warp.
    Warp,
}

impl Team {
    /// How many they are in a block of `threads`.
    #[must_use]
    pub const fn size(self, threads: u32) -> u32 {
        match self {
            Self::Block => threads,
            Self::Warp => WARP,
        }
    }
}

/// Elements of a piece of a row of `length` elements of which 8 fill the widest access: the most
/// that divide the row, so that every piece is whole and every row of a matrix starts at one.
#[must_use]
pub const fn piece_width(length: u64) -> u32 {
    let twos = length.trailing_zeros();
    if twos >= 3 { 8 } else { 1 << twos }
}

/// Threads for rows of `length`: a piece each if 512 are enough, whole warps.
#[must_use]
pub const fn threads_for(length: u64) -> u32 {
    let pieces = length / piece_width(length) as u64;
    let threads = pieces.next_multiple_of(WARP as u64);
    if threads > 512 { 512 } else { threads as u32 }
}

/// How rows of one length are dealt to the blocks of a grid: a warp each where they are short, a
/// block each where they are long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deal {
    pub team: Team,
    pub threads: u32,
    /// Rows of one item.
    pub rows: u32,
}

impl Deal {
    /// Longest row for which a warp is enough.
    const SHORT: u64 = 512;

    /// Rows that are short in a block of them.
    const WARPS: u32 = 4;

    /// The deal of rows of `length` elements.
    #[must_use]
    pub const fn of(length: u64) -> Self {
        if length <= Self::SHORT {
            Self { team: Team::Warp, threads: Self::WARPS * WARP, rows: Self::WARPS }
        } else {
            Self { team: Team::Block, threads: threads_for(length), rows: 1 }
        }
    }

    /// Shared memory of `joins` places of the code that join a row's values.
    #[must_use]
    pub const fn join_bytes(self, joins: u32) -> u32 {
        match self.team {
            Team::Warp => 0,
            Team::Block => joins * Builder::join_block_bytes(self.threads),
        }
    }
}

impl<'c> Builder<'c> {
    /// Run `body` for the row of this thread's team, if the call has it. All threads of a team come
    /// there or none; under a team of a warp, no barrier of the block may stand inside.
    pub fn for_team_row(
        &mut self,
        grid: &Grid,
        deal: Deal,
        body: impl FnOnce(&mut Self, Index<'c>),
    ) {
        assert_eq!(
            (grid.columns, grid.rows_per_block),
            (1, deal.rows),
            "the grid is not the deal's"
        );
        self.for_this_block(grid, |k, block| match deal.team {
            Team::Block => body(k, block.first_row),
            Team::Warp => {
                let warp = k.warp();
                let has = k.less(warp, block.rows);
                k.when(has, |k| {
                    let row = k.add(block.first_row, warp);
                    body(k, row);
                });
            }
        });
    }

    /// `value` of all threads of the team joined, in every one of them.
    pub fn join_team<T: Number<'c>>(
        &mut self,
        team: Team,
        value: T,
        join: impl Fn(&mut Self, T, T) -> T,
    ) -> T {
        match team {
            Team::Block => self.join_block(value, join),
            Team::Warp => self.join_warp(value, join),
        }
    }

    /// Run `body` for the pieces of a row of `length` elements that are this thread's: piece `i` is
    /// that of thread `i` modulo the team's size.
    pub fn share_pieces(
        &mut self,
        team: Team,
        length: u64,
        mut body: impl FnMut(&mut Self, Piece<'c>),
    ) {
        self.fold_shared_pieces(team, length, (), |k, piece, ()| body(k, piece));
    }

    /// As [`Builder::share_pieces`], with values handed from one piece of this thread to its next.
    pub fn fold_shared_pieces<T: Carried<'c>>(
        &mut self,
        team: Team,
        length: u64,
        first: T,
        body: impl FnOnce(&mut Self, Piece<'c>, T) -> T,
    ) -> T {
        self.fold_pieces_of(team, length, piece_width(length), first, body)
    }

    /// As [`Builder::fold_shared_pieces`], in pieces of `width`, which must divide the length and every
    /// distance between rows.
    pub fn fold_pieces_of<T: Carried<'c>>(
        &mut self,
        team: Team,
        length: u64,
        width: u32,
        first: T,
        body: impl FnOnce(&mut Self, Piece<'c>, T) -> T,
    ) -> T {
        assert!(length.is_multiple_of(u64::from(width)), "pieces are whole");
        let member = match team {
            Team::Block => self.thread(),
            Team::Warp => self.lane_id(),
        };
        let begin = self.mul_constant(member, u64::from(width));
        let end = self.index(length);
        let step = u64::from(width) * u64::from(team.size(self.threads()));
        self.fold(begin, end, step, first, |k, at, carried| {
            body(k, Piece { at, count: None, width }, carried)
        })
    }
}
