//! Nothing is allocated once a program is ready.

mod toy;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use half::bf16;
use sail_runtime::execute::{Outputs, Row, Tokens, Twin};
use sail_runtime::{Options, Program};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every method hands its arguments on to `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller keeps the trait's contract.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promises are those `System` asks for.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller keeps the trait's contract.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn vision_prefill_and_decode_allocate_nothing_from_the_first_call_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = toy::write(folder.path());
    let options = Options { threads: Some(2), slots: 1, times: true, ..Options::default() };
    let program = Program::open(&path, &options).unwrap();
    program.wait_verified().unwrap();
    let mut engine = program.engine();
    let (ids, image_rows) = ([7_u32; 100], [-1_i32; 100]);
    let go = AtomicBool::new(false);

    let before = ALLOCATIONS.load(Ordering::SeqCst);
    let mut fill = |_: std::ops::Range<usize>, out: &mut [bf16]| out.fill(bf16::ONE);
    engine.vision(Twin::Production, 7, &mut fill, &go, &mut |_| {}).unwrap();
    engine.hold(0, 100).unwrap();
    let tokens = Tokens { slot: 0, start: 0, ids: &ids, image_rows: &image_rows };
    engine.prefill(Twin::Production, tokens, Outputs::Last, &go, &mut |_| {}).unwrap();
    for position in 100..toy::POSITIONS {
        engine.hold(0, position + 1).unwrap();
        let row = Row { slot: 0, position, id: 3 };
        engine.decode(&[row], &go, &mut |_| {}).unwrap();
    }
    let after = ALLOCATIONS.load(Ordering::SeqCst);
    assert_eq!(after - before, 0);
}
