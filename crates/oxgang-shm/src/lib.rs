//! What lives in memory that processes share, as protocols over plain words.
//!
//! Nothing here makes a system call or maps a page: every structure is written against
//! [`Words`], a run of 64-bit atomic words with a byte window. The same code runs over a
//! mapped segment, over heap memory in tests, under loom, and over memory whose user dies
//! after its n-th step. That is why the protocols can be checked at all.
//!
//! | module | holds |
//! |---|---|
//! | [`words`] | the door to memory, and its heap version |
//! | [`ring`] | one-to-one byte ring of frames; claim and revoke of a frame |
//! | [`channel`] | two rings and a bell: everything between an owner and one worker |
//! | [`line`] | two rings between two that talk in turns |
//! | [`oversight`] | since when the task with limits runs, and how it is interrupted |
//! | [`watch`] | how a worker decides whom to wake in the owner |
//! | [`sync`] | locks, semaphores, events, conditions, barriers that survive their users |
//! | [`queue`] | messages from many senders to many receivers |
//! | [`arena`] | who holds which part of a growing file of blocks |
//!
//! Words read from shared memory are input from a stranger: the peer may have died in the
//! middle of anything. Positions and lengths are checked on a private copy before use, and
//! what does not add up is a [`Corrupt`] error, never a panic.

#![forbid(unsafe_code)]

pub mod arena;
pub mod channel;
pub mod line;
pub mod oversight;
pub mod queue;
pub mod ring;
pub mod sync;
pub mod watch;
pub mod words;

pub use words::{HeapWords, Words};

/// Shared memory holds something that no sound peer writes. The channel must be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl std::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shared memory is corrupt: {}", self.0)
    }
}

impl std::error::Error for Corrupt {}
