//! Where threads that took different ways meet again: immediate post-dominators of branches.

use crate::code::{Instruction, NONE, Op};

/// Fill in where each branch's ways join. A branch whose ways meet only at the end gets `NONE`.
pub(crate) fn join_branches(code: &mut [Instruction]) {
    let blocks = blocks(code);
    let exit = blocks.len();
    let block_at = |pc: usize| blocks.partition_point(|start| *start <= pc) - 1;
    let mut next: Vec<Vec<usize>> = Vec::new();
    for (at, start) in blocks.iter().enumerate() {
        let end = blocks.get(at + 1).copied().unwrap_or(code.len());
        let last = &code[end - 1];
        let falls = if end == code.len() { exit } else { at + 1 };
        let mut ways = Vec::new();
        match &last.op {
            Op::BranchTable { targets, .. } => {
                ways.extend(targets.iter().map(|target| block_at(*target as usize)));
                if last.guard.is_some() {
                    ways.push(falls);
                }
            }
            Op::Branch { target, .. } => {
                let target = *target as usize;
                ways.push(if target == code.len() { exit } else { block_at(target) });
                if last.guard.is_some() {
                    ways.push(falls);
                }
            }
            Op::Exit | Op::Trap => {
                ways.push(exit);
                if last.guard.is_some() {
                    ways.push(falls);
                }
            }
            _ => ways.push(falls),
        }
        debug_assert!(end > *start, "a block has an instruction");
        next.push(ways);
    }
    let dominators = post_dominators(&next, exit);
    for (at, dominator) in dominators.iter().enumerate() {
        let end = blocks.get(at + 1).copied().unwrap_or(code.len());
        let op = &mut code[end - 1].op;
        if let Op::Branch { join, .. } | Op::BranchTable { join, .. } = op {
            *join = match dominator {
                Some(block) if *block != exit => blocks[*block] as u32,
                _ => NONE,
            };
        }
    }
}

fn blocks(code: &[Instruction]) -> Vec<usize> {
    let mut starts = vec![0];
    for (at, instruction) in code.iter().enumerate() {
        if let Op::Branch { target, .. } = instruction.op {
            starts.extend([target as usize, at + 1]);
        } else if let Op::BranchTable { targets, .. } = &instruction.op {
            starts.extend(targets.iter().map(|target| *target as usize));
            starts.push(at + 1);
        } else if matches!(instruction.op, Op::Exit | Op::Trap) {
            starts.push(at + 1);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|start| *start < code.len());
    starts
}

/// Of each block the nearest one that every way to the end passes; `None` for blocks that reach no end.
fn post_dominators(next: &[Vec<usize>], exit: usize) -> Vec<Option<usize>> {
    // Order blocks by a walk from the end, so that what dominates comes first.
    let mut before = vec![Vec::new(); exit + 1];
    for (at, ways) in next.iter().enumerate() {
        for way in ways {
            before[*way].push(at);
        }
    }
    let mut order = Vec::new();
    let mut seen = vec![false; exit + 1];
    let mut open = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((block, child)) = open.pop() {
        match before[block].get(child) {
            Some(&way) => {
                open.push((block, child + 1));
                if !seen[way] {
                    seen[way] = true;
                    open.push((way, 0));
                }
            }
            None => order.push(block),
        }
    }
    let mut rank = vec![0; exit + 1];
    for (at, block) in order.iter().enumerate() {
        rank[*block] = at;
    }
    let mut found: Vec<Option<usize>> = vec![None; exit + 1];
    found[exit] = Some(exit);
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev().filter(|block| **block != exit) {
            let mut meet: Option<usize> = None;
            for &way in next[block].iter().filter(|way| found[**way].is_some()) {
                meet = Some(match meet {
                    None => way,
                    Some(other) => intersect(&found, &rank, other, way),
                });
            }
            if meet != found[block] {
                found[block] = meet;
                changed = true;
            }
        }
    }
    found.truncate(exit);
    found
}

fn intersect(found: &[Option<usize>], rank: &[usize], a: usize, b: usize) -> usize {
    let up = |block: usize| found[block].expect("a block in the meet was reached");
    let (mut a, mut b) = (a, b);
    while a != b {
        while rank[a] < rank[b] {
            a = up(a);
        }
        while rank[b] < rank[a] {
            b = up(b);
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::post_dominators;

    #[test]
    fn ways_of_a_branch_and_of_a_loop_meet() {
        // 0 → 1, 2; 1 → 3; 2 → 3; 3 → 3, 4; 4 → end
        let next = [vec![1, 2], vec![3], vec![3], vec![3, 4], vec![5]];
        let found = post_dominators(&next, 5);
        assert_eq!(found, [Some(3), Some(3), Some(3), Some(4), Some(5)]);
    }
}
