//! Memory that several processes use at once, passed by handle.
//!
//! A *region* is a segment of its own: a page with its key and two counts, and the bytes. It is
//! named by a process that has it open, and the number of its descriptor there; the key tells
//! whether what is found there is still the same. The kernel frees it with its last user, however
//! that ends.
//!
//! # On the way
//!
//! A handle that has been sent and has not arrived keeps nobody's memory, so its sender must not
//! let go. Every sending adds one to `sent`, every arrival one to `arrived`, in the region itself.
//!
//! | the last handle of a process is dropped | the region |
//! |---|---|
//! | as many have arrived as were sent | goes, as far as this process is concerned |
//! | some are on their way | stays open here until they have arrived: looked at whenever a region is made or dropped |
//!
//! A handle that never arrives (its task was cancelled, its receiver died) keeps the region open in
//! its sender until that ends.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Weak};

use oxgang_os::Result;
use oxgang_os::segment::{Mapping, Segment};
use oxgang_shm::Words;

use crate::forking::ForkedBooks;
use crate::segment::Mapped;

/// "oxgangrg" and the layout's version.
const MAGIC: u64 = 0x6f78_6761_6e72_6701;
const AT_MAGIC: usize = 0;
const AT_KEY: usize = 8;
const AT_LENGTH: usize = 24;
const AT_SENT: usize = 32;
const AT_ARRIVED: usize = 40;
const HEADER: usize = 4096;

/// Which region: two random numbers.
pub type Key = (u64, u64);

/// Where a region can be had: a process that has it open, the number of its descriptor there, and
/// which one it is.
pub type Address = (u32, i32, Key);

