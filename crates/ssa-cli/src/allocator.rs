//! Where memory is missing, the program ends with a message and an exit code.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

use ssa_kernels::allocation_is_checked;

use crate::exit;

/// Lets libraries in C, such as zstd, share one heap. Otherwise glibc reserves 128 MiB of addresses
/// for each thread that allocates, which `ulimit -v` counts.
pub(crate) fn share_c_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// An allocator `A` that ends the program if it has no memory, unless the caller turns that into an
/// error. Otherwise the standard library would abort the program.
pub(crate) struct Exiting<A>(pub(crate) A);

impl<A> Exiting<A> {
    fn checked(memory: *mut u8, bytes: usize) -> *mut u8 {
        if memory.is_null() && !allocation_is_checked() {
            exit::without_memory(bytes);
        }
        memory
    }
}

// SAFETY: all memory is that of `A`.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Exiting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same conditions.
        Self::checked(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::checked(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::checked(unsafe { self.0.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(memory, layout) }
    }
}
