//! Processes that die after so many steps, over memory that counts them.
//!
//! Every load, store and compare-exchange is a step, so is each half of a copy, and each call of the
//! kernel. Nobody really sleeps: a sleep is a slice, and who has slept many dies or is stopped.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxgang_shm::sync::{Kernel, Rest, Who};
use oxgang_shm::{HeapWords, Words};

/// What a process that has died panics with.
pub struct Died;

/// More slices than any recovery takes.
const PATIENCE: usize = 20;

/// One process: its memory, its kernel, its remaining steps.
#[derive(Clone)]
pub struct Process {
    pub memory: Arc<HeapWords>,
    dead: Rc<RefCell<Vec<Who>>>,
    steps_left: Rc<Cell<usize>>,
    patience: Rc<Cell<usize>>,
    mortal: bool,
}

pub struct World {
    memory: Arc<HeapWords>,
    dead: Rc<RefCell<Vec<Who>>>,
}

impl World {
    pub fn new(bytes: usize) -> Self {
        Self { memory: Arc::new(HeapWords::new(bytes)), dead: Rc::default() }
    }

    pub fn process(&self, steps: usize, mortal: bool) -> Process {
        Process {
            memory: self.memory.clone(),
            dead: self.dead.clone(),
            steps_left: Rc::new(Cell::new(steps)),
            patience: Rc::new(Cell::new(PATIENCE)),
            mortal,
        }
    }

    pub fn immortal(&self) -> Process {
        self.process(usize::MAX, false)
    }

    /// Lets `life` happen to `who` until it ends or the steps do; whether they did. A victim that
    /// would sleep for ever is killed in its sleep, and has had all the steps it could have. A process that
    /// ends has died too, as far as the others are concerned, but with all that it wanted done.
    pub fn live(&self, who: Who, steps: usize, life: impl FnOnce(Process)) -> bool {
        let process = self.process(steps, true);
        let (steps_left, patience) = (process.steps_left.clone(), process.patience.clone());
        let ended = catch_unwind(AssertUnwindSafe(|| life(process)));
        self.dead.borrow_mut().push(who.process());
        match ended {
            Ok(()) => false,
            Err(cause) if cause.is::<Died>() => steps_left.get() == 0 && patience.get() > 0,
            Err(cause) => std::panic::resume_unwind(cause),
        }
    }
}

impl Process {
    /// The same process, which does not die any more.
    #[allow(dead_code, reason = "not all tests need it")]
    pub fn for_ever(&self) -> Self {
        Self { mortal: false, ..self.clone() }
    }

    /// One step.
    pub fn step(&self) {
        if self.mortal {
            match self.steps_left.get() {
                0 => panic_any(Died),
                left => self.steps_left.set(left - 1),
            }
        }
    }
}

impl Words for Process {
    fn len(&self) -> usize {
        self.memory.len()
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.step();
        self.memory.load(at, order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.step();
        self.memory.store(at, value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.step();
        self.memory.compare_exchange(at, current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.step();
        self.memory.fetch_add(at, by)
    }
    fn fence(&self) {}
    fn write(&self, at: usize, bytes: &[u8]) {
        let half = bytes.len() / 2;
        self.step();
        self.memory.write(at, &bytes[..half]);
        self.step();
        self.memory.write(at + half, &bytes[half..]);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        self.step();
        self.memory.read(at, into);
    }
}

impl Kernel for Process {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        self.step();
        if self.memory.load(at, Ordering::Acquire) as u32 != seen {
            return Rest::Over;
        }
        self.patience.set(self.patience.get() - 1);
        match self.patience.get() {
            0 if self.mortal => panic_any(Died),
            0 => Rest::Stop,
            _ => Rest::Slice,
        }
    }
    fn wake(&self, _at: usize, _all: bool) {
        self.step();
    }
    fn alive(&self, who: Who) -> bool {
        self.step();
        !self.dead.borrow().contains(&who.process())
    }
}

/// Runs `one_death(steps)` until the victim comes to its natural end; how many points there were.
pub fn every_point(mut one_death: impl FnMut(usize) -> bool) -> usize {
    quiet();
    let mut steps = 0;
    while one_death(steps) {
        steps += 1;
    }
    steps
}

pub fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Died>() {
            eprintln!("{info}");
        }
    }));
}

pub fn who(pid: u32) -> Who {
    Who::new(pid, 5, pid)
}
