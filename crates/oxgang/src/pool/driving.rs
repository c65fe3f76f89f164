//! The driver's part: what happens while nobody waits, and what only it does.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use oxgang_os::event::wait_readable;
use oxgang_os::process::{Exit, Process};
use oxgang_os::{Result, clock, memory};

use super::oversee::Measure;
use super::{Pool, Turn};
use crate::limits::NEVER;
use crate::starter::Notice;
use crate::supervisor::{Event, Incarnation};

/// How long a process that has ended may take to be reaped by who started it.
const REAPING: Duration = Duration::from_secs(2);

impl Pool {
    /// Drives the pool until it is over, for programs whose completions want no attention.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn drive(&self) -> Result<()> {
        while !self.turn(None)?.finished {}
        Ok(())
    }

    /// The driver's turn: waits for something to happen (for `limit` at most) and does what it
    /// calls for. Call it again until it says that all is over.
    ///
    /// # Errors
    /// If the pool's own descriptors fail; the pool is dead then.
    pub fn turn(&self, limit: Option<Duration>) -> Result<Turn> {
        let (processes, promised, tidy) = {
            let mut core = self.core();
            core.turn();
            let looked = core.oversee();
            if looked.acted {
                core.turn();
                self.wake_leader();
            }
            if !looked.measures.is_empty() {
                drop(core);
                self.measure(&looked.measures);
                core = self.core();
            }
            loop {
                let starts = std::mem::take(&mut core.starts);
                if starts.is_empty() {
                    break;
                }
                drop(core);
                self.start(starts);
                core = self.core();
            }
            let attention = std::mem::take(&mut core.attention);
            let finished = core.supervisor.finished();
            core.late_said = false;
            let late = core.due();
            if finished || !attention.is_empty() || late.is_some() {
                return Ok(Turn { attention, late, finished });
            }
            core.hurry = false; // what it is about is seen to below
            let tidy = core.tidy();
            let taken = core.lives.iter();
            let taken = taken.filter_map(|life| Some((life.incarnation, life.process.clone()?)));
            (taken.collect::<Vec<_>>(), core.promised, tidy)
        };
        let due = (promised != NEVER)
            .then(|| Duration::from_nanos(promised.saturating_sub(clock::now())));
        let limit = [limit, due, tidy].into_iter().flatten().min();
        let notices = self.starter.notice_link();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.wake.as_fd()];
        fds.extend(processes.iter().map(|(_, process)| process.as_fd()));
        fds.extend(notices.iter().map(|link| link.as_fd()));
        let ready = wait_readable(&fds, limit)?;
        if ready[0] {
            self.wake.clear();
        }
        self.take_notices();
        for ((one, process), _) in processes.iter().zip(&ready[1..]).filter(|(_, ended)| **ended) {
            let exit = self.exit_of(*one, process);
            let mut core = self.core();
            if let Some(life) = core.life(*one) {
                life.exit = exit;
            }
            core.handle(Event::Exited(*one));
            drop(core);
            self.wake_leader();
        }
        Ok(Turn { attention: Vec::new(), late: None, finished: false })
    }

    /// Looks at the memory of workers whose tasks have a limit.
    fn measure(&self, measures: &[Measure]) {
        for measure in measures {
            let resident = memory::resident(measure.pid);
            let Some(mut used) = resident else { continue }; // it has ended
            let over = used > measure.limit;
            if over {
                // what it shares with others is not its own: a closer look, which costs more
                used = memory::proportional(measure.pid).unwrap_or(used);
            }
            let peak = if over { memory::peak(measure.pid) } else { None };
            let mut core = self.core();
            // the number is its own only if it is still there
            let alive = core.life(measure.one).and_then(|life| life.process.clone());
            if alive.is_some_and(|process| !process.ended()) {
                core.measured(measure, used, peak);
            }
        }
    }

    fn take_notices(&self) {
        let notices = self.starter.notices();
        if notices.is_empty() {
            return;
        }
        for notice in notices {
            let mut core = self.core();
            match notice {
                Notice::Started(one, process) => core.started(one, process),
                Notice::Refused(one, why) => core.start_refused(one, why),
                Notice::Ended(one, exit) => {
                    if let Some(life) = core.life(one) {
                        life.exit = exit;
                    }
                }
                Notice::Lost(these, why) => core.starts_lost(these, why),
            }
        }
        self.wake_leader(); // a refused start may have broken the pool
    }

    /// How the process ended; if who reaps it has not told yet, waits for that, within bounds.
    fn exit_of(&self, one: Incarnation, process: &Process) -> Exit {
        let told = self.core().life(one).map_or(Exit::Unknown, |life| life.exit);
        if told != Exit::Unknown {
            return told;
        }
        if let Some(exit) = self.starter.exit(process) {
            return exit;
        }
        let until = Instant::now() + REAPING;
        loop {
            let told = self.core().life(one).map_or(Exit::Unknown, |life| life.exit);
            let left = until.saturating_duration_since(Instant::now());
            let Some(link) = self.starter.notice_link() else { return told };
            if told != Exit::Unknown || left.is_zero() {
                return told;
            }
            let come = wait_readable(&[link.as_fd()], Some(left));
            self.take_notices();
            if come.is_err() {
                return Exit::Unknown;
            }
        }
    }
}
