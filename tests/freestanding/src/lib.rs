//! The protocol crate in a program that has nothing: own entry, own allocator, own panic handler, no library.
//!
//! Two programs, one feature each: `vectors` runs the golden vectors and prints what a connection costs in memory;
//! `device` is the smallest whole device, on standard input and output, for the size of its code.
#![no_std]
extern crate alloc;

mod heap;
mod system;

#[cfg(feature = "vectors")]
#[path = "../../../protocol/tests/vectors/check.rs"]
mod check;
#[cfg(feature = "device")]
mod device;
#[cfg(feature = "vectors")]
mod memory;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // The words of a panic cost more code than a device has to spare.
    #[cfg(feature = "vectors")]
    system::print(format_args!("{info}\n"));
    #[cfg(not(feature = "vectors"))]
    let _ = info;
    system::exit(101)
}

/// The hosted target's own core and alloc are compiled for unwinding and name these two, in tables that nothing reads where
/// a panic ends the program. The libraries of bare-metal targets are compiled without.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    system::exit(102)
}

/// What `_start` calls, on an aligned stack.
#[unsafe(no_mangle)]
extern "C" fn run() -> ! {
    #[cfg(feature = "vectors")]
    {
        let checked = [
            check::packets(),
            check::rejected(),
            check::messages(),
            check::rejected_messages(),
            check::frames(),
        ];
        system::print(format_args!(
            "golden vectors passed: {}\n",
            checked.iter().sum::<usize>()
        ));
        memory::print_table();
    }
    #[cfg(feature = "device")]
    device::run();
    system::exit(0)
}
