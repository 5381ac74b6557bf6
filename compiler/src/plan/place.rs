//! Where in the arena every buffer of a function stands.
//!
//! Two areas: buffers that grow with the size class, and after them those that do not. In each,
//! largest first, every buffer takes the lowest offset at which nothing stands that is alive at the
//! same time. Offsets of the first area are per row of the class, so one placement serves all
//! classes and nothing overlaps in any of them.

use std::ops::RangeInclusive;

use sail_ir::plan::{ALIGNMENT, Affine};

/// A buffer to place: bytes, and the first and last step that touch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes at a class's bound; either `per_row` or `fixed` is zero.
    pub bytes: Affine,
    pub alive: RangeInclusive<usize>,
}

/// Offsets in the order of the requests, and the arena's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub offsets: Vec<Affine>,
    pub arena_bytes: Affine,
}

/// Place all buffers.
///
/// # Panics
///
/// When a request grows and has a fixed part as well: the plan builder never makes such.
#[must_use]
pub fn place(requests: &[Request]) -> Placement {
    let growing = area(requests, |bytes| bytes.per_row);
    let fixed = area(requests, |bytes| bytes.fixed);
    let offsets = requests
        .iter()
        .enumerate()
        .map(|(index, request)| {
            assert!(
                request.bytes.per_row == 0 || request.bytes.fixed == 0,
                "broken invariant `place.one_area`: {}",
                request.bytes
            );
            if request.bytes.per_row > 0 {
                Affine { per_row: growing.offsets[index], fixed: 0 }
            } else {
                Affine { per_row: growing.bytes, fixed: fixed.offsets[index] }
            }
        })
        .collect();
    Placement { offsets, arena_bytes: Affine { per_row: growing.bytes, fixed: fixed.bytes } }
}

/// Bytes a row of `row_bytes` reserves, so that every offset stays aligned in every class.
#[must_use]
pub fn reserved(row_bytes: u64) -> u64 {
    row_bytes.next_multiple_of(ALIGNMENT)
}

struct Area {
    offsets: Vec<u64>,
    bytes: u64,
}

fn area(requests: &[Request], size: impl Fn(&Affine) -> u64) -> Area {
    let mut order: Vec<usize> =
        (0..requests.len()).filter(|i| size(&requests[*i].bytes) > 0).collect();
    order.sort_by_key(|i| {
        (std::cmp::Reverse(size(&requests[*i].bytes)), *requests[*i].alive.start(), *i)
    });

    let mut offsets = vec![0; requests.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut bytes = 0;
    for index in order {
        let needed = size(&requests[index].bytes).next_multiple_of(ALIGNMENT);
        let mut offset = 0;
        for other in &placed {
            if !overlap(&requests[index].alive, &requests[*other].alive) {
                continue;
            }
            if offset + needed <= offsets[*other] {
                break;
            }
            let end = offsets[*other] + size(&requests[*other].bytes).next_multiple_of(ALIGNMENT);
            offset = offset.max(end);
        }
        offsets[index] = offset;
        bytes = bytes.max(offset + needed);
        let at = placed.partition_point(|other| offsets[*other] <= offset);
        placed.insert(at, index);
    }
    Area { offsets, bytes }
}

fn overlap(a: &RangeInclusive<usize>, b: &RangeInclusive<usize>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(per_row: u64, alive: RangeInclusive<usize>) -> Request {
        Request { bytes: Affine { per_row, fixed: 0 }, alive }
    }

    #[test]
    fn a_buffer_takes_the_place_of_one_that_nobody_reads_any_more() {
        let placement = place(&[growing(512, 0..=1), growing(256, 1..=2), growing(512, 2..=3)]);
        assert_eq!(placement.offsets.iter().map(|o| o.per_row).collect::<Vec<_>>(), [0, 512, 0]);
        assert_eq!(placement.arena_bytes, Affine { per_row: 768, fixed: 0 });
    }

    #[test]
    fn buffers_that_do_not_grow_stand_after_those_that_do() {
        let fixed = Request { bytes: Affine { per_row: 0, fixed: 100 }, alive: 0..=9 };
        let placement = place(&[growing(256, 0..=9), fixed.clone(), fixed]);
        assert_eq!(placement.offsets[1], Affine { per_row: 256, fixed: 0 });
        assert_eq!(placement.offsets[2], Affine { per_row: 256, fixed: 256 });
        assert_eq!(placement.arena_bytes, Affine { per_row: 256, fixed: 512 });
    }

    #[test]
    fn no_two_live_buffers_overlap_in_drawn_programs() {
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..50 {
            let requests: Vec<Request> = (0..40)
                .map(|_| {
                    let start = draw(30) as usize;
                    growing((draw(8) + 1) * 256, start..=start + draw(9) as usize)
                })
                .collect();
            let placement = place(&requests);
            for (i, a) in requests.iter().enumerate() {
                for (j, b) in requests.iter().enumerate().skip(i + 1) {
                    let (at_a, at_b) = (placement.offsets[i].per_row, placement.offsets[j].per_row);
                    let apart = at_a + a.bytes.per_row <= at_b || at_b + b.bytes.per_row <= at_a;
                    assert!(apart || !overlap(&a.alive, &b.alive), "{i} and {j} overlap");
                }
            }
        }
    }
}
