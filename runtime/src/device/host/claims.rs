//! Which thread computes which items of a step: first its own share, piece by piece, then what
//! others have left of theirs.
//!
//! The share of a thread is fixed by the number of items and of threads, so that it reads one run
//! of the weights. Its owner takes from the front, whoever is done with its own from the back. Items
//! are independent of each other: who computes one changes no byte of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is taken of every share of every step.
pub(super) struct Claims {
    threads: usize,
    /// `[step][thread]`
    taken: Vec<Taken>,
}

/// Items taken from the front of a share (low half) and from its back (high half); alone in a cache
/// line, since its owner looks at it all the time.
#[derive(Default)]
#[repr(align(64))]
struct Taken(AtomicU64);

/// A step in which items are claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub index: usize,
    pub items: u64,
    /// Fewest items that are worth a call.
    pub least: u64,
}

/// How far back a piece must be from the end of a share to be worth the work of taking it away, in
/// parts of `least`.
const STEAL_PART: u64 = 4;

impl Claims {
    /// Nothing is taken of `steps` steps.
    pub fn new(steps: usize, threads: usize) -> Self {
        Self { threads, taken: (0..steps * threads).map(|_| Taken::default()).collect() }
    }

    /// Nothing is taken any more. No thread may be at work.
    pub fn reset(&self) {
        for taken in &self.taken {
            taken.0.store(0, Ordering::Relaxed);
        }
    }

    /// The next items of the thread's own share: half of what is left.
    pub fn own(&self, step: Step, thread: usize) -> Option<[u64; 2]> {
        let [first, end] = share(step.items, thread, self.threads);
        let length = end - first;
        let mut begin = 0;
        self.take(step.index, thread, |front, back| {
            let left = length - front - back;
            begin = front;
            (left > 0).then(|| (left.div_ceil(2).max(step.least).min(left), 0))
        })
        .map(|(count, _)| [first + begin, first + begin + count])
    }

    /// Items of another thread's share, from its back: half of what is left, where that is enough.
    pub fn others(&self, step: Step, thread: usize) -> Option<[u64; 2]> {
        (1..self.threads).find_map(|ahead| {
            let victim = (thread + ahead) % self.threads;
            let [first, end] = share(step.items, victim, self.threads);
            let length = end - first;
            let mut before = 0;
            self.take(step.index, victim, |front, back| {
                let left = length - front - back;
                before = back;
                (left > step.least / STEAL_PART + 1).then_some((0, left / 2))
            })
            .map(|(_, count)| [end - before - count, end - before])
        })
    }

    /// Take what `choose` says of (front, back), unless it changes its mind.
    fn take(
        &self,
        step: usize,
        thread: usize,
        mut choose: impl FnMut(u64, u64) -> Option<(u64, u64)>,
    ) -> Option<(u64, u64)> {
        let taken = &self.taken[step * self.threads + thread].0;
        let mut now = taken.load(Ordering::Relaxed);
        loop {
            let (front, back) = (now & u64::from(u32::MAX), now >> 32);
            let (more_front, more_back) = choose(front, back)?;
            let next = (front + more_front) | (back + more_back) << 32;
            // Only who takes what is decided here; what others computed is waited for elsewhere.
            match taken.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some((more_front, more_back)),
                Err(other) => now = other,
            }
        }
    }
}

/// First item and one past the last of thread `thread` of `threads`.
///
/// # Panics
///
/// When there are more items than can be counted in 32 bits.
fn share(items: u64, thread: usize, threads: usize) -> [u64; 2] {
    assert!(u32::try_from(items).is_ok(), "broken invariant `claims.items`: {items}");
    let (thread, threads) = (thread as u64, threads as u64);
    [thread, thread + 1].map(|index| items * index / threads)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    #[test]
    fn shares_cover_all_items_once_whatever_the_number_of_threads() {
        for items in [0, 1, 2, 7, 1000, u64::from(u32::MAX)] {
            for threads in [1, 2, 3, 16] {
                let shares: Vec<_> = (0..threads).map(|j| share(items, j, threads)).collect();
                assert_eq!(shares[0][0], 0);
                assert_eq!(shares[threads - 1][1], items);
                assert!(shares.windows(2).all(|pair| pair[0][1] == pair[1][0]));
            }
        }
    }

    #[test]
    fn an_owner_goes_forward_in_halves_of_at_least_a_call() {
        let claims = Claims::new(2, 2);
        let step = Step { index: 1, items: 64, least: 5 };
        let mut pieces = Vec::new();
        while let Some(piece) = claims.own(step, 1) {
            pieces.push(piece);
        }
        assert_eq!(pieces, [[32, 48], [48, 56], [56, 61], [61, 64]]);
        assert_eq!(claims.own(Step { index: 0, ..step }, 0), Some([0, 16]));
        claims.reset();
        assert_eq!(claims.own(step, 1), Some([32, 48]));
    }

    #[test]
    fn a_thread_without_work_takes_half_of_the_rest_of_another_from_its_back() {
        let claims = Claims::new(1, 3);
        let step = Step { index: 0, items: 30, least: 4 };
        assert_eq!(claims.own(step, 1), Some([10, 15]));
        assert_eq!(claims.others(step, 0), Some([18, 20])); // of 15 .. 20
        assert_eq!(claims.own(step, 1), Some([15, 18]));
        assert_eq!(claims.own(step, 1), None);
        assert_eq!(claims.others(step, 0), Some([25, 30])); // all of thread 2 is left
        let small = Step { items: 6, ..step };
        assert_eq!(Claims::new(1, 3).others(small, 0), None, "too little to be worth a call");
    }

    #[test]
    fn every_item_is_taken_once_however_threads_race() {
        for least in [1, 3, 16] {
            let (items, threads) = (997, 4);
            let claims = Claims::new(1, threads);
            let step = Step { index: 0, items, least };
            let counts = Mutex::new(vec![0; items as usize]);
            let work = |thread: usize| {
                while let Some([first, end]) =
                    claims.own(step, thread).or_else(|| claims.others(step, thread))
                {
                    let mut counts = counts.lock().unwrap();
                    (first..end).for_each(|item| counts[item as usize] += 1);
                }
            };
            thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || work(thread));
                }
            });
            assert!(counts.into_inner().unwrap().iter().all(|count| *count == 1), "{least}");
        }
    }
}
