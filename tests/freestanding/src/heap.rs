//! The allocator: blocks of powers of two out of one static arena, freed blocks kept by size; and it counts.
//!
//! The counts are of bytes asked for, so that the table does not depend on this allocator's rounding.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

const ARENA_BYTES: usize = 4 << 20;
const SIZES: usize = 23;

#[repr(align(4096))]
struct Arena([u8; ARENA_BYTES]);

struct State {
    arena: Arena,
    used: usize,
    /// Freed blocks by the logarithm of their size; each holds the address of the next.
    free: [*mut u8; SIZES],
    count: Count,
}

/// Bytes asked for and not given back, the most of them so far, and how often any were asked for.
#[derive(Clone, Copy)]
pub(crate) struct Count {
    pub(crate) bytes: usize,
    pub(crate) bytes_peak: usize,
    pub(crate) allocations: usize,
}

pub(crate) struct Heap(UnsafeCell<State>);

// SAFETY: the program has one thread and no signal handlers.
unsafe impl Sync for Heap {}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(State {
            arena: Arena([0; ARENA_BYTES]),
            used: 0,
            free: [null_mut(); SIZES],
            count: Count {
                bytes: 0,
                bytes_peak: 0,
                allocations: 0,
            },
        }))
    }

    #[cfg(feature = "vectors")]
    pub(crate) fn count(&self) -> Count {
        // SAFETY: one thread, and no reference to the state outlives a call.
        unsafe { (*self.0.get()).count }
    }

    /// Lets the peak begin anew at what is in use.
    #[cfg(feature = "vectors")]
    pub(crate) fn reset_peak(&self) {
        // SAFETY: as above.
        unsafe { (*self.0.get()).count.bytes_peak = (*self.0.get()).count.bytes }
    }
}

fn size_class(layout: Layout) -> usize {
    layout
        .size()
        .max(layout.align())
        .max(16)
        .next_power_of_two()
        .trailing_zeros() as usize
}

// SAFETY: blocks are disjoint, at least as large as asked, and aligned to their size (the arena is page-aligned, and
// each block begins at a multiple of its size).
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = size_class(layout);
        if class >= SIZES {
            return null_mut();
        }
        // SAFETY: one thread; the reference ends with this call.
        let state = unsafe { &mut *self.0.get() };
        let reused = state.free[class];
        let block = if reused.is_null() {
            let start = state.used.next_multiple_of(1 << class);
            if start + (1 << class) > ARENA_BYTES {
                return null_mut();
            }
            state.used = start + (1 << class);
            // SAFETY: within the arena, as just checked.
            unsafe { state.arena.0.as_mut_ptr().add(start) }
        } else {
            // SAFETY: a freed block holds the next one's address.
            state.free[class] = unsafe { reused.cast::<*mut u8>().read() };
            reused
        };
        state.count.bytes += layout.size();
        state.count.bytes_peak = state.count.bytes_peak.max(state.count.bytes);
        state.count.allocations += 1;
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: one thread; the block came from `alloc` with the same layout and has at least 16 bytes.
        unsafe {
            let state = &mut *self.0.get();
            block
                .cast::<*mut u8>()
                .write(state.free[size_class(layout)]);
            state.free[size_class(layout)] = block;
            state.count.bytes -= layout.size();
        }
    }
}
