//! Waiting for another thread: first awake, then asleep.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a waiting thread stays awake: to fall asleep and be woken takes some tens of
/// microseconds, and threads that share a step end it closer to each other than this.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks at the condition between two looks at the clock.
const LOOKS: u32 = 64;

/// Threads wait for conditions over atomics; whoever makes one true rings.
///
/// Conditions must be read and written with `SeqCst`, so that a thread falling asleep and one
/// ringing cannot miss each other.
#[derive(Default)]
pub(super) struct Bell {
    sleepers: AtomicU32,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Bell {
    /// Return once `ready` holds.
    pub fn wait(&self, ready: impl Fn() -> bool) {
        if !awake(&ready) {
            while !self.sleep(&ready, None) {}
        }
    }

    /// Return whether `ready` holds, after at most about `limit`; without staying awake.
    pub fn wait_for(&self, limit: Duration, ready: impl Fn() -> bool) -> bool {
        ready() || self.sleep(&ready, Some(limit)) || ready()
    }

    /// Wake all who wait. Costs next to nothing when nobody sleeps.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.locked());
            self.bell.notify_all();
        }
    }

    fn sleep(&self, ready: &impl Fn() -> bool, limit: Option<Duration>) -> bool {
        let guard = self.locked();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let done = ready();
        let guard = match limit {
            _ if done => guard,
            None => self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.bell.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        done || ready()
    }

    /// The lock guards no data, so a panic elsewhere leaves nothing half done.
    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Look for a while; whether `ready` came to hold.
fn awake(ready: &impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            hint::spin_loop();
        }
        if start.elapsed() >= AWAKE {
            return ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn two_threads_that_wait_for_each_other_in_turn_never_miss_a_ring() {
        let (bell, turn) = (Bell::default(), AtomicU64::new(0));
        let play = |mine: u64| {
            for round in 0..2000 {
                bell.wait(|| turn.load(Ordering::SeqCst) == 2 * round + mine);
                if round % 100 == 0 {
                    thread::sleep(AWAKE * 3);
                }
                turn.fetch_add(1, Ordering::SeqCst);
                bell.ring();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| play(0));
            scope.spawn(|| play(1));
        });
        assert_eq!(turn.load(Ordering::SeqCst), 4000);
    }

    #[test]
    fn a_limited_wait_ends_without_a_ring() {
        let bell = Bell::default();
        assert!(!bell.wait_for(Duration::from_millis(1), || false));
        assert!(bell.wait_for(Duration::from_secs(1000), || true));
    }
}
