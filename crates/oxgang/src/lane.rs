//! Messages one way between processes: the queue of `oxgang_shm` in a region of memory that grows.
//!
//! A region holds the heads of one or two lanes, a page each, and behind them their rings,
//! shortest first, and far behind those the slots of [`shelf`]. What is written at the start is short; a longer ring is mapped by each process
//! when it first comes to it, and the file made longer by whoever is first. Positions in the file
//! cost nothing, so a ring of a gigabyte that was never filled takes no memory.

use std::io::{Error, Result};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oxgang_os::event;
use oxgang_shm::queue::Rings;
use oxgang_shm::queue::shelf::head_bytes;
pub use oxgang_shm::queue::token::Doorbell;
pub use oxgang_shm::queue::{Got, Patience, Queue as Core, Sent, Shape};
use oxgang_shm::words::Words;

use crate::region::Region;
use crate::segment::Mapped;
use crate::shelf::{self, SLOTS};
use crate::spin::{Places, Spinner, budget_of_process, places};
use crate::sync::Wait;

/// A lane's head.
const PAGE: usize = 4096;
const _: () = assert!(head_bytes(SLOTS) <= PAGE);
const FIRST_RING: usize = 64 << 10;
/// The last one has a terabyte: more than fits into memory, so that memory is the limit.
const RINGS: u32 = 13;

/// A lane of a region, as a process has it.
pub type Lane = Core<Lot, LaneRings>;

/// The shape of a lane: how many messages at a time (0: any number), and from how many bytes on it
/// is full although it is not empty (0: never).
#[must_use]
pub fn shape(most: u64, limit: usize) -> Shape {
    Shape { most, limit, first: FIRST_RING, rings: RINGS, slots: SLOTS }
}

/// A new region with a lane for each of `shapes`.
///
/// # Errors
/// If there is no memory or descriptor for it.
pub fn create(shapes: &[Shape]) -> Result<Arc<Region>> {
    let region = Region::create(shapes.len() * (PAGE + FIRST_RING))?;
    let words = Lot::new(&region, 0, shapes.len() * PAGE)?;
    for (number, shape) in shapes.iter().enumerate() {
        Lane::create(&words, number * PAGE, *shape);
    }
    Ok(region)
}

/// Lane `number` of a region that has `lanes`.
///
/// # Errors
/// If there is none.
pub fn open(region: &Arc<Region>, number: usize, lanes: usize) -> Result<Lane> {
    let first = Lot::new(region, lanes * PAGE + number * FIRST_RING, FIRST_RING)?;
    let rings = LaneRings { region: region.clone(), number, lanes, first, more: Mutex::default() };
    let lane = Lane::open(Lot::new(region, 0, lanes * PAGE)?, number * PAGE, rings)?;
    // where rings and slots lie is reckoned by these, not by what the head says
    let (own, said) = (shape(0, 0), lane.shape());
    if (said.first, said.rings, said.slots) != (own.first, own.rings, own.slots) {
        return Err(Error::other("a lane of another shape, or of another version of oxgang"));
    }
    Ok(lane)
}

/// A part of mapped memory, as words.
#[derive(Debug, Clone)]
pub struct Lot {
    words: Mapped,
    from: usize,
    length: usize,
}

impl Lot {
    fn new(region: &Region, from: usize, length: usize) -> Result<Self> {
        let words = region.words().filter(|words| words.len() >= from + length);
        let words = words.ok_or_else(|| Error::other("shorter than a lane"))?.clone();
        Ok(Self { words, from, length })
    }

    /// All of what it is a part of.
    #[must_use]
    pub fn mapped(&self) -> &Mapped {
        &self.words
    }

    fn at(&self, at: usize) -> usize {
        assert!(at < self.length, "{at} is outside of the lot");
        self.from + at
    }
}

