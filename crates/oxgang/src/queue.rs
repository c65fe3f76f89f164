//! A queue between processes: any number of senders and receivers, threads of any processes.
//!
//! Messages are bytes; what they mean is their users' affair. `multiprocessing.Queue` and its kin are
//! dresses of this, and so can be whatever else needs a queue that processes share: make one with
//! [`Queue::create`], pass it by [`Queue::address`] (to a process that inherits the descriptors) or
//! [`Queue::send_handle`] (to one that runs already) and [`Queue::open`], and give each wait a
//! [`Wait`]. A receiver that cannot block, such as an event loop, takes [`Queue::watch_fd`]: that
//! descriptor is readable while there is something to receive, and it looks with
//! [`Patience::None`].
//!
//! # On the way
//!
//! A handle that was sent to a process that runs already keeps the queue open here until it has
//! arrived, as with regions. One that never arrives keeps it until this process ends.

use std::collections::HashMap;
use std::io::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use oxgang_os::event;
use oxgang_shm::queue::{Load, Shown};

use crate::forking::ForkedBooks;
use crate::lane::{self, Bell, Got, Lane, Patience, Sent};
use crate::region::{self, Key, Region};
use crate::segment::Mapped;
use crate::shelf::{self, Came, Idle, Letter, Quiet};
use crate::spin::{Spinner, budget_of_process};
use crate::sync::{Wait, me};

/// How long a sender that may wait does so for room before it takes new memory, which it does a few
/// times in a queue's life: new pages are dear, and what is far ahead is in no cache any more when it is
/// taken.
const MOMENT: Duration = Duration::from_millis(2);

/// A queue, as a process has it.
#[derive(Debug)]
pub struct Queue {
    region: Arc<Region>,
    lane: Lane,
    doorbell: OwnedFd,
    spinner: Mutex<Spinner>,
    quiet: Quiet,
}

/// Where a queue can be had: its region, and the number of its doorbell in the same process.
pub type Address = (region::Address, i32);

/// What this process knows of queues.
#[derive(Default)]
pub(crate) struct Books {
    open: HashMap<Key, Weak<Queue>>,
    /// With the generation of the process that sent them.
    leaving: Vec<(u64, Arc<Queue>)>,
}

pub(crate) static BOOKS: ForkedBooks<Books> = ForkedBooks::new();

fn books<T>(look: impl FnOnce(&mut Books) -> T) -> T {
    BOOKS.with(look)
}

/// Lets go of what has arrived, and in a fork of what its parent has sent.
fn sweep() {
    let gone = books(|books| {
        books.open.retain(|_, queue| queue.strong_count() > 0);
        let all = std::mem::take(&mut books.leaving);
        let (stay, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|(born, queue)| {
            *born == crate::generation() && queue.region.is_on_its_way()
        });
        books.leaving = stay;
        gone
    });
    drop(gone);
}

impl Queue {
    /// A new one for up to `most` messages at a time; 0: any number.
    ///
    /// # Errors
    /// If there is no memory or descriptor for it.
    pub fn create(most: u64) -> Result<Arc<Self>> {
        sweep();
        let region = lane::create(&[lane::shape(most, 0)])?;
        Self::of(region, event::endless_pipe()?)
    }

    /// The one at an address: the one that is open here already, if it is. `inherited`: the numbers
    /// of descriptors of this process that stand for the two of the address; otherwise a handle
    /// has arrived.
    ///
    /// # Errors
    /// If the process at the address has ended, or has let go of it.
    pub fn open(address: Address, inherited: Option<(i32, i32)>) -> Result<Arc<Self>> {
        let ((pid, fd, key), doorbell) = address;
        let known = books(|books| books.open.get(&key).and_then(Weak::upgrade));
        let queue = match known {
            Some(queue) => queue,
            None => {
                let (pid, fd, doorbell) = match inherited {
                    Some((fd, doorbell)) => (std::process::id(), fd, doorbell),
                    None => (pid, fd, doorbell),
                };
                let region = Region::open((pid, fd, key))?;
                Self::of(region, event::endless_pipe_of(pid, doorbell)?)?
            }
        };
        if inherited.is_none() {
            queue.region.arrive();
        }
        Ok(queue)
    }

