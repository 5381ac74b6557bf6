//! Shared memory of a block: bytes, and for each byte who wrote it last and who has read it since.

use std::collections::{HashMap, HashSet};

use crate::fault::Kind;
use crate::order::{Clock, MANY};

/// How a byte was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// By an ordinary store.
    Plain = 0,
    /// By asynchronous hardware of the other proxy.
    Async = 1,
    /// By a `cp.async` that nobody has waited for.
    Flying = 2,
    /// By an atomic, or a store that others may see at any time.
    Atomic = 3,
}

/// Who accesses: an agent's lane at a clock, as `clock` (a warp's) knows the world.
#[derive(Clone, Copy)]
pub(crate) struct Who<'c> {
    pub clock: &'c Clock,
    /// The lane that accesses, or that asked the hardware to.
    pub lane: u32,
    /// Agent and clock written into records: the warp's own for ordinary accesses.
    pub agent: u32,
    pub at: u32,
    /// Asynchronous hardware accesses.
    pub proxy: bool,
    /// The access is atomic, relaxed or volatile.
    pub atomic: bool,
}

impl<'c> Who<'c> {
    pub(crate) fn thread(clock: &'c Clock, lane: u32) -> Self {
        Self { clock, lane, agent: clock.agent, at: clock.now, proxy: false, atomic: false }
    }

    pub(crate) fn hardware(clock: &'c Clock, lane: u32, agent: u32, at: u32) -> Self {
        Self { clock, lane, agent, at, proxy: true, atomic: false }
    }

    fn record(&self, tag: u64) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.agent) << 16 | u64::from(self.lane) << 8 | tag
    }
}

const SET: u64 = 1;
const KIND: u64 = 3 << 1;
/// A reader record that names a list of readers.
const LIST: u64 = 2;

fn parts(record: u64) -> (u32, u32, u32) {
    ((record >> 16) as u32 & 0xffff, (record >> 8) as u32 & 0xff, (record >> 32) as u32)
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    written: Vec<u64>,
    read: Vec<u64>,
    readers: Vec<Vec<u64>>,
    lists: HashMap<Vec<u64>, u64>,
    /// The last question to `reader` and its answer.
    last: (u64, u64, u64),
}

pub(crate) type Verdict = Result<(), (Kind, String)>;

