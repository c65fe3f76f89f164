//! A shared-memory object without a name, and views of it.
//!
//! A [`Segment`] is a memfd: it lives as long as some process holds a descriptor or a mapping
//! of it, so that nothing is left behind however its users end. It can grow and never
//! shrinks (sealed), so that no access to a mapping can run into a missing page.
//!
//! Safety: unsafe, since here an address range becomes words and bytes. What every block rests
//! on: a mapping stays mapped as long as its owner lives; offsets are checked before use; a
//! [`Mapping`] never lends a reference to bytes that another process may write: bytes are
//! copied in and out, and single words are atomic.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::Result;

/// What one huge page holds.
pub const HUGE_PAGE: usize = 2 << 20;

/// Whether shared memory gets huge pages where a mapping asks for them: then fresh memory is filled
/// faster through a mapping than by writing to the file. The administrator's choice, `never` mostly.
#[must_use]
pub fn huge_pages_on_advice() -> bool {
    static ON_ADVICE: OnceLock<bool> = OnceLock::new();
    *ON_ADVICE.get_or_init(|| {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
        setting.is_ok_and(|setting| setting.contains("[advise]"))
    })
}

/// A shared-memory object.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
}

impl Segment {
    /// A new one of `length` zero bytes.
    ///
    /// # Errors
    /// If the kernel has no descriptor or memory for it.
    pub fn create(label: &str, length: u64) -> Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // kernels from 6.3 may insist on the flag, older ones do not know it
        let fd = rustix::fs::memfd_create(label, flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| rustix::fs::memfd_create(label, flags))
            .map_err(|errno| crate::refused("memfd_create", errno))?;
        rustix::fs::ftruncate(&fd, length)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
        Ok(Self { fd })
    }

    /// One that another process made, by its descriptor.
    ///
    /// # Errors
    /// If the descriptor is not that of a segment that cannot shrink.
    pub fn adopt(fd: OwnedFd) -> Result<Self> {
        if !rustix::fs::fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK) {
            return Err(std::io::Error::other("the shared memory is not sealed against shrinking"));
        }
        Ok(Self { fd })
    }

    /// One that another process has open under this number, found through `/proc`. The other must
    /// be this user's. Which segment it is has to be checked: the number may mean another by now.
    ///
    /// # Errors
    /// If that process has ended or has no such descriptor, or it is no segment.
    pub fn open_of(pid: u32, fd: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/fd/{fd}");
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        Self::adopt(rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty())?)
    }

    /// Its length now.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn length(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_size as u64)
    }

    /// How many bytes of it take up memory.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn resident(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_blocks as u64 * 512)
    }

    /// Makes it longer; it is never made shorter.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn grow(&self, length: u64) -> Result<()> {
        Ok(rustix::fs::ftruncate(&self.fd, length)?)
    }

    /// Maps `length` bytes from `offset` (a multiple of the page size).
    ///
    /// # Errors
    /// If the segment is shorter than that, or there is no room for the mapping.
    pub fn map(&self, offset: u64, length: usize) -> Result<Mapping> {
        let mapping = map_fd(self.fd.as_fd(), offset, length, MapFlags::SHARED)?;
        if length >= HUGE_PAGE && huge_pages_on_advice() {
            // SAFETY: the range is this mapping's, and advice changes no byte of it.
            let advised = unsafe {
                let base = mapping.base.as_ptr().cast();
                rustix::mm::madvise(base, length, Advice::LinuxHugepage)
            };
            let _small_pages_do = advised;
        }
        Ok(mapping)
    }

    /// Maps `length` bytes from `offset` (a multiple of the page size) for this process alone:
    /// what it writes there nobody else sees, and a page is copied only when it is written.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_private(&self, offset: u64, length: usize) -> Result<PrivateMapping> {
        map_fd(self.fd.as_fd(), offset, length, MapFlags::PRIVATE).map(PrivateMapping)
    }

    /// Gives the memory of a range back to the kernel; it reads as zeroes from then on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn release(&self, offset: u64, length: u64) -> Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.fd, how, offset, length)?)
    }

    /// Writes bytes without mapping them: on pages that are new this costs half of a copy
    /// through a mapping, since no page fault is taken.
    ///
    /// # Errors
    /// If the kernel has no memory for the pages.
    pub fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let count = match rustix::io::pwrite(&self.fd, bytes, offset) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            offset += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl Segment {
    /// A second way to write to it, with a position of its own that begins at `offset`: for what
    /// writes to descriptors only.
    ///
    /// # Errors
    /// If the kernel refuses, for want of a descriptor or of `/proc`.
    pub fn writer_at(&self, offset: u64) -> Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty())?;
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(offset))?;
        Ok(fd)
    }

    /// Up to `limit` bytes from `offset` on, as far as the segment goes. Pages that nobody has
    /// written are not made for it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn read_at(&self, offset: u64, limit: usize) -> Result<Vec<u8>> {
        let have = self.length()?.saturating_sub(offset);
        let mut bytes = vec![0; limit.min(usize::try_from(have).unwrap_or(usize::MAX))];
        let done = self.read_into(offset, &mut bytes)?;
        bytes.truncate(done);
        Ok(bytes)
    }

    /// Fills `into` with what is there from `offset` on.
    ///
    /// # Errors
    /// If the segment ends before that, or the kernel refuses.
    pub fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        if self.read_into(offset, into)? < into.len() {
            return Err(std::io::Error::other("the shared memory is shorter than what was asked"));
        }
        Ok(())
    }

    fn read_into(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(&self.fd, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }
}

