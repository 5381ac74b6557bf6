//! What is known to have happened before: clocks of agents, and of single lanes among them.
//!
//! An agent is a warp, or asynchronous hardware that works for one. A warp's clock ticks whenever it
//! publishes something; what a thread did at a clock is ordered before whoever has learned of that
//! clock. A lane that publishes alone vouches for itself and for what its warp did before the warp's
//! last meeting, not for what other lanes did since.

/// Clocks learned so far. Cheap to copy: a few words an agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    agents: Vec<u32>,
    /// Agent, lane and clock of lanes that published alone.
    lanes: Vec<(u32, u32, u32)>,
}

impl Known {
    pub(crate) fn agent(&self, agent: u32) -> u32 {
        self.agents.get(agent as usize).copied().unwrap_or(0)
    }

    pub(crate) fn learn(&mut self, agent: u32, clock: u32) {
        let at = agent as usize;
        if self.agents.len() <= at {
            self.agents.resize(at + 1, 0);
        }
        self.agents[at] = self.agents[at].max(clock);
    }

    pub(crate) fn learn_lane(&mut self, agent: u32, lane: u32, clock: u32) {
        if self.agent(agent) >= clock {
            return;
        }
        match self.lanes.iter_mut().find(|(a, l, _)| (*a, *l) == (agent, lane)) {
            Some((_, _, known)) => *known = clock.max(*known),
            None => self.lanes.push((agent, lane, clock)),
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if self.agents.len() < other.agents.len() {
            self.agents.resize(other.agents.len(), 0);
        }
        for (mine, theirs) in self.agents.iter_mut().zip(&other.agents) {
            *mine = (*mine).max(*theirs);
        }
        for &(agent, lane, clock) in &other.lanes {
            self.learn_lane(agent, lane, clock);
        }
        let agents = &self.agents;
        self.lanes.retain(|(agent, _, clock)| {
            agents.get(*agent as usize).is_none_or(|known| known < clock)
        });
    }

    pub(crate) fn covers(&self, agent: u32, lane: u32, clock: u32) -> bool {
        self.agent(agent) >= clock
            || self.lanes.iter().any(|(a, l, c)| (*a, *l) == (agent, lane) && *c >= clock)
    }
}

/// What a thread passes on: what happened before; what of it asynchronous hardware may see; and the
/// same of other blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    pub order: Known,
    pub proxy: Known,
    pub blocks: Vec<(u32, Known)>,
}

impl Knowledge {
    pub(crate) fn join(&mut self, other: &Self) {
        self.order.join(&other.order);
        self.proxy.join(&other.proxy);
        for (block, theirs) in &other.blocks {
            self.of_block(*block).join(theirs);
        }
    }

    pub(crate) fn of_block(&mut self, block: u32) -> &mut Known {
        let at = match self.blocks.iter().position(|(it, _)| *it == block) {
            Some(at) => at,
            None => {
                self.blocks.push((block, Known::default()));
                self.blocks.len() - 1
            }
        };
        &mut self.blocks[at].1
    }
}

/// A warp's clock and what its lanes know.
#[derive(Debug)]
pub(crate) struct Clock {
    pub agent: u32,
    pub now: u32,
    /// The clock after the last meeting of all its lanes.
    pub met: u32,
    pub knowledge: Knowledge,
    /// What only some lanes have learned since.
    pub some: Vec<(u32, Knowledge)>,
    /// What unordered reads of shared words have seen: learned at the next fence.
    pub seen: Vec<(u32, Knowledge)>,
    /// Lanes that fenced since they last published, and what they knew then.
    pub fenced: u32,
}

/// Lane of a record that stands for several lanes of a warp.
pub(crate) const MANY: u32 = 32;

impl Clock {
    pub(crate) fn new(agent: u32) -> Self {
        Self {
            agent,
            now: 1,
            met: 1,
            knowledge: Knowledge::default(),
            some: Vec::new(),
            seen: Vec::new(),
            fenced: 0,
        }
    }

    /// Is what `agent` did at `clock` in `lane` before what my `lane` does now?
    pub(crate) fn after(&self, my_lane: u32, agent: u32, lane: u32, clock: u32) -> bool {
        let myself = lane == my_lane && lane != MANY;
        if agent == self.agent && (myself || clock < self.met) {
            return true;
        }
        (agent != self.agent && self.knowledge.order.covers(agent, lane, clock))
            || self.some.iter().any(|(mask, more)| {
                my_lane < 32 && mask >> my_lane & 1 == 1 && more.order.covers(agent, lane, clock)
            })
    }

    /// May asynchronous hardware that my `lane` starts now see what was written so?
    pub(crate) fn proxied(&self, my_lane: u32, agent: u32, lane: u32, clock: u32) -> bool {
        self.knowledge.proxy.covers(agent, lane, clock)
            || self.some.iter().any(|(mask, more)| {
                my_lane < 32 && mask >> my_lane & 1 == 1 && more.proxy.covers(agent, lane, clock)
            })
    }