impl Shared {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            written: vec![0; bytes],
            read: vec![0; bytes],
            ..Self::default()
        }
    }

    /// Is the access inside, and at a multiple of `align`?
    pub(crate) fn holds(&self, at: u64, bytes: u64, align: u64) -> Verdict {
        let all = self.bytes.len() as u64;
        if at.checked_add(bytes).is_none_or(|end| end > all) {
            let text = format!("{bytes} bytes at {at:#x} of shared memory, which has {all}");
            return Err((Kind::OutOfBounds, text));
        }
        if !at.is_multiple_of(align) {
            let text = format!("shared address {at:#x} is no multiple of {align}");
            return Err((Kind::Misaligned, text));
        }
        Ok(())
    }

    pub(crate) fn get(&self, at: u64, size: u32) -> u64 {
        let mut word = [0; 8];
        word[..size as usize]
            .copy_from_slice(&self.bytes[at as usize..at as usize + size as usize]);
        u64::from_le_bytes(word)
    }

    pub(crate) fn put(&mut self, at: u64, size: u32, value: u64) {
        let bytes = value.to_le_bytes();
        self.bytes[at as usize..at as usize + size as usize]
            .copy_from_slice(&bytes[..size as usize]);
    }

    /// Look at and note a read of bytes that [`Shared::holds`].
    pub(crate) fn note_read(&mut self, at: u64, bytes: u64, who: &Who) -> Verdict {
        let (mut last, mut verdict) = ((u64::MAX, u64::MAX), 0);
        for at in at as usize..(at + bytes) as usize {
            let now = (self.written[at], self.read[at]);
            if now != last {
                Self::may_read(at, now.0, who)?;
                verdict = self.reader(now.1, who);
                last = now;
            }
            self.read[at] = verdict;
        }
        Ok(())
    }

    fn may_read(at: usize, written: u64, who: &Who) -> Verdict {
        if written & SET == 0 {
            return Err((
                Kind::Uninitialised,
                format!("byte {at:#x} of shared memory was never written"),
            ));
        }
        Self::after_write(at, written, who, "read")?;
        let (agent, lane, clock) = parts(written);
        let plain = written & KIND != (Written::Async as u64) << 1;
        if plain && who.proxy && !who.clock.proxied(who.lane, agent, lane, clock) {
            let text = format!(
                "asynchronous hardware reads byte {at:#x} of shared memory, which {} wrote, without \
                 `fence.proxy.async` between",
                name(agent, lane)
            );
            return Err((Kind::Proxy, text));
        }
        Ok(())
    }

    fn after_write(at: usize, written: u64, who: &Who, verb: &str) -> Verdict {
        if written & SET == 0 {
            return Ok(());
        }
        let (agent, lane, clock) = parts(written);
        let kind = (written & KIND) >> 1;
        if kind == Written::Flying as u64 {
            let text = format!(
                "byte {at:#x} of shared memory is {verb} while a `cp.async` of {} writes it and was \
                 not waited for",
                name(agent, lane)
            );
            return Err((Kind::InFlight, text));
        }
        if kind == Written::Atomic as u64 && who.atomic {
            return Ok(());
        }
        if who.clock.after(who.lane, agent, lane, clock) {
            return Ok(());
        }
        if kind == Written::Async as u64 {
            let text = format!(
                "byte {at:#x} of shared memory is {verb} before the wait for the asynchronous copy \
                 that writes it"
            );
            return Err((Kind::InFlight, text));
        }
        let text = format!(
            "byte {at:#x} of shared memory is {verb} although {} wrote it and nothing orders the two",
            name(agent, lane)
        );
        Err((Kind::Race, text))
    }

    /// The record of readers `old` with `who` in it. Lists are shared between bytes, so never changed.
    fn reader(&mut self, old: u64, who: &Who) -> u64 {
        let mine = who.record(SET);
        if old == 0 || old == mine {
            return mine;
        }
        if (old, mine) == (self.last.0, self.last.1) {
            return self.last.2;
        }
        let mut list = match old & LIST {
            0 => vec![old],
            _ => self.readers[(old >> 32) as usize].clone(),
        };
        match list.iter_mut().find_map(|entry| Some((merged(*entry, mine, who)?, entry))) {
            Some((both, entry)) => *entry = both,
            None => list.push(mine),
        }
        let new = match list[..] {
            [one] => one,
            _ => self.listed(list),
        };
        self.last = (old, mine, new);
        new
    }

    /// The record that stands for a list.
    fn listed(&mut self, list: Vec<u64>) -> u64 {
        let next = self.readers.len() as u64;
        let index = *self.lists.entry(list.clone()).or_insert(next);
        if index == next {
            self.readers.push(list);
        }
        index << 32 | LIST
    }

    /// Look at and note a write of bytes that [`Shared::holds`].
    pub(crate) fn note_write(&mut self, at: u64, bytes: u64, how: Written, who: &Who) -> Verdict {
        let mut last = (u64::MAX, u64::MAX);
        let record = who.record(SET | (how as u64) << 1);
        for at in at as usize..(at + bytes) as usize {
            let now = (self.written[at], self.read[at]);
            if now != last {
                self.may_write(at, now, who)?;
                last = now;
            }
            let (agent, _, clock) = parts(now.0);
            let mine = now.0 & SET != 0 && agent == who.agent && clock >= who.clock.met;
            // An atomic hides no ordinary write that nobody was told of yet.
            if !(how == Written::Atomic && mine && now.0 & KIND == 0) {
                self.written[at] = record;
            }
            self.read[at] = 0;
        }
        Ok(())
    }

    fn may_write(&self, at: usize, (written, read): (u64, u64), who: &Who) -> Verdict {
        Self::after_write(at, written, who, "written")?;
        for reader in self.readers_of(&read) {
            let (agent, lane, clock) = parts(*reader);
            if !who.clock.after(who.lane, agent, lane, clock) {
                let text = format!(
                    "byte {at:#x} of shared memory is written although {} reads it and nothing orders \
                     the two",
                    name(agent, lane)
                );
                return Err((Kind::Race, text));
            }
        }
        Ok(())
    }

    /// Is everything that agents of which `is_other` holds did here before what one of `clocks` knows?
    pub(crate) fn known(&self, is_other: impl Fn(u32) -> bool, clocks: &[Clock]) -> Verdict {
        let knows = |record: u64| {
            let (agent, lane, clock) = parts(record);
            let after = |other: &Clock| (0..32).any(|my| other.after(my, agent, lane, clock));
            !is_other(agent) || clocks.iter().any(after)
        };
        let mut seen = HashSet::new();
        for (at, (written, read)) in self.written.iter().zip(&self.read).enumerate() {
            if !seen.insert((*written, *read)) {
                continue;
            }
            let readers = self.readers_of(read);
            let written = (*written != 0).then_some(written);
            if let Some(record) = written.into_iter().chain(readers).find(|it| !knows(**it)) {
                let (agent, lane, _) = parts(*record);
                let text = format!(
                    "the block leaves while {} is at byte {at:#x} of its shared memory, and nothing \
                     orders the two",
                    name(agent, lane)
                );
                return Err((Kind::Race, text));
            }
        }
        Ok(())
    }

    /// The records that stand in the place of readers.
    fn readers_of<'r>(&'r self, read: &'r u64) -> &'r [u64] {
        match read {
            0 => &[],
            list if list & LIST != 0 => &self.readers[(list >> 32) as usize],
            _ => std::slice::from_ref(read),
        }
    }

    /// A `cp.async` into these bytes was waited for: now `who` has written them.
    pub(crate) fn land(&mut self, at: u64, bytes: u64, who: &Who) {
        let record = who.record(SET);
        self.written[at as usize..(at + bytes) as usize].fill(record);
    }
}

/// One record for two readers, where one stands for both.
fn merged(old: u64, mine: u64, who: &Who) -> Option<u64> {
    let (agent, lane, clock) = parts(old);
    if agent != who.agent {
        // A reader that is ordered before me is before all that is ordered after me.
        return who.clock.after(who.lane, agent, lane, clock).then_some(mine);
    }
    if who.proxy || lane == parts(mine).1 {
        return (lane == parts(mine).1).then_some(mine);
    }
    if agent == who.clock.agent && clock < who.clock.met {
        return Some(mine);
    }
    let clock = clock.max(who.at);
    Some(u64::from(clock) << 32 | u64::from(agent) << 16 | u64::from(MANY) << 8 | SET)
}

/// Words for the thread of a record.
fn name(agent: u32, lane: u32) -> String {
    match lane {
        MANY => format!("threads of warp {agent}"),
        _ => format!("lane {lane} of warp {agent}"),
    }
}
