//! Steps that touch the same bytes happen in an order that launches and waits enforce.

use super::verify::{Checked, PlanError};
use super::{Affine, Place};
use crate::id::{BufferId, Id, StepId};

/// Check the rules *defined* and *disjoint* of [`Plan::verify`](super::Plan::verify).
///
/// Expects buffers, launches and steps to have passed their own rules.
pub(super) fn check(checked: &Checked) -> Result<(), PlanError> {
    let before = Before::new(checked);
    let uses = Uses::new(checked);
    let residents = residents(checked);
    for (id, ..) in &residents {
        uses.of(*id).defined(checked, *id, &before)?;
    }
    for (index, first) in residents.iter().enumerate() {
        for second in &residents[index + 1..] {
            if !checked.overlap((first.1, first.2), (second.1, second.2)) {
                continue;
            }
            let (a, b) = (uses.of(first.0), uses.of(second.0));
            if !a.all_before(b, &before) && !b.all_before(a, &before) {
                return clash(checked, [*first, *second], [a, b]);
            }
        }
    }
    outside_the_arena(checked, &uses, &before)
}

/// Arena buffers with their offsets and bytes.
fn residents(checked: &Checked) -> Vec<(BufferId, Affine, Affine)> {
    let buffers = checked.function.buffers.iter();
    let arena = buffers.filter_map(|(id, buffer)| match buffer.place {
        Place::Arena { offset } => Some((id, offset, buffer.bytes)),
        _ => None,
    });
    arena.collect()
}

fn clash(
    checked: &Checked,
    residents: [(BufferId, Affine, Affine); 2],
    uses: [&Use; 2],
) -> Result<(), PlanError> {
    let say = |index: usize| {
        let (id, offset, bytes) = residents[index];
        let name = &checked.function.buffers[id].name;
        format!("`{name}` ({bytes} bytes at {offset}, steps {:?})", uses[index].users)
    };
    checked.refuse(
        "plan.disjoint",
        None,
        format!("{} and {} share bytes while both are in use", say(0), say(1)),
    )
}

/// Ports, taps, choices, counters and caches: any two steps that touch one, one of them writing, are ordered.
fn outside_the_arena(checked: &Checked, uses: &Uses, before: &Before) -> Result<(), PlanError> {
    let mut merged: Vec<(&Place, &str, Use)> = Vec::new();
    for (id, buffer) in checked.function.buffers.iter() {
        let (Place::Cache { .. }
        | Place::Port { .. }
        | Place::Tap { .. }
        | Place::Choice { .. }
        | Place::Counters) = buffer.place
        else {
            continue;
        };
        match merged.iter_mut().find(|(place, ..)| **place == buffer.place) {
            Some((_, _, together)) => together.merge(uses.of(id)),
            None => merged.push((&buffer.place, &buffer.name, uses.of(id).clone())),
        }
    }
    merged.iter().try_for_each(|(_, name, together)| together.ordered(checked, name, before))
}

/// Steps that touch a buffer, ascending.
#[derive(Clone, Default)]
struct Use {
    users: Vec<usize>,
    writers: Vec<usize>,
}

/// One row per buffer.
struct Uses(Vec<Use>);

impl Uses {
    fn new(checked: &Checked) -> Self {
        let mut uses = vec![Use::default(); checked.function.buffers.len()];
        for (id, step) in checked.function.steps.iter() {
            let kernel = &checked.plan.kernels[step.kernel];
            for (position, argument) in (0..).zip(&step.arguments) {
                let row = &mut uses[argument.index()];
                row.users.push(id.index());
                if kernel.writes.contains(&position) {
                    row.writers.push(id.index());
                }
            }
        }
        for row in &mut uses {
            row.users.dedup();
            row.writers.dedup();
        }
        Self(uses)
    }

    fn of(&self, id: BufferId) -> &Use {
        &self.0[id.index()]
    }
}

impl Use {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.users, &other.users), (&mut self.writers, &other.writers)]
        {
            mine.extend(theirs);
            mine.sort_unstable();
            mine.dedup();
        }
    }

    fn all_before(&self, other: &Self, before: &Before) -> bool {
        self.users.iter().all(|x| other.users.iter().all(|y| before.holds(*x, *y)))
    }

    /// The first use of an arena buffer writes it, and everybody else comes after that.
    fn defined(&self, checked: &Checked, id: BufferId, before: &Before) -> Result<(), PlanError> {
        let name = &checked.function.buffers[id].name;
        let step = |index: usize| {
            let label = &checked.function.steps[StepId::new(index)].label;
            Some(format!("step {index} `{label}`"))
        };
        let Some(first) = self.writers.first() else {
            return match self.users.first() {
                None => Ok(()),
                Some(user) => {
                    let because = format!("it reads `{name}`, which nobody writes");
                    checked.refuse("plan.defined", step(*user), because)
                }
            };
        };
        for user in self.users.iter().filter(|user| *user != first) {
            if !before.holds(*first, *user) {
                let because = format!("it may run before step {first} has written `{name}`");
                return checked.refuse("plan.defined", step(*user), because);
            }
        }
        self.ordered(checked, name, before)
    }

    /// Every writer is ordered against every other user.
    fn ordered(&self, checked: &Checked, name: &str, before: &Before) -> Result<(), PlanError> {
        for writer in &self.writers {
            for user in self.users.iter().filter(|user| *user != writer) {
                if !before.holds(*writer, *user) && !before.holds(*user, *writer) {
                    let because =
                        format!("steps {writer} and {user} may run at once, one writes `{name}`");
                    return checked.refuse("plan.disjoint", None, because);
                }
            }
        }
        Ok(())
    }
}

/// Which steps are finished before which start: by launch, or by waits, also indirect ones.
struct Before {
    /// Launch of each step.
    launch: Vec<usize>,
    /// For each step, the steps it waits for, as bits.
    ancestors: Vec<Vec<u64>>,
}

impl Before {
    fn new(checked: &Checked) -> Self {
        let steps = checked.function.steps.len();
        let mut launch = Vec::with_capacity(steps);
        for (index, row) in checked.function.launches.iter().enumerate() {
            launch.resize(row.steps[1].index(), index);
        }
        let mut ancestors: Vec<Vec<u64>> = Vec::with_capacity(steps);
        for (_, step) in checked.function.steps.iter() {
            let mut bits = vec![0; steps.div_ceil(64)];
            for wait in &step.waits {
                bits[wait.index() / 64] |= 1 << (wait.index() % 64);
                for (mine, theirs) in bits.iter_mut().zip(&ancestors[wait.index()]) {
                    *mine |= theirs;
                }
            }
            ancestors.push(bits);
        }
        Self { launch, ancestors }
    }

    fn holds(&self, first: usize, second: usize) -> bool {
        let waited = self.ancestors[second][first / 64] >> (first % 64) & 1 == 1;
        self.launch[first] < self.launch[second] || waited
    }
}
