//! Which steps a step must wait for: the dependence graph, reduced to what is not implied.
//!
//! A step depends on the last writer of everything it reads, and, because the arena is reused, on
//! every earlier step that touched the bytes it writes. Implied dependences are dropped, so a
//! step's list is short and each entry is one counter the device looks at.

use std::collections::BTreeSet;

use petgraph::adj::{List, UnweightedList};
use petgraph::algo::tred::{dag_to_toposorted_adjacency_list, dag_transitive_reduction_closure};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::IntoNeighbors;

/// What a step touches, in units the caller chose: two accesses conflict when they name the same
/// storage and their byte ranges overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accesses {
    pub reads: Vec<Span>,
    pub writes: Vec<Span>,
}

/// Bytes `start..end` of one storage (the growing area, the fixed area, a port, a cache, …).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub storage: u64,
    pub start: u64,
    pub end: u64,
}

impl Span {
    fn conflicts(&self, other: &Self) -> bool {
        self.storage == other.storage && self.start < other.end && other.start < self.end
    }
}

/// For each step, in execution order, the earlier steps it must wait for.
#[must_use]
pub fn waits(steps: &[Accesses]) -> Vec<Vec<usize>> {
    let graph = dependences(steps);
    let topological: Vec<NodeIndex> = graph.node_indices().collect(); // execution order is one
    let (list, _): (UnweightedList<u32>, _) =
        dag_to_toposorted_adjacency_list(&graph, &topological);
    let (reduced, _): (List<(), u32>, _) = dag_transitive_reduction_closure(&list);
    let mut waits = vec![Vec::new(); steps.len()];
    for from in 0..steps.len() {
        let from_node = u32::try_from(from).expect("fewer than 2^32 steps");
        for to in (&reduced).neighbors(from_node) {
            waits[to as usize].push(from);
        }
    }
    waits
}

fn dependences(steps: &[Accesses]) -> DiGraph<(), ()> {
    let mut graph = DiGraph::new();
    for _ in steps {
        graph.add_node(());
    }
    for (later, step) in steps.iter().enumerate() {
        let mut found = BTreeSet::new();
        for (earlier, before) in steps[..later].iter().enumerate() {
            let read_after_write = hits(&step.reads, &before.writes);
            let write_after =
                hits(&step.writes, &before.reads) || hits(&step.writes, &before.writes);
            if read_after_write || write_after {
                found.insert(earlier);
            }
        }
        for earlier in found {
            graph.add_edge(NodeIndex::new(earlier), NodeIndex::new(later), ());
        }
    }
    graph
}

fn hits(a: &[Span], b: &[Span]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.conflicts(y)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(storage: u64, start: u64, end: u64) -> Span {
        Span { storage, start, end }
    }

    fn step(reads: &[Span], writes: &[Span]) -> Accesses {
        Accesses { reads: reads.to_vec(), writes: writes.to_vec() }
    }

    #[test]
    fn a_reader_waits_for_the_writer_and_not_for_what_that_implies() {
        let (a, b, c) = (span(0, 0, 4), span(0, 4, 8), span(0, 8, 12));
        let steps = [step(&[], &[a]), step(&[a], &[b]), step(&[a, b], &[c])];
        assert_eq!(waits(&steps), [vec![], vec![0], vec![1]]);
    }

    #[test]
    fn a_writer_waits_for_the_readers_of_the_bytes_it_takes_over() {
        let (a, b) = (span(0, 0, 8), span(1, 0, 8));
        let reused = span(0, 4, 12);
        let steps = [step(&[], &[a]), step(&[a], &[b]), step(&[], &[reused])];
        assert_eq!(waits(&steps), [vec![], vec![0], vec![1]]);
    }

    #[test]
    fn unrelated_steps_wait_for_nobody() {
        let steps = [step(&[], &[span(0, 0, 4)]), step(&[], &[span(0, 4, 8)])];
        assert_eq!(waits(&steps), [Vec::<usize>::new(), vec![]]);
    }
}