    /// The same for another block of the grid.
    pub(crate) fn after_block(
        &self,
        my_lane: u32,
        block: u32,
        agent: u32,
        lane: u32,
        clock: u32,
    ) -> bool {
        let knows = |knowledge: &Knowledge| {
            knowledge
                .blocks
                .iter()
                .any(|(b, known)| *b == block && known.covers(agent, lane, clock))
        };
        knows(&self.knowledge)
            || self
                .some
                .iter()
                .any(|(mask, more)| my_lane < 32 && mask >> my_lane & 1 == 1 && knows(more))
    }

    /// What lanes `mask` of `live` vouch for now; the clock ticks.
    pub(crate) fn publish(&mut self, mask: u32, live: u32, block: u32) -> Knowledge {
        let mut out = self.knowledge.clone();
        for (lanes, more) in &self.some {
            if lanes & mask != 0 {
                out.join(more);
            }
        }
        let whole = mask & live == live;
        let up_to = if whole { self.now } else { self.met.saturating_sub(1) };
        out.order.learn(self.agent, up_to);
        if !whole {
            for lane in lanes(mask) {
                out.order.learn_lane(self.agent, lane, self.now);
            }
        }
        let order = out.order.clone();
        out.of_block(block).join(&order);
        self.now += 1;
        out
    }

    /// Lanes `mask` of `live` learn what was published.
    pub(crate) fn learn(&mut self, mask: u32, live: u32, knowledge: &Knowledge) {
        if mask & live == live {
            self.knowledge.join(knowledge);
            return;
        }
        match self.some.iter_mut().find(|(lanes, _)| *lanes == mask) {
            Some((_, known)) => known.join(knowledge),
            None => self.some.push((mask, knowledge.clone())),
        }
    }

    /// `lanes` read, without acquiring, a word that `knowledge` was published through.
    pub(crate) fn see(&mut self, lanes: u32, knowledge: &Knowledge) {
        match self.seen.iter_mut().find(|(mask, _)| *mask == lanes) {
            Some((_, known)) => known.join(knowledge),
            None => self.seen.push((lanes, knowledge.clone())),
        }
    }

    /// A fence of lanes `exec`: what they read before is acquired, what they write after releases.
    pub(crate) fn fence(&mut self, exec: u32, live: u32) {
        self.fenced |= exec;
        let (mine, rest) =
            std::mem::take(&mut self.seen).into_iter().partition(|(mask, _)| mask & exec == *mask);
        self.seen = rest;
        let mine: Vec<(u32, Knowledge)> = mine;
        for (mask, known) in mine {
            self.learn(mask, live, &known);
        }
    }

    /// All lanes meet: what one knows, all know.
    pub(crate) fn meet(&mut self) {
        self.now += 1;
        self.met = self.now;
        for (_, more) in std::mem::take(&mut self.some) {
            self.knowledge.join(&more);
        }
    }

    /// Ordinary writes known to lanes `mask` become visible to asynchronous hardware.
    pub(crate) fn fence_proxy(&mut self, mask: u32, live: u32) {
        let whole = mask & live == live;
        let mut more = Knowledge::default();
        more.proxy.join(&self.knowledge.order);
        for (lanes, known) in &mut self.some {
            if *lanes & mask == *lanes {
                let order = known.order.clone();
                known.proxy.join(&order);
            }
        }
        more.proxy.learn(self.agent, if whole { self.now } else { self.met.saturating_sub(1) });
        for lane in lanes(mask) {
            more.proxy.learn_lane(self.agent, lane, self.now);
        }
        // What follows the fence must differ from what it covers.
        self.now += 1;
        self.learn(mask, live, &more);
    }
}

/// Numbers of the lanes in `mask`.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = u32> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_vouches_for_itself_and_for_what_was_before_the_meeting() {
        let mut a = Clock::new(0);
        let mut b = Clock::new(1);
        let before = a.now;
        a.meet();
        let since = a.now;
        let published = a.publish(1, u32::MAX, 0);
        b.learn(u32::MAX, u32::MAX, &published);
        assert!(b.after(5, 0, 3, before));
        assert!(b.after(5, 0, 0, since));
        assert!(!b.after(5, 0, 3, since));
        assert!(!a.after(4, 0, 3, since));
        a.meet();
        assert!(a.after(4, 0, 3, since));
    }

    #[test]
    fn what_one_lane_learned_the_warp_knows_after_meeting() {
        let mut a = Clock::new(0);
        let mut b = Clock::new(1);
        let published = a.publish(u32::MAX, u32::MAX, 0);
        b.learn(1, u32::MAX, &published);
        assert!(b.after(0, 0, 9, 1) && !b.after(1, 0, 9, 1));
        b.meet();
        assert!(b.after(1, 0, 9, 1));
    }
}
