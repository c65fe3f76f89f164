//! Locks and their kin between processes: the protocols of `oxgang_shm::sync` on futexes, and the
//! segments that they are kept in.
//!
//! # Waiting
//!
//! A [`Wait`] sleeps in slices of 1, 2, 4 … 100 ms, so that a death is noticed within as long
//! again as it was waited for, and within 100 ms at most; see `oxgang_shm::sync` for why nobody
//! could be told instead. Deadlines are exact. A signal ends the sleep, and the caller is asked
//! whether to go on.
//!
//! # Keeping
//!
//! A process makes its primitives in segments of its own, some five hundred in each, so that one
//! costs 64 bytes and no descriptor. Which slots are taken is the maker's private knowledge.
//! Others reach a segment as forks, by a descriptor they inherit, or by the number of a descriptor
//! in a process that has it open.
//!
//! | a handle goes | its slot |
//! |---|---|
//! | in its maker, and it was never sent, and no fork has happened since it was made | is used again |
//! | otherwise | stays taken: somebody else may have it |
//!
//! A segment goes with its last handle in each process, and the kernel frees it with the last
//! process that has it mapped, however that ends. A segment whose handle is on its way to a process
//! that runs already is kept until as many have arrived as were sent. A handle that never arrives
//! (its task is cancelled, its worker dies), or was sent on by a process that did not make it, keeps
//! its segment until its sender ends.

mod graph;

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use graph::Link;
use oxgang_os::event::{self, Look};
use oxgang_os::futex::{self, Woken};
use oxgang_os::segment::Segment;
use oxgang_os::{Result, process};
pub use oxgang_shm::sync::barrier::{self, Barrier};
pub use oxgang_shm::sync::condition::Condition;
pub use oxgang_shm::sync::event::Event;
pub use oxgang_shm::sync::layout;
pub use oxgang_shm::sync::lock::{Lock, NotReleased};
pub use oxgang_shm::sync::nodes::{Node, Nodes};
use oxgang_shm::sync::reclaim::reclaim;
pub use oxgang_shm::sync::semaphore::{MOST, Semaphore};
pub use oxgang_shm::sync::{Kernel, Rest, Taken, Who};

use crate::generation;
use crate::segment::Mapped;

const FIRST_SLICE: Duration = Duration::from_millis(1);
const LONGEST_SLICE: Duration = Duration::from_millis(100);
/// Who was found alive is not asked about again for so long.
const STILL_ALIVE: Duration = Duration::from_millis(1);

thread_local! {
    static ME: Cell<Option<(u64, Who)>> = const { Cell::new(None) };
    static SEEN_ALIVE: Cell<Option<(Who, Instant)>> = const { Cell::new(None) };
}

/// This thread of this process, also after a fork.
#[must_use]
#[inline]
pub fn me() -> Who {
    match ME.get() {
        Some((born, who)) if born == generation() => who,
        _ => find_me(),
    }
}

#[cold]
fn find_me() -> Who {
    let (pid, tid) = process::own_numbers();
    let who = Who::new(pid, process::started(pid), tid);
    ME.set(Some((generation(), who)));
    who
}

/// Whether a process, or this very thread of it, is alive.
#[must_use]
pub fn alive(who: Who) -> bool {
    if who.same_process(me()) {
        return who.tid() == 0 || process::has_thread(who.pid(), who.tid());
    }
    let recently = |(seen, when): (Who, Instant)| seen == who && when.elapsed() < STILL_ALIVE;
    if SEEN_ALIVE.get().is_some_and(recently) {
        return true;
    }
    let lives = process::lives(who.pid(), |tick| who.started_at(tick))
        && (who.tid() == 0 || process::has_thread(who.pid(), who.tid()));
    if lives {
        SEEN_ALIVE.set(Some((who, Instant::now())));
    }
    lives
}

/// One wait, with its deadline.
pub struct Wait<'a> {
    words: &'a Mapped,
    deadline: Option<Instant>,
    slice: Cell<Duration>,
    /// Asked after a signal, and after each slice: whether to give up.
    give_up: &'a dyn Fn(Why) -> bool,
    stopped: Cell<bool>,
}

/// Why somebody who waits is asked whether to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A signal came.
    Signal,
    /// A slice is over.
    Slice,
}