/// Maps a part of a segment by a descriptor of it.
pub(crate) fn map_fd(
    fd: BorrowedFd<'_>,
    offset: u64,
    length: usize,
    how: MapFlags,
) -> Result<Mapping> {
    let end = offset.checked_add(length as u64);
    let have = rustix::fs::fstat(fd)?.st_size as u64;
    if length == 0 || end.is_none_or(|end| have < end) {
        return Err(std::io::Error::other("the shared memory is shorter than what was asked"));
    }
    // SAFETY: the kernel picks the address (null hint, no MAP_FIXED), so no memory of this process
    // is replaced.
    let base = unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        rustix::mm::mmap(std::ptr::null_mut(), length, prot, how, fd, offset)
    }?;
    let base = NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mapped at 0"))?;
    Ok(Mapping { base, length })
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A view of a part of a segment, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is an address range, tied to no thread; it lends only atomics, and copies
// bytes in and out like a read or write of a file that others have open.
unsafe impl Send for Mapping {}
// SAFETY: as above; every access through `&self` is an atomic or a copy.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Bytes of the view.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The word at byte offset `at`.
    ///
    /// # Panics
    /// If `at` is no multiple of 8 or outside of the view.
    #[must_use]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length, "no word at {at}");
        // SAFETY: the 8 bytes are inside of the mapping, which lives as long as `self`, and
        // aligned, since mappings start at a page. The memory is only ever accessed as atomics
        // or by raw copies, never through a reference to plain data.
        unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() }
    }

    /// The half of the word at `at` that holds its low 32 bits: what a futex waits on.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    #[must_use]
    pub fn futex_word(&self, at: usize) -> &AtomicU32 {
        let low = if cfg!(target_endian = "big") { 4 } else { 0 };
        let word: *const AtomicU64 = self.word(at);
        // SAFETY: one of the two aligned halves of a word that `word` vouches for.
        unsafe { &*word.cast::<u8>().add(low).cast::<AtomicU32>() }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If they do not fit in the view.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.length && bytes.len() <= self.length - at, "write beyond the view");
        // SAFETY: the target is inside of the mapping (checked), the source is a slice of this
        // process's own memory, so they do not overlap. Another process may read the same bytes
        // at the same time; by protocol nobody relies on bytes that are not yet published, and
        // no Rust reference to them exists anywhere.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len());
        }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they are not all in the view.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        assert!(at <= self.length && into.len() <= self.length - at, "read beyond the view");
        // SAFETY: as in `write`, the other way round. A peer that writes meanwhile can make the
        // copy nonsense, never unsound: bytes have no invalid values.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.base.as_ptr().add(at),
                into.as_mut_ptr(),
                into.len(),
            );
        }
    }

    /// Where it begins: for code that is not Rust, to which only the address is told. Readable and
    /// writable as long as this value lives.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.base
    }

    /// Whether the bytes at `at` are these.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[must_use]
    pub fn equals(&self, at: usize, bytes: &[u8]) -> bool {
        assert!(at <= self.length && bytes.len() <= self.length - at, "look beyond the view");
        let mut copy = [0; 4096];
        // piece by piece through a copy: no reference to shared bytes comes to be
        bytes.chunks(copy.len()).enumerate().all(|(index, piece)| {
            let copy = &mut copy[..piece.len()];
            self.read(at + index * 4096, copy);
            copy == piece
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those of a mapping that this value owns, and everything
        // that was lent from it has ended with the borrow.
        let done = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(done.is_ok());
    }
}

/// A view whose changes stay in this process, unmapped on drop. For memory that is handed to
/// code which is not Rust: only its address is told.
#[derive(Debug)]
pub struct PrivateMapping(Mapping);

impl PrivateMapping {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self(mapping)
    }

    /// Memory that is nobody else's, with a copy of `length` bytes of `segment` from `offset` on.
    ///
    /// # Errors
    /// If there is no memory for it, or the segment is shorter than that.
    pub fn copy_of(segment: &Segment, offset: u64, length: usize) -> Result<Self> {
        // SAFETY: the kernel picks the address, so no memory of this process is replaced.
        let base = unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, prot, MapFlags::PRIVATE)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mapped at 0"))?;
        let mapping = Mapping { base, length };
        // SAFETY: the range was mapped just now, reads as zeroes, and is told to nobody else yet.
        let into = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), length) };
        segment.read_exact_at(offset, into)?;
        Ok(Self(mapping))
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they are not all in the view.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        self.0.read(at, into);
    }

    /// Bytes of the view.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.length
    }

    /// Where it begins. Readable and writable as long as this value lives.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.0.base
    }

    /// Whether nothing has been written to it: each of its pages is still the segment's. By the
    /// kernel's word, in a small part of the time that looking at the bytes would take.
    ///
    /// # Errors
    /// If the kernel does not tell (`/proc/self/pagemap`).
    pub fn is_unwritten(&self) -> Result<bool> {
        const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
        const OF_A_FILE: u64 = 1 << 61;
        let page = rustix::param::page_size();
        let pages = self.0.length.div_ceil(page);
        let first = self.0.base.as_ptr() as usize / page;
        let map = std::fs::File::open("/proc/self/pagemap")?;
        let mut entries = vec![0; 8 * pages.min(1 << 12)];
        for from in (0..pages).step_by(1 << 12) {
            let part = &mut entries[..8 * (pages - from).min(1 << 12)];
            map.read_exact_at(part, 8 * (first + from) as u64)?;
            let own = part.chunks_exact(8).any(|entry| {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                entry & PRESENT_OR_SWAPPED != 0 && entry & OF_A_FILE == 0
            });
            if own {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn two_views_show_the_same_bytes() {
        let segment = Segment::create("test", 8192).unwrap();
        let one = segment.map(0, 8192).unwrap();
        let other = Segment::adopt(segment.as_fd().try_clone_to_owned().unwrap())
            .unwrap()
            .map(4096, 4096)
            .unwrap();
        one.word(4096).store(0x1_0000_0007, Relaxed);
        assert_eq!(other.word(0).load(Relaxed), 0x1_0000_0007);
        assert_eq!(other.futex_word(0).load(Relaxed), 7);
        one.write(4101, b"hello");
        let mut back = [0; 5];
        other.read(5, &mut back);
        assert_eq!(&back, b"hello");
    }

    #[test]
    fn it_grows_and_never_shrinks() {
        let segment = Segment::create("test", 4096).unwrap();
        assert!(segment.map(4096, 4096).is_err(), "not there yet");
        segment.grow(8192).unwrap();
        segment.write_at(4096, b"new").unwrap();
        let mut back = [0; 3];
        segment.map(4096, 4096).unwrap().read(0, &mut back);
        assert_eq!(&back, b"new");
        assert!(segment.grow(4096).is_err(), "sealed");
        assert_eq!(segment.length().unwrap(), 8192);
    }

    #[test]
    fn equal_bytes_are_told_from_others() {
        let bytes: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
        let view = Segment::create("test", 12288).unwrap().map(0, 12288).unwrap();
        view.write(100, &bytes);
        assert!(view.equals(100, &bytes));
        assert!(!view.equals(101, &bytes[..8000]));
        let mut other = bytes.clone();
        other[8999] ^= 1;
        assert!(!view.equals(100, &other));
    }

    #[test]
    fn released_memory_reads_as_zeroes() {
        let segment = Segment::create("test", 12288).unwrap();
        let view = segment.map(0, 12288).unwrap();
        view.write(0, &[7; 12288]);
        segment.release(4096, 4096).unwrap();
        assert!(view.equals(0, &[7; 4096]) && view.equals(4096, &[0; 4096]));
        assert!(view.equals(8192, &[7; 4096]));
        assert_eq!(segment.length().unwrap(), 12288);
    }

    #[test]
    fn a_private_view_is_nobody_elses() {
        let segment = Segment::create("test", 8192).unwrap();
        segment.write_at(4096, b"before").unwrap();
        let private = segment.map_private(4096, 4096).unwrap();
        assert_eq!(private.length(), 4096);
        let seen = || {
            // SAFETY: six bytes of a mapping that lives, and that nobody writes meanwhile
            unsafe { std::slice::from_raw_parts(private.address().as_ptr(), 6) }.to_vec()
        };
        assert_eq!(seen(), b"before");
        // SAFETY: one byte of a mapping that is writable and not borrowed now
        unsafe { private.address().as_ptr().write(b'B') };
        assert_eq!(seen(), b"Before");
        let mut shared = [0; 6];
        segment.map(4096, 4096).unwrap().read(0, &mut shared);
        assert_eq!(&shared, b"before");
    }

    #[test]
    fn a_second_writer_has_its_own_position() {
        let segment = Segment::create("test", 4096).unwrap();
        let far = 1 << 40;
        let writer = segment.writer_at(far).unwrap();
        assert_eq!(segment.read_at(far, 100).unwrap(), b"", "nobody has written");
        for part in [&b"one "[..], b"two"] {
            assert_eq!(rustix::io::write(&writer, part).unwrap(), part.len());
        }
        assert_eq!(segment.read_at(far, 100).unwrap(), b"one two");
        assert_eq!(segment.read_at(far, 3).unwrap(), b"one");
    }

    #[test]
    fn it_is_found_by_number() {
        let segment = Segment::create("test", 4096).unwrap();
        segment.write_at(8, b"here").unwrap();
        let (pid, fd) = (std::process::id(), segment.as_fd().as_raw_fd());
        let mut back = [0; 4];
        Segment::open_of(pid, fd).unwrap().map(0, 4096).unwrap().read(8, &mut back);
        assert_eq!(&back, b"here");
        drop(segment);
        assert!(Segment::open_of(pid, 1 << 20).is_err());
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(Segment::open_of(pid, file.as_raw_fd()).is_err(), "no segment");
    }

    #[test]
    #[should_panic(expected = "beyond the view")]
    fn a_copy_beyond_the_end_is_caught() {
        Segment::create("test", 4096).unwrap().map(0, 4096).unwrap().write(4090, b"too long");
    }
}
