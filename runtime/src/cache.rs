//! Which pages of the key/value pool belong to which conversation.
//!
//! The pool itself is a device's memory, [`PAGE_POSITIONS`] positions a page, the same page number
//! in every layer. Here is only the book-keeping: a slot holds pages for its positions from 0 on
//! without gaps, pages come from a stack of free ones and go back to it. Everything is sized when
//! the program is opened; taking and giving back allocates nothing.

use sail_ir::plan::PAGE_POSITIONS;

/// Page tables of all slots.
#[derive(Debug, Clone)]
pub struct Pages {
    slot_pages: u32,
    /// Free pages; the next one to give is last.
    free: Vec<u32>,
    /// `[slots][slot_pages]`; entries beyond those held are 0.
    table: Vec<u32>,
    /// Pages that each slot holds.
    held: Vec<u32>,
}

/// There are not as many free pages as a slot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub needed: u32,
    pub free: u32,
}

impl Pages {
    /// A pool of `pages`, shared by `slots` of at most `slot_pages` each.
    #[must_use]
    pub fn new(pages: u32, slots: u32, slot_pages: u32) -> Self {
        Self {
            slot_pages,
            free: (0..pages).rev().collect(),
            table: vec![0; slots as usize * slot_pages as usize],
            held: vec![0; slots as usize],
        }
    }

    /// Let `slot` hold pages for `positions` positions in all; it keeps those it has.
    ///
    /// Refuses, changing nothing, when the pool has too few.
    ///
    /// # Panics
    ///
    /// When a slot never holds so many.
    pub fn reserve(&mut self, slot: u32, positions: u32) -> Result<(), Full> {
        let pages = positions.div_ceil(PAGE_POSITIONS);
        assert!(pages <= self.slot_pages, "broken invariant `pages.slot`: {positions} positions");
        let held = self.held[slot as usize];
        let needed = pages.saturating_sub(held);
        let free = u32::try_from(self.free.len()).unwrap_or(u32::MAX);
        if needed > free {
            return Err(Full { needed, free });
        }
        for index in held..held + needed {
            let page = self.free.pop().expect("counted above");
            self.table[(slot * self.slot_pages + index) as usize] = page;
        }
        self.held[slot as usize] = held + needed;
        Ok(())
    }

    /// Give back the pages of `slot` that hold nothing below `positions`.
    pub fn truncate(&mut self, slot: u32, positions: u32) {
        let keep = positions.div_ceil(PAGE_POSITIONS);
        while self.held[slot as usize] > keep {
            self.held[slot as usize] -= 1;
            let entry = (slot * self.slot_pages + self.held[slot as usize]) as usize;
            self.free.push(self.table[entry]);
            self.table[entry] = 0;
        }
    }

    /// `[slots][slot_pages]`, as the control block has it.
    #[must_use]
    pub fn table(&self) -> &[u32] {
        &self.table
    }

    /// Pages nobody holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_grows_by_whole_pages_and_keeps_what_it_has() {
        let mut pages = Pages::new(4, 2, 3);
        pages.reserve(0, 1).unwrap();
        pages.reserve(0, 64).unwrap();
        assert_eq!(pages.free(), 3);
        pages.reserve(1, 65).unwrap();
        pages.reserve(0, 65).unwrap();
        assert_eq!(pages.table(), [0, 3, 0, 1, 2, 0]);
        assert_eq!(pages.reserve(1, 129), Err(Full { needed: 1, free: 0 }));
        assert_eq!(pages.table(), [0, 3, 0, 1, 2, 0]);
    }

    #[test]
    fn pages_given_back_are_given_out_again() {
        let mut pages = Pages::new(2, 2, 2);
        pages.reserve(0, 128).unwrap();
        pages.truncate(0, 64);
        pages.reserve(1, 10).unwrap();
        assert_eq!(pages.table(), [0, 0, 1, 0]);
        pages.truncate(0, 0);
        pages.truncate(1, 0);
        assert_eq!(pages.free(), 2);
    }

    #[test]
    fn no_page_has_two_holders_in_a_drawn_history() {
        let mut pages = Pages::new(9, 3, 5);
        let mut state = 1_u64;
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (slot, positions) = ((state >> 33) as u32 % 3, (state >> 40) as u32 % 321);
            if state >> 63 == 0 {
                pages.truncate(slot, positions);
            } else {
                let _ = pages.reserve(slot, positions);
            }
            let mut held: Vec<u32> = pages.free.clone();
            for slot in 0..3 {
                held.extend(&pages.table[slot * 5..slot * 5 + pages.held[slot] as usize]);
            }
            held.sort_unstable();
            assert_eq!(held, (0..9).collect::<Vec<_>>());
        }
    }
}
