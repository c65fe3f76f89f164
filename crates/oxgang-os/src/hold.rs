//! Parts of a segment, held: the kernel keeps the book of who holds which part, alone or beside
//! others.
//!
//! A [`Holder`] is a way of its own to a segment: an open file description, of which locks on parts of
//! the file are the property ("open file description locks"). They go when the last descriptor of it
//! is closed *and* the last mapping made by it ends, in whatever process those are. So a mapping made
//! by a holder holds its part as long as anybody can look at it: this process, its forks, a process
//! that is killed. Nobody has to be told.
//!
//! Safety: unsafe for one thing: `fcntl` with a command that rustix lacks, which reads a structure and
//! keeps nothing of it.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mm::MapFlags;

use crate::Result;
use crate::segment::{PrivateMapping, Segment, map_fd};

/// A way of its own to a segment, to hold parts of it by.
#[derive(Debug)]
pub struct Holder {
    fd: OwnedFd,
    alone: bool,
}

impl Holder {
    /// One for `segment`, which holds alone, or beside others.
    ///
    /// # Errors
    /// If there is no descriptor for it, or no `/proc`.
    pub fn of(segment: &Segment, alone: bool) -> Result<Self> {
        let path = format!("/proc/self/fd/{}", segment.as_fd().as_raw_fd());
        let how = if alone { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = rustix::fs::open(path.as_str(), how | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, alone })
    }

    /// Holds a part, if nobody holds any of it in a way that excludes this one. Never waits.
    ///
    /// # Errors
    /// If the kernel has no such locks.
    pub fn try_hold(&self, offset: u64, length: u64) -> Result<bool> {
        let kind = if self.alone { libc::F_WRLCK } else { libc::F_RDLCK };
        match self.lock(kind, offset, length) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// What is held alone is held beside others from now on, with no moment between.
    ///
    /// # Errors
    /// If the kernel has no such locks.
    pub fn share(&self, offset: u64, length: u64) -> Result<()> {
        self.lock(libc::F_RDLCK, offset, length)
    }

    /// Holds the part no more.
    ///
    /// # Errors
    /// If the kernel has no such locks.
    pub fn let_go(&self, offset: u64, length: u64) -> Result<()> {
        self.lock(libc::F_UNLCK, offset, length)
    }

    fn lock(&self, kind: i32, offset: u64, length: u64) -> Result<()> {
        let too_far = |_| std::io::Error::from_raw_os_error(libc::EOVERFLOW);
        // SAFETY: a structure of plain numbers, for which zeroes are valid.
        let mut part: libc::flock = unsafe { std::mem::zeroed() };
        part.l_type = kind as _;
        part.l_whence = libc::SEEK_SET as _;
        part.l_start = offset.try_into().map_err(too_far)?;
        part.l_len = length.try_into().map_err(too_far)?;
        // SAFETY: the descriptor is open as long as `self` is, and the kernel reads the structure
        // during the call only.
        let done = unsafe { libc::fcntl(self.fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const part) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    /// Maps `length` bytes from `offset` (a multiple of the page size), as
    /// [`Segment::map_private`], by this way: what it holds is held as long as the mapping is
    /// somebody's.
    ///
    /// # Errors
    /// If the segment is shorter than that, or there is no room for the mapping.
    pub fn map_private(&self, offset: u64, length: usize) -> Result<PrivateMapping> {
        map_fd(self.fd.as_fd(), offset, length, MapFlags::PRIVATE).map(PrivateMapping::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 1 << 40;

    fn is_free(segment: &Segment, part: u64) -> bool {
        Holder::of(segment, true).unwrap().try_hold(part * PART, PART).unwrap()
    }

    /// Other tests fork meanwhile: their children hold what this process does until they execute.
    fn comes_free(segment: &Segment, part: u64) -> bool {
        (0..100_000).any(|_| {
            std::thread::yield_now();
            is_free(segment, part)
        })
    }

    #[test]
    fn parts_are_held_alone_or_beside_others() {
        let segment = Segment::create("test", 4096).unwrap();
        let alone = Holder::of(&segment, true).unwrap();
        assert!(alone.try_hold(PART, PART).unwrap());
        assert!(!is_free(&segment, 1) && comes_free(&segment, 0) && comes_free(&segment, 2));
        let beside = Holder::of(&segment, false).unwrap();
        assert!(!beside.try_hold(PART, PART).unwrap());
        alone.share(PART, PART).unwrap();
        assert!(!is_free(&segment, 1));
        let another = Holder::of(&segment, false).unwrap();
        assert!(beside.try_hold(PART, PART).unwrap() && another.try_hold(PART, PART).unwrap());
        drop((beside, alone));
        assert!(!is_free(&segment, 1));
        another.let_go(PART, PART).unwrap();
        assert!(comes_free(&segment, 1));
    }

    #[test]
    fn a_mapping_holds_by_itself_and_shows_what_is_there() {
        let segment = Segment::create("test", 3 * PART).unwrap();
        segment.write_at(PART, b"here").unwrap();
        let holder = Holder::of(&segment, false).unwrap();
        assert!(holder.try_hold(PART, PART).unwrap());
        let mapping = holder.map_private(PART, 4).unwrap();
        drop(holder);
        assert!(!is_free(&segment, 1), "the mapping holds it");
        let mut back = [0; 4];
        mapping.read(0, &mut back);
        assert_eq!(&back, b"here");
        drop(mapping);
        assert!(comes_free(&segment, 1));
        assert!(Holder::of(&segment, false).unwrap().map_private(3 * PART, 1).is_err(), "too far");
    }
}