impl<'a> Wait<'a> {
    /// A wait on `words` until `deadline`. A signal that is asked about may be one that came
    /// before the sleep, which no sleep can notice, so `give_up` is asked after slices too.
    pub fn new(
        words: &'a Mapped,
        deadline: Option<Instant>,
        give_up: &'a dyn Fn(Why) -> bool,
    ) -> Self {
        let (slice, stopped) = (Cell::new(FIRST_SLICE), Cell::new(false));
        Self { words, deadline, slice, give_up, stopped }
    }

    /// The same in long slices from the beginning: for what mostly ends by a wake-up, where a timer
    /// that is set and never rings costs as much as the wake-up. A death is noticed within 100 ms.
    #[must_use]
    pub fn in_long_slices(self) -> Self {
        self.slice.set(LONGEST_SLICE);
        self
    }

    /// A wait that only ends when it has what it waits for.
    pub fn steadfast(words: &'a Mapped) -> Self {
        Self::new(words, None, &|_| false)
    }
}

impl Wait<'_> {
    /// The same for a descriptor: sleeps until there are bytes, or nobody has the other end open.
    ///
    /// # Errors
    /// If the descriptor is bad.
    pub(crate) fn look(&self, fd: BorrowedFd<'_>) -> Result<(Rest, Look)> {
        let Some((limit, last)) = self.next_slice() else { return Ok((Rest::Stop, Look::Nothing)) };
        let seen = event::look(fd, Some(limit))?;
        let rest = match seen {
            Look::Nothing => self.slice_over(last),
            Look::Signal => self.signalled(),
            Look::Seen { .. } => Rest::Over,
        };
        Ok((rest, seen))
    }

    /// Until when, if there is an end.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long to sleep now, and whether that is to the end of the wait. `None`: it is over.
    fn next_slice(&self) -> Option<(Duration, bool)> {
        let limit = self.slice.get();
        // whoever was stopped may sleep once more, for a guard: then not for long at a time
        let Some(deadline) = self.deadline.filter(|_| !self.stopped.get()) else {
            return Some((limit, false));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.stopped.set(true);
            return None;
        }
        Some((limit.min(left), left <= limit))
    }

    fn slice_over(&self, last: bool) -> Rest {
        if last || self.is_given_up(Why::Slice) {
            self.stopped.set(true);
            return Rest::Stop;
        }
        self.slice.set((self.slice.get() * 2).min(LONGEST_SLICE));
        Rest::Slice
    }

    fn signalled(&self) -> Rest {
        if self.is_given_up(Why::Signal) {
            self.stopped.set(true);
            return Rest::Stop;
        }
        Rest::Over
    }

    fn is_given_up(&self, why: Why) -> bool {
        !self.stopped.get() && (self.give_up)(why)
    }
}

impl Kernel for Wait<'_> {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        let Some((limit, last)) = self.next_slice() else { return Rest::Stop };
        match futex::wait(self.words.futex_word(at), seen, Some(limit)) {
            Woken::Maybe => Rest::Over,
            Woken::TimeUp => self.slice_over(last),
            Woken::Signal => self.signalled(),
        }
    }

    fn wake(&self, at: usize, all: bool) {
        futex::wake(self.words.futex_word(at), if all { u32::MAX } else { 1 });
    }

    fn alive(&self, who: Who) -> bool {
        alive(who)
    }

    fn stopped(&self) -> bool {
        self.stopped.get()
    }
}

/// A segment of primitives, as this process has it.
#[derive(Debug)]
struct Shared {
    serial: u64,
    segment: Segment,
    words: Mapped,
    /// In which generation this process made it; `None`: another did.
    made: Option<u64>,
    /// Free slots; of the maker only.
    free: Mutex<Vec<u32>>,
    /// Handles that went to processes that run already.
    sent: AtomicU64,
}

/// What this process knows of segments. Locked for moments, by threads that fork only with the
/// interpreter's leave, which they do not give up meanwhile.
#[derive(Default)]
struct Known {
    generation: u64,
    own: Option<Arc<Shared>>,
    all: HashMap<u64, Weak<Shared>>,
    on_their_way: Vec<Arc<Shared>>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
fn known() -> MutexGuard<'static, Option<Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// The books of this process: a fork keeps the mappings that it has handles of, and makes
    /// its own in segments of its own.
    fn of_now(slot: &mut Option<Known>) -> &mut Self {
        let known = slot.get_or_insert_default();
        if known.generation != generation() {
            known.generation = generation();
            known.own = None;
            known.on_their_way.clear();
        }
        let now = Some(known.generation);
        // arrivals are counted for the maker: others cannot tell theirs from each other's
        known.on_their_way.retain(|shared| {
            let arrived = layout::arrivals(&shared.words);
            shared.made != now || arrived < shared.sent.load(Ordering::Relaxed)
        });
        known
    }