    fn of(region: Arc<Region>, doorbell: OwnedFd) -> Result<Arc<Self>> {
        let lane = lane::open(&region, 0, 1)?;
        let spinner = Mutex::new(Spinner::new(budget_of_process()));
        let key = region.key();
        let queue = Arc::new(Self { region, lane, doorbell, spinner, quiet: Quiet::default() });
        books(|books| books.open.insert(key, Arc::downgrade(&queue)));
        Ok(queue)
    }

    /// Its address, for a process that inherits the descriptors.
    #[must_use]
    pub fn address(&self) -> Address {
        (self.region.address(), self.doorbell.as_raw_fd())
    }

    /// Its address, for a process that runs already.
    #[must_use]
    pub fn send_handle(self: &Arc<Self>) -> Address {
        sweep();
        let address = self.region.send();
        books(|books| {
            if !books.leaving.iter().any(|(_, queue)| Arc::ptr_eq(queue, self)) {
                books.leaving.push((crate::generation(), self.clone()));
            }
        });
        (address, self.doorbell.as_raw_fd())
    }

    /// Which one it is.
    #[must_use]
    pub fn key(&self) -> Key {
        self.region.key()
    }

    /// The messages and their counts.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The memory that waits are made on.
    #[must_use]
    pub fn words(&self) -> &Mapped {
        // a queue is never without: its head is in there
        self.lane.words().mapped()
    }