impl Words for Lot {
    fn len(&self) -> usize {
        self.length
    }
    fn load(&self, at: usize, order: std::sync::atomic::Ordering) -> u64 {
        self.words.load(self.at(at), order)
    }
    fn store(&self, at: usize, value: u64, order: std::sync::atomic::Ordering) {
        self.words.store(self.at(at), value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> std::result::Result<u64, u64> {
        self.words.compare_exchange(self.at(at), current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.words.fetch_add(self.at(at), by)
    }
    fn fence(&self) {
        self.words.fence();
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length, "write beyond the lot");
        self.words.write(self.from + at, bytes);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        assert!(at + into.len() <= self.length, "read beyond the lot");
        self.words.read(self.from + at, into);
    }
}

/// The rings of a lane.
#[derive(Debug)]
pub struct LaneRings {
    region: Arc<Region>,
    number: usize,
    lanes: usize,
    first: Lot,
    /// Those that this process has mapped. Never waited for: in a fork the holder may not exist.
    more: Mutex<Vec<Option<Lot>>>,
}

impl LaneRings {
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Which of the region's lanes they are of.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// How many lanes the region has.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Where in the region a ring is, and how long.
    fn place(&self, number: u32) -> (usize, usize) {
        let shape = shape(0, 0);
        let bytes = shape.bytes(number);
        (self.lanes * (PAGE + shape.bytes_before(number)) + self.number * bytes, bytes)
    }

    fn map(&self, number: u32) -> Result<Lot> {
        let gone = || Error::other("the memory was given up");
        let (segment, start) = self.region.segment().ok_or_else(gone)?;
        let (from, length) = self.place(number);
        let from = start + from as u64;
        let end = from + length as u64;
        shelf::reach(segment, end)?;
        Ok(Lot { words: Mapped::new(segment.map(from, length)?), from: 0, length })
    }
}

impl Rings for LaneRings {
    type Memory = Lot;

    fn ring(&self, number: u32) -> Result<Lot> {
        if number == 0 {
            return Ok(self.first.clone());
        }
        let mut known = self.more.try_lock();
        let slot = number as usize - 1;
        if let Ok(known) = &known
            && let Some(Some(ring)) = known.get(slot)
        {
            return Ok(ring.clone());
        }
        let ring = self.map(number)?;
        if let Ok(known) = &mut known {
            if known.len() <= slot {
                known.resize(slot + 1, None);
            }
            known[slot] = Some(ring.clone());
        }
        Ok(ring)
    }

    fn release(&self, number: u32) {
        let (from, length) = self.place(number);
        if let Some((segment, start)) = self.region.segment() {
            // memory that stays is only memory that stays
            let _refused = segment.release(start + from as u64, length as u64);
        }
    }
}

/// The one place to spin of a lane, beside those of the process.
pub(crate) struct Spot<'a> {
    lane: &'a Lane,
    budget: Duration,
}

impl Places for Spot<'_> {
    fn take(&self) -> bool {
        if !places().take() {
            return false;
        }
        let now = oxgang_os::clock::now();
        let taken = self.lane.start_spinning(now, now + 2 * self.budget.as_nanos() as u64);
        if !taken {
            places().leave();
        }
        taken
    }
    fn leave(&self) {
        self.lane.stop_spinning();
        places().leave();
    }
}

/// Spins on a lane, if that is allowed and has paid lately, until there is something.
pub(crate) fn spin(
    lane: &Lane,
    spinner: &Mutex<Spinner>,
    wait: &Wait<'_>,
    found: impl FnMut() -> bool,
) -> bool {
    let budget = budget_of_process();
    let short = |end: Instant| end.saturating_duration_since(Instant::now()) < budget;
    if budget.is_zero() || wait.deadline().is_some_and(short) {
        return false;
    }
    // never waited for: in a fork the holder may not exist
    let Ok(mut spinner) = spinner.try_lock() else { return false };
    spinner.spin(&Spot { lane, budget }, found)
}

/// A pipe's descriptor as a doorbell: what this end can do of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bell<'a> {
    /// The end to write to.
    Writer(BorrowedFd<'a>),
    /// The end to read from.
    Reader(BorrowedFd<'a>),
    /// Both.
    Both(BorrowedFd<'a>),
}

impl Doorbell for Bell<'_> {
    fn ring(&self) -> bool {
        match self {
            Self::Writer(fd) | Self::Both(fd) => event::put_byte(*fd).is_ok(),
            Self::Reader(fd) => event::put_byte_behind(*fd).is_ok(),
        }
    }

    fn clear(&self) {
        match self {
            Self::Reader(fd) | Self::Both(fd) => event::take_bytes(*fd),
            Self::Writer(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_head_of_another_shape_is_refused() {
        let region = create(&[shape(0, 0), shape(3, 100)]).unwrap();
        assert_eq!(open(&region, 1, 2).unwrap().shape().most, 3);
        assert!(open(&region, 2, 2).is_err(), "there are two");
        // first, rings, slots: each of them a shape that a queue may have
        for (at, other) in [(16, 1 << 20), (24, 14), (32, 0)] {
            let words = region.words().unwrap();
            let own = words.load(at, Relaxed);
            words.store(at, other, Relaxed);
            assert!(open(&region, 0, 2).is_err(), "{at}");
            words.store(at, own, Relaxed);
            assert!(open(&region, 0, 2).is_ok());
        }
    }
}
