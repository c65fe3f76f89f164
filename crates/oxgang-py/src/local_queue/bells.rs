//! Event loops at a native queue.
//!
//! An event loop cannot sleep on a seat. It watches the descriptor of a *bell*: whoever puts an item
//! rings every bell that was asked for, once, so many items in a row cost one ring. Bells are rung
//! with the books open, since a ring is one write that never waits.

use std::os::fd::{AsFd, AsRawFd};

use oxgang_os::event::WakeUp;
use pyo3::prelude::*;

struct Bell {
    number: u64,
    wake: WakeUp,
    asked: bool,
}

/// Those who want to be told of items.
#[derive(Default)]
pub struct Bells {
    all: Vec<Bell>,
    next: u64,
    asked: bool,
}

impl Bells {
    /// A new one: its number, and its descriptor.
    pub fn add(&mut self) -> PyResult<(u64, i32)> {
        let wake = WakeUp::new()?;
        let (number, fd) = (self.next, wake.as_fd().as_raw_fd());
        self.next += 1;
        self.all.push(Bell { number, wake, asked: false });
        Ok((number, fd))
    }

    pub fn ask(&mut self, number: u64) {
        for bell in self.all.iter_mut().filter(|bell| bell.number == number) {
            bell.asked = true;
            self.asked = true;
        }
    }

    pub fn hush(&self, number: u64) {
        for bell in self.all.iter().filter(|bell| bell.number == number) {
            bell.wake.clear();
        }
    }

    pub fn remove(&mut self, number: u64) -> Option<WakeUp> {
        let place = self.all.iter().position(|bell| bell.number == number)?;
        Some(self.all.swap_remove(place).wake)
    }

    /// Rings all that were asked for.
    #[inline]
    pub fn ring(&mut self) {
        if self.asked {
            self.ring_all();
        }
    }

    #[cold]
    fn ring_all(&mut self) {
        self.asked = false;
        for bell in &mut self.all {
            if std::mem::take(&mut bell.asked) {
                bell.wake.ring();
            }
        }
    }
}