    fn idle<'a>(&'a self, wait: &'a Wait<'a>) -> Idle<'a> {
        Idle { wait, lane: &self.lane, quiet: &self.quiet }
    }

    fn bell(&self) -> Bell<'_> {
        Bell::Both(self.doorbell.as_fd())
    }

    /// Sends one message. `wait`: for room, as long as `kernel` waits.
    ///
    /// # Errors
    /// If there is no memory for it, or the queue is corrupt.
    pub fn send(&self, kernel: &Wait<'_>, wait: bool, letter: Letter<'_>) -> Result<Sent> {
        if !shelf::worth(&self.lane, letter.apart) {
            return shelf::loaded(None, letter, |load| self.send_load(kernel, wait, load));
        }
        if !wait && !self.lane.may_send(shelf::size(letter)) {
            return Ok(Sent::Full);
        }
        // before there is room: while others receive what came before
        let packed = shelf::pack(&self.lane, letter.apart);
        shelf::loaded(packed.as_ref(), letter, |load| self.send_load(kernel, wait, load))
    }

    fn send_load(&self, kernel: &Wait<'_>, wait: bool, load: Load<'_>) -> Result<Sent> {
        let (me, bell) = (me(), self.bell());
        self.lane.herald(me, kernel, &bell);
        let mut sent = self.lane.send(me, kernel, Patience::Some, false, load)?;
        let size = load.size();
        if sent == Sent::Tight {
            let room = || self.lane.may_send_here(size);
            if wait && !lane::spin(&self.lane, &self.spinner, kernel, room) {
                let moment = Wait::new(self.words(), Some(Instant::now() + MOMENT), &|_| false);
                self.lane.wait_for_room_here(size, &moment);
            }
            sent = self.lane.send(me, kernel, Patience::Some, true, load)?;
        }
        if sent == Sent::Full && wait {
            lane::spin(&self.lane, &self.spinner, kernel, || self.lane.may_send(size));
            sent = self.lane.send_in_time(me, kernel, load)?;
        }
        self.lane.announce(me, kernel, &bell);
        Ok(sent)
    }

    /// Sends the parts as one message if that needs no waiting at all: [`Sent::Busy`], [`Sent::Full`] or [`Sent::Tight`] if it
    /// does.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_now(&self, parts: &[&[u8]]) -> Result<Sent> {
        let (me, bell, kernel) = (me(), self.bell(), Wait::steadfast(self.words()));
        self.lane.herald(me, &kernel, &bell);
        let sent = self.lane.send(me, &kernel, Patience::None, false, parts.into());
        self.lane.announce(me, &kernel, &bell);
        sent
    }

    /// Receives a message by `take`, as [`Core::receive`](lane::Core::receive). `wait`: for one,
    /// as long as `kernel` waits.
    ///
    /// # Errors
    /// If there is no memory for it, the queue is corrupt, or `take` fails.
    pub fn receive(
        &self,
        kernel: &Wait<'_>,
        wait: bool,
        mut take: impl FnMut(Came<'_>) -> Result<()>,
    ) -> Result<Got> {
        let (me, bell) = (me(), self.bell());
        let mut take = |shown: Shown<'_>| take(shelf::unpack(&self.lane, shown)?);
        let mut got = self.lane.receive(me, kernel, Patience::Some, usize::MAX, &mut take)?;
        if got == Got::Nothing && wait {
            lane::spin(&self.lane, &self.spinner, kernel, || self.lane.has_more());
            got = self.lane.receive_in_time(me, &self.idle(kernel), take)?;
        }
        self.lane.denounce(me, kernel, &bell, false);
        Ok(got)
    }

    /// Receives if that needs no waiting at all, and the message is not longer than `longest`; by
    /// `take`, as [`Core::receive`](lane::Core::receive).
    ///
    /// # Errors
    /// As [`receive`](Self::receive), or if `take` fails.
    #[inline]
    pub fn receive_now(
        &self,
        longest: usize,
        take: impl FnOnce(Came<'_>) -> Result<()>,
    ) -> Result<Got> {
        let (me, bell, kernel) = (me(), self.bell(), Wait::steadfast(self.words()));
        let take = |shown: Shown<'_>| take(shelf::unpack(&self.lane, shown)?);
        let got = self.lane.receive(me, &kernel, Patience::None, longest, take);
        self.lane.denounce(me, &kernel, &bell, false);
        got
    }

    /// Waits until there is something to receive; `false`: the wait was stopped before.
    pub fn wait(&self, kernel: &Wait<'_>) -> bool {
        let more = || self.lane.has_more();
        more()
            || lane::spin(&self.lane, &self.spinner, kernel, more)
            || self.lane.wait_for_more(&self.idle(kernel))
    }

    /// Nothing more is sent. `at_once`: nor received.
    pub fn shut(&self, at_once: bool) {
        let kernel = Wait::steadfast(self.words());
        self.lane.shut(at_once, &kernel);
        if self.lane.is_watched() {
            self.lane.settle(me(), &kernel, &self.bell());
        }
    }

    /// A descriptor that is readable while there is something to receive (or the queue is shut);
    /// from now on, and as long as this process has the queue open. Only to be looked at: whoever
    /// reads from it, or writes to it, deceives the others.
    pub fn watch_fd(&self) -> BorrowedFd<'_> {
        self.lane.watch();
        self.lane.settle(me(), &Wait::steadfast(self.words()), &self.bell());
        self.doorbell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(queue: &Queue) -> Wait<'_> {
        Wait::steadfast(queue.words())
    }

    #[test]
    fn threads_send_and_receive_everything_once() {
        let queue = Queue::create(10).unwrap();
        let (senders, each) = (3_u64, 2000_u64);
        let mut all = std::thread::scope(|scope| {
            for sender in 0..senders {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..each {
                        let message = (sender << 32 | number).to_le_bytes();
                        let padding = vec![0; (number % 100) as usize];
                        let sent = queue
                            .send(&wait(queue), true, (&[&message[..], &padding][..]).into())
                            .unwrap();
                        assert_eq!(sent, Sent::Yes);
                    }
                });
            }
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut into, mut seen) = (Vec::new(), Vec::new());
                        for _ in 0..senders * each / 2 {
                            let got = queue
                                .receive(&wait(&queue), true, |came| came.copy(&mut into))
                                .unwrap();
                            assert_eq!(got, Got::Message);
                            let number = u64::from_le_bytes(*into.first_chunk().unwrap());
                            assert_eq!(into.len() as u64, 8 + (number & 0xffff_ffff) % 100);
                            seen.push(number);
                        }
                        seen
                    })
                })
                .collect();
            let of_receivers: Vec<Vec<u64>> =
                receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
            for seen in &of_receivers {
                for sender in 0..senders {
                    let of_one = seen.iter().filter(|number| *number >> 32 == sender);
                    assert!(of_one.is_sorted(), "in order");
                }
            }
            of_receivers.concat()
        });
        all.sort_unstable();
        let expected: Vec<u64> = (0..senders)
            .flat_map(|sender| (0..each).map(move |number| sender << 32 | number))
            .collect();
        assert!(all == expected);
        assert_eq!(queue.lane().count(), 0);
    }

    #[test]
    fn long_messages_make_it_grow_and_their_memory_goes_back() {
        let queue = Queue::create(0).unwrap();
        let long = vec![5_u8; 20 << 20];
        for _ in 0..4 {
            assert_eq!(
                queue.send(&wait(&queue), true, (&[&long[..]][..]).into()).unwrap(),
                Sent::Yes
            );
        }
        let blocks = || {
            let (segment, _) = queue.region.segment().unwrap();
            segment.resident().unwrap()
        };
        assert!(blocks() > 80 << 20);
        let mut into = Vec::new();
        assert_eq!(queue.receive_now(1000, |_| Ok(())).unwrap(), Got::Long, "it stays");
        for _ in 0..4 {
            assert_eq!(
                queue.receive(&wait(&queue), true, |came| came.copy(&mut into)).unwrap(),
                Got::Message
            );
            assert!(into == long);
        }
        assert!(blocks() < 24 << 20, "{}", blocks());
        assert_eq!(queue.send_now(&[b"short"]).unwrap(), Sent::Yes);
    }

    #[test]
    fn a_handle_that_is_on_its_way_keeps_the_queue() {
        let queue = Queue::create(0).unwrap();
        queue.send_now(&[b"x"]).unwrap();
        let address = queue.send_handle();
        drop(queue);
        let arrived = Queue::open(address, None).unwrap();
        assert_eq!(arrived.lane().count(), 1);
        let inherited = arrived.address();
        let ((_, fd, _), doorbell) = inherited;
        let again = Queue::open(inherited, Some((fd, doorbell))).unwrap();
        assert!(Arc::ptr_eq(&again, &arrived), "open already");
        drop((arrived, again));
        sweep();
        assert!(Queue::open(address, None).is_err(), "everybody has let go");
    }

    #[test]
    fn deadlines_hold_and_watching_tells() {
        let queue = Queue::create(1).unwrap();
        let fd = queue.watch_fd();
        let now = Some(Duration::ZERO);
        assert_eq!(event::look(fd, now).unwrap(), event::Look::Nothing);
        queue.send_now(&[b"x"]).unwrap();
        assert_ne!(event::look(fd, now).unwrap(), event::Look::Nothing);
        let limit = Duration::from_millis(30);
        let (began, mut into) = (Instant::now(), Vec::new());
        let timed = Wait::new(queue.words(), Some(began + limit), &|_| false);
        assert_eq!(queue.send(&timed, true, (&[&b"y"[..]][..]).into()).unwrap(), Sent::Full);
        assert!(began.elapsed() >= limit);
        assert_eq!(queue.receive_now(9, |_| Ok(())).unwrap(), Got::Message);
        assert_eq!(event::look(fd, now).unwrap(), event::Look::Nothing);
        let timed = Wait::new(queue.words(), Some(Instant::now() + limit), &|_| false);
        assert_eq!(queue.receive(&timed, true, |came| came.copy(&mut into)).unwrap(), Got::Nothing);
        queue.shut(false);
        assert_ne!(event::look(fd, now).unwrap(), event::Look::Nothing);
        assert_eq!(
            queue.receive(&wait(&queue), true, |came| came.copy(&mut into)).unwrap(),
            Got::Shut
        );
    }
}
