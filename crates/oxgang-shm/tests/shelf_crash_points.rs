//! A process dies after every single step of sending and receiving messages whose long bytes are on
//! the shelf; and the others go on.
//!
//! Checked for each point of death: what arrives is whole and in order; what somebody looks at never
//! changes; when nobody looks any more all slots are free. The kernel's part, who holds which slot, is
//! played here: a process that dies lets go of everything.

use std::cell::{Cell, RefCell};
use std::io::Result;
use std::rc::Rc;

use oxgang_shm::Words;
use oxgang_shm::queue::shelf::{Holds, Parcel, head_bytes};
use oxgang_shm::queue::{Got, Load, Patience, Queue, Rings, Sent, Shape, Shown};
use oxgang_shm::sync::Who;

mod mortals;

use mortals::{Process, World, every_point, who};

const SLOTS: u32 = 3;
const SHAPE: Shape = Shape { most: 0, limit: 0, first: 512, rings: 1, slots: SLOTS };
const HEAD: usize = head_bytes(SLOTS).next_multiple_of(8);
const SLOT: usize = 64;
const SHELF: usize = HEAD + SHAPE.first;
const VICTIM: u32 = 100;
const HEIR: u32 = 200;
const OTHER: u32 = 300;

/// The one ring, behind the head.
#[derive(Clone)]
struct Ring(Process);

