//! The C library's heap, in a process that is ours to arrange: a worker.
//!
//! A task that fills some megabytes and lets them go leaves them free at the heap's end, and the C
//! library gives that back to the kernel at once: the next task pays a page fault for every page
//! anew, which can cost as much as its work. A worker keeps them until it is idle.
//!
//! Safety: unsafe for two calls of the C library that take numbers and touch its own books, under
//! its own locks.

#![allow(unsafe_code)]

/// Freed memory at the heap's end stays up to so many bytes, and single pieces up to half of it come
/// from the heap. It is what glibc arrives at by itself in a process that has once freed such a piece.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 64 << 20;
/// What the heap grows by at least.
#[cfg(target_env = "gnu")]
const STEP: libc::c_int = 1 << 20;

/// Has the C library keep freed memory for what comes next. Does nothing if the environment says how
/// that is to be done, or the C library has no such choice.
pub fn keep_freed() {
    let told = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        name.starts_with("MALLOC_") || (name == "GLIBC_TUNABLES" && value.contains("glibc.malloc"))
    };
    if std::env::vars_os().any(told) {
        return;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: plain numbers; the C library takes its own lock.
    unsafe {
        // the first switches off that the second adapts by itself
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT / 2);
        libc::mallopt(libc::M_TOP_PAD, STEP);
    }
}

/// Gives what is free back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain number; the C library takes its own locks.
    unsafe {
        libc::malloc_trim(STEP as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::resident;

    #[test]
    fn what_is_kept_is_given_back() {
        keep_freed();
        let pid = i32::try_from(std::process::id()).unwrap();
        let pieces: Vec<Vec<u8>> = (0..2000).map(|number| vec![number as u8 | 1; 20_000]).collect();
        // what is free at the very end of a heap is given back only on the program's first thread,
        // which this is not
        let behind = vec![1_u8; 20_000];
        assert!(pieces.iter().all(|piece| piece[19_999] != 0));
        let full = resident(pid).unwrap();
        drop(pieces);
        give_back();
        assert_eq!(behind[19_999], 1);
        assert!(resident(pid).unwrap() + 30_000_000 < full);
    }
}