/// An address as it travels in a frame.
#[must_use]
pub fn to_bytes((pid, fd, key): Address) -> [u8; 24] {
    let place = u64::from(pid) << 32 | u64::from(fd as u32);
    let mut bytes = [0; 24];
    for (into, number) in bytes.chunks_exact_mut(8).zip([place, key.0, key.1]) {
        into.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Back from a frame; `None` if it is none.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Option<Address> {
    let bytes: &[u8; 24] = bytes.try_into().ok()?;
    let number = |at: usize| bytes[at..].first_chunk().map(|eight| u64::from_le_bytes(*eight));
    let place = number(0)?;
    Some(((place >> 32) as u32, place as u32 as i32, (number(8)?, number(16)?)))
}

/// A region that this process has open.
#[derive(Debug)]
pub struct Region {
    /// There until it is dropped.
    segment: Option<Segment>,
    header: Mapped,
    data: Option<Mapped>,
    key: Key,
    length: usize,
}

/// What this process knows of regions.
#[derive(Default)]
pub(crate) struct Books {
    /// Those that it has open.
    open: HashMap<Key, Weak<Region>>,
    /// Those whose last handle here is gone while others were on their way, and the generation of
    /// the process that let them go.
    leaving: Vec<(u64, Segment, Mapped)>,
    /// Those that were sent, if somebody takes them down.
    sent: Option<Vec<Address>>,
}

/// Whether a look at what was taken down would find something.
static ANY_SENT: AtomicBool = AtomicBool::new(false);
pub(crate) static BOOKS: ForkedBooks<Books> = ForkedBooks::new();

fn books<T>(look: impl FnOnce(&mut Books) -> T) -> T {
    BOOKS.with(look)
}

/// From now on [`take_sent`] tells which regions were sent.
pub fn take_down_sent() {
    books(|books| books.sent = Some(Vec::new()));
}

/// The regions that were sent since the last time, for who must see to it that they arrive.
#[must_use]
pub fn take_sent() -> Vec<Address> {
    if !ANY_SENT.load(Acquire) || !ANY_SENT.swap(false, Acquire) {
        return Vec::new();
    }
    books(|books| books.sent.as_mut().map(std::mem::take).unwrap_or_default())
}

impl Region {
    /// A new one of `length` zero bytes.
    ///
    /// # Errors
    /// If the kernel has no descriptor or memory for it.
    pub fn create(length: usize) -> Result<Arc<Self>> {
        sweep();
        let size = length.checked_add(HEADER).ok_or_else(|| std::io::Error::other("too long"))?;
        let segment = Segment::create("oxgang region", size as u64)?;
        let header = Mapped::new(segment.map(0, HEADER)?);
        // random enough to tell apart what one descriptor number has meant
        let (one, other) = (RandomState::new(), RandomState::new());
        let key = (one.hash_one(std::process::id()), other.hash_one(length));
        header.store(AT_KEY, key.0, Relaxed);
        header.store(AT_KEY + 8, key.1, Relaxed);
        header.store(AT_LENGTH, length as u64, Relaxed);
        header.store(AT_MAGIC, MAGIC, Release);
        Self::of(segment, header, key, length)
    }

    /// The one at an address: the one that is open here already, if it is.
    ///
    /// # Errors
    /// If the process at the address has ended, or has let go of it.
    pub fn open((pid, fd, key): Address) -> Result<Arc<Self>> {
        if let Some(known) = books(|books| books.open.get(&key).and_then(Weak::upgrade)) {
            return Ok(known);
        }
        let segment = Segment::open_of(pid, fd)?;
        let wrong = |what| Err(std::io::Error::other(what));
        let have = segment.length()?;
        if have < HEADER as u64 {
            return wrong("something else is in its place");
        }
        let header = Mapped::new(segment.map(0, HEADER)?);
        let found = (header.load(AT_KEY, Relaxed), header.load(AT_KEY + 8, Relaxed));
        if header.load(AT_MAGIC, Acquire) != MAGIC || found != key {
            return wrong("another region is in its place");
        }
        let length = header.load(AT_LENGTH, Relaxed);
        if length.checked_add(HEADER as u64).is_none_or(|size| have < size) {
            return wrong("the region is shorter than it says");
        }
        Self::of(segment, header, key, length as usize)
    }

    fn of(segment: Segment, header: Mapped, key: Key, length: usize) -> Result<Arc<Self>> {
        let data = match length {
            0 => None,
            _ => Some(Mapped::new(segment.map(HEADER as u64, length)?)),
        };
        let region = Arc::new(Self { segment: Some(segment), header, data, key, length });
        books(|books| books.open.insert(key, Arc::downgrade(&region)));
        Ok(region)
    }

    /// Its bytes; `None` if it has none.
    #[must_use]
    pub fn data(&self) -> Option<&Mapping> {
        self.data.as_ref().map(Mapped::mapping)
    }

    /// Its bytes as words, for structures that live in it.
    pub(crate) fn words(&self) -> Option<&Mapped> {
        self.data.as_ref()
    }

    /// What it lies in, and where it begins there: for structures that go on behind its end.
    pub(crate) fn segment(&self) -> Option<(&Segment, u64)> {
        self.segment.as_ref().map(|segment| (segment, HEADER as u64))
    }

    /// Where it can be had of this process.
    pub(crate) fn address(&self) -> Address {
        let fd = self.segment.as_ref().map_or(-1, |segment| segment.as_fd().as_raw_fd());
        (std::process::id(), fd, self.key)
    }

    /// Whether a handle was sent that has not arrived.
    pub(crate) fn is_on_its_way(&self) -> bool {
        on_its_way(&self.header)
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Which one it is.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// A handle is being sent: what to say of where it is.
    #[must_use]
    pub fn send(&self) -> Address {
        self.header.fetch_add(AT_SENT, 1);
        let address = self.address();
        books(|books| books.sent.iter_mut().for_each(|sent| sent.push(address)));
        ANY_SENT.store(true, Release);
        address
    }

    /// A handle has arrived.
    pub fn arrive(&self) {
        self.header.fetch_add(AT_ARRIVED, 1);
    }
}

fn on_its_way(header: &Mapped) -> bool {
    header.load(AT_ARRIVED, Acquire) < header.load(AT_SENT, Acquire)
}

impl Drop for Region {
    fn drop(&mut self) {
        // the descriptor by whose number it was sent stays open
        if on_its_way(&self.header)
            && let Some(segment) = self.segment.take()
        {
            let leaving = (crate::generation(), segment, self.header.clone());
            books(|books| books.leaving.push(leaving));
        }
        sweep();
    }
}

/// Lets go of what has arrived everywhere, and in a fork of what its parent has sent.
fn sweep() {
    let gone = books(|books| {
        books.open.retain(|_, region| region.strong_count() > 0);
        let all = std::mem::take(&mut books.leaving);
        let (stay, gone): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(born, _, header)| *born == crate::generation() && on_its_way(header));
        books.leaving = stay;
        gone
    });
    drop(gone);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(region: &Region, at: usize, count: usize) -> Vec<u8> {
        let mut into = vec![0; count];
        region.data().unwrap().read(at, &mut into);
        into
    }

    /// Forgets that this process has them open, as another process would not know.
    fn open_anew(address: Address) -> Result<Arc<Region>> {
        books(|books| books.open.remove(&address.2));
        Region::open(address)
    }

    #[test]
    fn two_handles_are_one_memory() {
        let one = Region::create(10_000).unwrap();
        let address = one.send();
        assert!(Arc::ptr_eq(&one, &Region::open(address).unwrap()), "open already");
        let other = open_anew(address).unwrap();
        other.arrive();
        one.data().unwrap().write(9_990, b"end");
        assert_eq!(bytes(&other, 9_990, 3), b"end");
        assert_eq!((other.length(), other.key()), (10_000, one.key()));
    }

    #[test]
    fn one_that_is_on_its_way_stays() {
        let region = Region::create(100).unwrap();
        region.data().unwrap().write(0, b"x");
        let address = region.send();
        drop(region);
        let arrived = Region::open(address).unwrap();
        arrived.arrive();
        assert_eq!(bytes(&arrived, 0, 1), b"x");
        drop(arrived);
        assert!(Region::open(address).is_err(), "everybody has let go");
    }

    #[test]
    fn another_in_its_place_is_noticed() {
        let region = Region::create(0).unwrap();
        assert!(region.data().is_none());
        let (pid, fd, key) = region.send();
        assert!(Region::open((pid, fd, (key.0, !key.1))).is_err());
        region.arrive();
        assert!(open_anew((pid, -1, key)).is_err());
    }
}
