//! Work on many threads, results in order, memory bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Results that wait for their turn, at most, for each thread.
const AHEAD: usize = 2;

/// Call `work` for every item on `threads` threads, and `take` for every result on this one, in the
/// order of the items. At most a few results exist at once.
///
/// Stops at the first error of `take` and gives it back.
pub fn map<T: Sync, R: Send, E>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.max(1);
    let queue =
        Queue { next: AtomicUsize::new(0), state: Mutex::default(), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| queue.worker(items, threads * AHEAD, &work));
        }
        let result = items.iter().enumerate().try_for_each(|(at, item)| take(item, queue.wait(at)));
        queue.stop();
        result
    })
}

struct Queue<R> {
    next: AtomicUsize,
    state: Mutex<State<R>>,
    changed: Condvar,
}

struct State<R> {
    done: BTreeMap<usize, R>,
    taken: usize,
    stopped: bool,
}

impl<R> Default for State<R> {
    fn default() -> Self {
        Self { done: BTreeMap::new(), taken: 0, stopped: false }
    }
}

impl<R: Send> Queue<R> {
    fn worker<T>(&self, items: &[T], ahead: usize, work: &(impl Fn(&T) -> R + Sync)) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let mut state = self.state.lock().expect("no worker panics while it holds the lock");
            while at >= state.taken + ahead && !state.stopped {
                state = self.changed.wait(state).expect("as above");
            }
            if state.stopped {
                return;
            }
            drop(state);
            let result = work(item);
            self.state.lock().expect("as above").done.insert(at, result);
            self.changed.notify_all();
        }
    }

    fn wait(&self, at: usize) -> R {
        let mut state = self.state.lock().expect("no worker panics while it holds the lock");
        loop {
            if let Some(result) = state.done.remove(&at) {
                state.taken = at + 1;
                drop(state);
                self.changed.notify_all();
                return result;
            }
            state = self.changed.wait(state).expect("as above");
        }
    }

    fn stop(&self) {
        self.state.lock().expect("no worker panics while it holds the lock").stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_threads() {
        let items: Vec<u64> = (0..200).collect();
        for threads in [1, 2, 7] {
            let mut got = Vec::new();
            let take = |_: &u64, result| {
                got.push(result);
                Ok::<(), ()>(())
            };
            map(&items, threads, |item| item * item, take).unwrap();
            assert_eq!(got, items.iter().map(|item| item * item).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_stops_the_work() {
        let items: Vec<u64> = (0..1000).collect();
        let seen = AtomicUsize::new(0);
        let work = |item: &u64| {
            seen.fetch_add(1, Ordering::Relaxed);
            *item
        };
        let result = map(&items, 2, work, |_, item| if item == 3 { Err("full") } else { Ok(()) });
        assert_eq!(result, Err("full"));
        assert!(seen.load(Ordering::Relaxed) < 20);
    }
}