    fn make_slot(&mut self) -> Result<(Arc<Shared>, u32)> {
        let take = |shared: &Shared| shared.free().pop();
        if let Some(own) = &self.own
            && let Some(slot) = take(own)
        {
            return Ok((own.clone(), slot));
        }
        self.all.retain(|_, shared| shared.strong_count() > 0);
        let length = layout::SEGMENT_BYTES;
        let segment = Segment::create("oxgang-locks", length as u64)?;
        let words = Mapped::new(segment.map(0, length)?);
        let serial = RandomState::new().hash_one(me().pid());
        layout::create(&words, serial, me().pid());
        let free = Mutex::new((1..=layout::SLOTS).rev().collect());
        let (made, sent) = (Some(generation()), AtomicU64::new(0));
        let shared = Arc::new(Shared { serial, segment, words, made, free, sent });
        self.all.insert(serial, Arc::downgrade(&shared));
        self.own = Some(shared.clone());
        let slot =
            take(&shared).ok_or_else(|| std::io::Error::other("no slot in a new segment"))?;
        Ok((shared, slot))
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a primitive is, for another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Which segment.
    pub serial: u64,
    /// Which slot of it.
    pub slot: u32,
    /// A process that has it open.
    pub pid: u32,
    /// Under this number.
    pub fd: i32,
}

/// A handle of a primitive: its slot, and what keeps it there.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    /// Number of the slot.
    pub slot: u32,
    /// Offset of the slot.
    pub at: usize,
    /// A number that the primitive was made with.
    pub constant: u64,
    kind: u64,
    /// Generation and forks at the time it was made; `None`: made by another process.
    made: Option<(u64, u64)>,
    shown: AtomicBool,
}

impl Place {
    /// A new one, of this kind.
    ///
    /// # Errors
    /// If there is no memory or descriptor for a segment.
    pub fn make(kind: u64, constant: u64) -> Result<Self> {
        let (shared, slot) = Known::of_now(&mut known()).make_slot()?;
        let at = layout::slot(slot).ok_or_else(|| std::io::Error::other("no such slot"))?;
        layout::set_up(&shared.words, at, kind, constant);
        let made = Some((generation(), crate::forks()));
        Ok(Self { shared, slot, at, constant, kind, made, shown: AtomicBool::new(false) })
    }

    /// The one that another process (or this one) has at `address`; `inherited`: the number of a
    /// descriptor of it in this process, if there is one.
    ///
    /// # Errors
    /// If nobody has it open any more under that number, or something else is there.
    pub fn attach(address: Address, kind: u64, inherited: Option<i32>) -> Result<Self> {
        let at = layout::slot(address.slot).ok_or_else(|| std::io::Error::other("no such slot"))?;
        let mut known = known();
        let known = Known::of_now(&mut known);
        let here = known.all.get(&address.serial).and_then(Weak::upgrade);
        let shared = match here {
            Some(shared) => shared,
            None => {
                let shared = Arc::new(open(address, inherited)?);
                known.all.retain(|_, shared| shared.strong_count() > 0);
                known.all.insert(address.serial, Arc::downgrade(&shared));
                shared
            }
        };
        if inherited.is_none() {
            layout::note_arrival(&shared.words, address.pid);
        }
        let constant = layout::constant(&shared.words, at, kind).map_err(std::io::Error::other)?;
        let slot = address.slot;
        Ok(Self { shared, slot, at, constant, kind, made: None, shown: AtomicBool::new(true) })
    }

    /// Its address, for a process that will inherit the descriptor.
    #[must_use]
    pub fn show(&self) -> Address {
        self.shown.store(true, Ordering::Relaxed);
        Address {
            serial: self.shared.serial,
            slot: self.slot,
            pid: me().pid(),
            fd: self.shared.segment.as_fd().as_raw_fd(),
        }
    }

    /// Its address, for a process that runs already. The segment stays open until it has arrived.
    #[must_use]
    pub fn send(&self) -> Address {
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        let mut known = known();
        let known = Known::of_now(&mut known);
        if !known.on_their_way.iter().any(|shared| Arc::ptr_eq(shared, &self.shared)) {
            known.on_their_way.push(self.shared.clone());
        }
        self.show()
    }

    /// The memory.
    #[must_use]
    pub fn words(&self) -> &Mapped {
        &self.shared.words
    }