impl Words for Ring {
    fn len(&self) -> usize {
        SHAPE.first
    }
    fn load(&self, at: usize, order: std::sync::atomic::Ordering) -> u64 {
        self.0.load(HEAD + at, order)
    }
    fn store(&self, at: usize, value: u64, order: std::sync::atomic::Ordering) {
        self.0.store(HEAD + at, value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> std::result::Result<u64, u64> {
        self.0.compare_exchange(HEAD + at, current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.0.fetch_add(HEAD + at, by)
    }
    fn fence(&self) {
        self.0.fence();
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.write(HEAD + at, bytes);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        self.0.read(HEAD + at, into);
    }
}

impl Rings for Ring {
    type Memory = Self;
    fn ring(&self, _number: u32) -> Result<Self> {
        Ok(self.clone())
    }
    fn release(&self, _number: u32) {}
}

/// What the kernel knows: slot, who holds it, and whether alone.
#[derive(Clone, Default)]
struct Kernel(Rc<RefCell<Vec<(u32, u32, bool)>>>);

impl Kernel {
    fn try_hold(&self, slot: u32, pid: u32, alone: bool) -> bool {
        let mut held = self.0.borrow_mut();
        let excluded = held.iter().any(|one| one.0 == slot && (alone || one.2));
        if !excluded {
            held.push((slot, pid, alone));
        }
        !excluded
    }

    /// Who holds it alone goes on beside others.
    fn share(&self, slot: u32, pid: u32) {
        let mut held = self.0.borrow_mut();
        let place = held.iter().position(|one| *one == (slot, pid, true)).expect("held alone");
        held[place].2 = false;
    }

    fn let_go(&self, slot: u32, pid: u32) {
        let mut held = self.0.borrow_mut();
        let place = held.iter().position(|one| (one.0, one.1) == (slot, pid)).expect("held");
        held.remove(place);
    }

    fn died(&self, pid: u32) {
        self.0.borrow_mut().retain(|one| one.1 != pid);
    }
}

/// A process with its queue.
struct User {
    process: Process,
    queue: Queue<Process, Ring>,
    pid: u32,
    kernel: Kernel,
}

/// What was received: bytes, or a slot that is looked at.
#[derive(Debug)]
enum Came {
    Copy(Vec<u8>),
    Look(Parcel),
}

impl Holds for User {
    fn try_hold(&self, slot: u32) -> Result<bool> {
        self.process.step();
        Ok(self.kernel.try_hold(slot, self.pid, true))
    }
    fn let_go(&self, slot: u32) -> Result<()> {
        self.process.step();
        self.kernel.let_go(slot, self.pid);
        Ok(())
    }
}

impl User {
    fn new(process: Process, pid: u32, kernel: &Kernel) -> Self {
        let queue = Queue::open(process.clone(), 0, Ring(process.clone())).unwrap();
        Self { queue, process, pid, kernel: kernel.clone() }
    }

    fn me(&self) -> Who {
        who(self.pid)
    }

    fn send(&self, bytes: &[u8]) {
        let slot = self.queue.hold_free(bytes.len() as u64, self).unwrap().map(|free| free.slot);
        let parcel = slot.map(|slot| Parcel { slot, bytes: bytes.len() as u64 });
        if let Some(slot) = slot {
            self.queue.note_warm(slot, SLOT as u64);
            self.process.write(SHELF + slot as usize * SLOT, bytes);
            self.process.step();
            self.kernel.share(slot, self.pid);
        }
        let parts: &[&[u8]] = if parcel.is_some() { &[b"p"] } else { &[b"i", bytes] };
        let load = Load { parts, parcel };
        let sent = self.queue.send(self.me(), &self.process, Patience::Some, true, load);
        assert_eq!(sent.unwrap(), Sent::Yes);
        if let Some(slot) = slot {
            self.let_go(slot).unwrap();
        }
    }

    fn receive(&self) -> Option<Came> {
        let mut came = None;
        let take = |shown: Shown<'_>| {
            let mut line = Vec::new();
            shown.copy(&mut line)?;
            came = Some(match shown.parcel {
                None => Came::Copy(line[1..].to_vec()),
                Some(parcel) => {
                    self.process.step();
                    match self.kernel.try_hold(parcel.slot, self.pid, false) {
                        true => Came::Look(parcel),
                        false => Came::Copy(self.bytes(parcel)),
                    }
                }
            });
            Ok(())
        };
        let got = self.queue.receive(self.me(), &self.process, Patience::Some, usize::MAX, take);
        match got.unwrap() {
            Got::Message => came,
            Got::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    fn bytes(&self, parcel: Parcel) -> Vec<u8> {
        let mut bytes = vec![0; parcel.bytes as usize];
        self.process.read(SHELF + parcel.slot as usize * SLOT, &mut bytes);
        bytes
    }

    fn content(&self, came: &Came) -> Vec<u8> {
        match came {
            Came::Copy(bytes) => bytes.clone(),
            Came::Look(parcel) => self.bytes(*parcel),
        }
    }

    fn look_away(&self, came: &Came) {
        if let Came::Look(parcel) = came {
            self.kernel.let_go(parcel.slot, self.pid);
        }
    }
}

fn message(number: usize) -> Vec<u8> {
    (0..9 + number * 5).map(|at| (at * 3 + number) as u8).collect()
}

fn world() -> (World, Kernel) {
    let world = World::new(SHELF + SLOTS as usize * SLOT);
    Queue::<_, Ring>::create(&world.immortal(), 0, SHAPE);
    (world, Kernel::default())
}

/// All that is in the queue, whole: what the messages are.
fn drained(other: &User) -> Vec<Vec<u8>> {
    let came: Vec<_> = std::iter::from_fn(|| other.receive()).collect();
    let contents = came.iter().map(|came| other.content(came)).collect();
    came.iter().for_each(|came| other.look_away(came));
    contents
}

/// When nobody looks and nothing waits, all slots are free, and the queue goes on.
fn as_ever(other: &User) {
    let free: Vec<_> =
        (0..SLOTS).filter_map(|_| other.queue.hold_free(1, other).unwrap()).collect();
    assert_eq!(free.len(), SLOTS as usize, "{:?}", other.kernel.0);
    free.iter().for_each(|free| other.let_go(free.slot).unwrap());
    (0..3).for_each(|number| other.send(&message(number)));
    let came: Vec<_> = std::iter::from_fn(|| other.receive()).collect();
    assert!(came.iter().all(|came| matches!(came, Came::Look(_))), "{came:?}");
    for (number, came) in came.iter().enumerate() {
        assert_eq!(other.content(came), message(number));
        other.look_away(came);
    }
}

#[test]
fn whatever_a_sender_leaves_nobody_sees_a_slot_change() {
    let points = every_point(|steps| {
        let ((world, kernel), returned) = (world(), Cell::new(0));
        let other = User::new(world.immortal(), OTHER, &kernel);
        other.send(&message(9));
        let look = other.receive().unwrap();
        let died = world.live(who(VICTIM), steps, |victim| {
            let victim = User::new(victim, VICTIM, &kernel);
            for number in 0..4 {
                victim.send(&message(number));
                returned.set(number + 1);
            }
        });
        kernel.died(VICTIM);
        let sent = other.queue.count() as usize;
        assert!((returned.get()..=returned.get() + 1).contains(&sent), "{sent}");
        // more than there are slots: the rest in line
        (sent..sent + 3).for_each(|number| other.send(&message(number)));
        assert_eq!(drained(&other), (0..sent + 3).map(message).collect::<Vec<_>>());
        assert_eq!(other.content(&look), message(9), "it was looked at");
        other.look_away(&look);
        as_ever(&other);
        died
    });
    assert!(points > 60, "{points}");
}

#[test]
fn whatever_a_receiver_leaves_is_there_or_free() {
    let points = every_point(|steps| {
        let ((world, kernel), received) = (world(), RefCell::new(Vec::new()));
        let other = User::new(world.immortal(), OTHER, &kernel);
        (0..4).for_each(|number| other.send(&message(number)));
        let died = world.live(who(VICTIM), steps, |victim| {
            let victim = User::new(victim, VICTIM, &kernel);
            while let Some(came) = victim.receive() {
                // it looks at all of them to its end
                received.borrow_mut().push(victim.content(&came));
            }
        });
        kernel.died(VICTIM);
        let had = received.into_inner();
        assert_eq!(had, (0..had.len()).map(message).collect::<Vec<_>>());
        let left = drained(&other);
        assert!((3..=4).contains(&(had.len() + left.len())), "one may have died with it");
        assert_eq!(left, (4 - left.len()..4).map(message).collect::<Vec<_>>());
        as_ever(&other);
        died
    });
    assert!(points > 60, "{points}");
}

#[test]
fn an_heir_that_dies_leaves_what_any_dead_leaves() {
    for sends in [true, false] {
        let points = every_point(|steps| {
            let mut died = false;
            every_point(|steps_of_heir| {
                let (world, kernel) = world();
                let other = User::new(world.immortal(), OTHER, &kernel);
                other.send(&message(9));
                let look = other.receive().unwrap();
                other.send(&message(0));
                let life = |pid: u32| {
                    let kernel = &kernel;
                    move |process: Process| {
                        let user = User::new(process, pid, kernel);
                        if sends {
                            user.send(&message(1));
                        } else {
                            let _came = user.receive();
                        }
                    }
                };
                died = world.live(who(VICTIM), steps, life(VICTIM));
                kernel.died(VICTIM);
                let heir_died = world.live(who(HEIR), steps_of_heir, life(HEIR));
                kernel.died(HEIR);
                other.send(&message(2));
                let mut left = drained(&other);
                assert_eq!(left.pop(), Some(message(2)));
                if sends {
                    assert_eq!(left.remove(0), message(0));
                    assert!(left.len() <= 2 && left.iter().all(|one| *one == message(1)));
                } else {
                    assert!(left.is_empty() || left == [message(0)]);
                }
                assert_eq!(other.content(&look), message(9));
                other.look_away(&look);
                as_ever(&other);
                heir_died
            });
            died
        });
        assert!(points > 20, "{points}");
    }
}
