//! How much memory this thread holds: the only way to see a queue that grows without limit.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note(bytes: isize) {
    LIVE.with(|cell| {
        let (live, peak) = cell.get();
        cell.set((live + bytes, peak.max(live + bytes)));
    });
}

// SAFETY: every call goes on to the system's allocator; counting touches a thread-local cell that needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Runs `run`; gives its result and the most bytes that it held at a time.
pub(crate) fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set((0, 0));
    let result = run();
    (result, LIVE.get().1.unsigned_abs())
}