    /// The nodes beside it.
    #[must_use]
    pub fn nodes(&self) -> Nodes<Mapped> {
        layout::nodes(self.shared.words.clone())
    }

    /// Looks for a node; if there is none, takes back those of the dead and looks once more. No guard
    /// may be held.
    pub fn find_room<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        look().or_else(|| {
            reclaim(self.words(), me(), &Wait::steadfast(self.words()));
            look()
        })
    }

    /// A number by which all processes know it.
    #[must_use]
    pub fn identity(&self) -> (u64, u32) {
        (self.shared.serial, self.slot)
    }
}

fn open(address: Address, inherited: Option<i32>) -> Result<Shared> {
    let own = inherited.map(|fd| (me().pid(), fd));
    let mut refused = None;
    for (pid, fd) in own.into_iter().chain([(address.pid, address.fd)]) {
        match open_at(pid, fd, address.serial) {
            Ok(shared) => return Ok(shared),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| std::io::Error::other("nowhere to be found")))
}

fn open_at(pid: u32, fd: i32, serial: u64) -> Result<Shared> {
    let segment = Segment::open_of(pid, fd)?;
    let words = Mapped::new(segment.map(0, layout::SEGMENT_BYTES)?);
    layout::check(&words, serial).map_err(std::io::Error::other)?;
    let (free, sent) = (Mutex::default(), AtomicU64::new(0));
    Ok(Shared { serial, segment, words, made: None, free, sent })
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = (generation(), crate::forks());
        if self.made == Some(now) && !self.shown.load(Ordering::Relaxed) {
            self.nodes().forget(self.slot);
            self.shared.free().push(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_of(place: &Place) -> Lock<Mapped> {
        Lock::new(place.words().clone(), place.at)
    }

    #[test]
    fn a_slot_is_used_again_unless_it_was_shown() {
        let first = Place::make(1, 7).unwrap();
        let (identity, slot) = (first.identity(), first.slot);
        lock_of(&first).try_take(me());
        drop(first);
        let again = Place::make(1, 8).unwrap();
        assert_eq!((again.identity(), again.constant), (identity, 8));
        assert!(lock_of(&again).is_free(), "as new");
        let address = again.send();
        drop(again);
        assert_ne!(Place::make(1, 7).unwrap().slot, slot);
        let back = Place::attach(address, 1, None).unwrap();
        assert_eq!(back.constant, 8);
        assert!(Place::attach(address, 2, None).is_err(), "another kind");
    }

    #[test]
    fn a_segment_is_opened_by_the_number_of_a_descriptor() {
        let place = Place::make(1, 7).unwrap();
        let address = place.show();
        let other = open_at(address.pid, address.fd, address.serial).unwrap();
        let lock = Lock::new(other.words.clone(), place.at);
        assert!(lock.try_take(me()));
        assert_eq!(lock_of(&place).owner(), Some(me()));
        assert!(open_at(address.pid, address.fd, address.serial + 1).is_err(), "another segment");
    }

    #[test]
    fn threads_exclude_each_other_and_deadlines_hold() {
        let place = Place::make(1, 0).unwrap();
        let total = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let lock = lock_of(&place);
                    for _ in 0..2000 {
                        let wait = Wait::steadfast(place.words());
                        assert_eq!(lock.take(me(), &wait, false), Taken::Yes);
                        let seen = total.load(Ordering::Relaxed);
                        std::hint::spin_loop();
                        total.store(seen + 1, Ordering::Relaxed);
                        lock.release(&wait).unwrap();
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 8000);
        let lock = lock_of(&place);
        assert!(lock.try_take(me()));
        let began = Instant::now();
        let limit = Duration::from_millis(30);
        let wait = Wait::new(place.words(), Some(began + limit), &|_| false);
        assert_eq!(lock.take(me(), &wait, false), Taken::No);
        assert!(began.elapsed() >= limit);
    }

    #[test]
    fn a_dead_process_is_noticed() {
        let place = Place::make(1, 0).unwrap();
        let lock = lock_of(&place);
        let (child, link) = process::spawn("cat".as_ref(), &[]).unwrap();
        let pid = child.pid.unsigned_abs();
        let other = Who::new(pid, process::started(pid), pid);
        assert!(lock.try_take(other));
        let wait = Wait::steadfast(place.words());
        assert_eq!(lock.take_now(me(), &wait, false), Taken::No, "it lives");
        drop(link); // it ends, and nobody has reaped it
        assert_eq!(lock.take(me(), &wait, false), Taken::FromDead(other));
        assert!(child.exit(true).is_some());
    }
}
