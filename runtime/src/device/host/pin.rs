//! Which processors we may use, and staying on one of them.

use std::mem;

/// Processors this process may run on, ascending; empty when the system does not say.
pub fn processors() -> Vec<usize> {
    // SAFETY: a `cpu_set_t` is an array of integers: zeros are an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the pointer and length are those of `set`; 0 is this thread.
    let result =
        unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Vec::new();
    }
    let size = usize::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    // SAFETY: every index is below `CPU_SETSIZE`, which is how many bits a set has.
    (0..size).filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) }).collect()
}

/// Keep the calling thread on `processor`; when the system refuses, it stays where it may be.
pub fn to(processor: usize) {
    // SAFETY: as in `processors`; the index came from there.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Let other threads go first: this one gets about a tenth of a processor that others want, too, and
/// all of one that nobody wants. When the system refuses, it is as any other.
pub fn give_way() {
    const NICE: libc::c_int = 10;
    // SAFETY: takes and gives numbers only; 0 is this thread, as Linux counts niceness by thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}
