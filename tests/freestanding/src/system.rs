//! The four things asked of Linux, by bare system calls.

use core::arch::{asm, global_asm};
use core::fmt;

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call run",
    "ud2",
);

#[cfg(feature = "device")]
const READ: usize = 0;
const WRITE: usize = 1;
#[cfg(feature = "device")]
const POLL: usize = 7;
const EXIT: usize = 60;
#[cfg(feature = "device")]
const CLOCK_GETTIME: usize = 228;

/// # Safety
/// The arguments must be what the numbered call demands (syscall(2), x86-64).
unsafe fn call(number: usize, arguments: [usize; 3]) -> isize {
    let result;
    // SAFETY: the caller vouches for the arguments; the kernel keeps every register but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// Writes all of `bytes` to standard output.
pub(crate) fn write(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for its length.
        let written = unsafe { call(WRITE, [1, bytes.as_ptr() as usize, bytes.len()]) };
        let Ok(written) = usize::try_from(written) else {
            exit(1)
        };
        bytes = &bytes[written..];
    }
}

/// Reads what standard input has; 0 at its end.
#[cfg(feature = "device")]
pub(crate) fn read(buffer: &mut [u8]) -> usize {
    // SAFETY: the slice is valid and writable for its length.
    let got = unsafe { call(READ, [0, buffer.as_mut_ptr() as usize, buffer.len()]) };
    usize::try_from(got).unwrap_or(0)
}

/// Waits until standard input has bytes, or for `millis`; says whether it has.
#[cfg(feature = "device")]
pub(crate) fn wait(millis: i32) -> bool {
    // struct pollfd { int fd; short events; short revents; } with POLLIN.
    let mut poll: [u32; 2] = [0, 1];
    // SAFETY: one pollfd, valid and writable.
    unsafe { call(POLL, [poll.as_mut_ptr() as usize, 1, millis as usize]) > 0 }
}

/// Microseconds of the monotonic clock.
#[cfg(feature = "device")]
pub(crate) fn micros() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: clock 1 is CLOCK_MONOTONIC; a timespec has two 64-bit fields.
    unsafe { call(CLOCK_GETTIME, [1, time.as_mut_ptr() as usize, 0]) };
    time[0] * 1_000_000 + time[1] / 1_000
}

/// 32 bytes of the kernel's randomness.
#[cfg(all(feature = "device", feature = "secure"))]
pub(crate) fn random() -> [u8; 32] {
    const GETRANDOM: usize = 318;
    let mut bytes = [0u8; 32];
    // SAFETY: the array is valid and writable for its length; so few bytes are given whole.
    if unsafe { call(GETRANDOM, [bytes.as_mut_ptr() as usize, bytes.len(), 0]) } != 32 {
        exit(2);
    }
    bytes
}

pub(crate) fn exit(code: usize) -> ! {
    loop {
        // SAFETY: exit takes any number.
        unsafe { call(EXIT, [code, 0, 0]) };
    }
}

#[cfg(feature = "vectors")]
pub(crate) fn print(text: fmt::Arguments<'_>) {
    struct Output;
    impl fmt::Write for Output {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            write(text.as_bytes());
            Ok(())
        }
    }
    // Output never fails.
    let _ = fmt::Write::write_fmt(&mut Output, text);
}

#[cfg(not(feature = "vectors"))]
const _: fn(fmt::Arguments<'_>) = |_| {};
