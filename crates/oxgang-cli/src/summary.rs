//! What is said at the end: counts, time, rate; the failures; how to go on.
//!
//! Only the first [`LISTED`] failures are kept, so the end of a run with a million of them fits on
//! a screen and in memory; all of them are in the output file, if there is one.

use std::fmt::Write;
use std::time::Duration;

use crate::one_line;

/// How many failures are listed.
pub const LISTED: usize = 20;

/// How a run came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All inputs have their outcome.
    Done,
    /// The first failure ended it (`--fail-fast`).
    FailFast,
    /// A signal ended it: its number.
    Signal(u8),
    /// The reader of standard output went away.
    Pipe,
    /// Something else went wrong: exit code and one line.
    Trouble(u8, String),
}

/// Counts, and the failures to list.
#[derive(Debug, Default)]
pub struct Tally {
    /// Inputs that succeeded.
    pub ok: u64,
    /// Inputs that failed.
    pub failed: u64,
    /// Inputs that an earlier run had done.
    pub skipped: u64,
    failures: Vec<String>,
}

impl Tally {
    /// One input failed: what it was, and why.
    pub fn fail(&mut self, label: &str, error: &str) {
        self.failed += 1;
        if self.failures.len() < LISTED {
            self.failures.push(format!("{label}: {}", one_line(error)));
        }
    }

    /// The exit code of a run that ended so.
    pub fn exit_code(&self, ending: &Ending) -> u8 {
        match ending {
            Ending::Signal(number) => 128 + number,
            Ending::Pipe => 128 + 13, // what a shell reports of a program ended by SIGPIPE
            Ending::Trouble(code, _) => *code,
            Ending::Done | Ending::FailFast => u8::from(self.failed > 0),
        }
    }

    /// The last words. `quiet` leaves only what went wrong; `output` is the file of results.
    pub fn text(
        &self,
        ending: &Ending,
        elapsed: Duration,
        output: Option<&str>,
        quiet: bool,
    ) -> String {
        let mut text = String::new();
        if *ending == Ending::Pipe {
            return text; // whoever closed the pipe has what they wanted
        }
        self.tell(&mut text, ending, elapsed, output, quiet).unwrap_or_default();
        text
    }

    fn tell(
        &self,
        text: &mut String,
        ending: &Ending,
        elapsed: Duration,
        output: Option<&str>,
        quiet: bool,
    ) -> std::fmt::Result {
        if !self.failures.is_empty() {
            writeln!(text, "failed inputs:")?;
            for failure in &self.failures {
                writeln!(text, "  {failure}")?;
            }
            match self.failed - self.failures.len() as u64 {
                0 => {}
                more => writeln!(text, "  and {more} more")?,
            }
        }
        let stopped = match ending {
            Ending::Done | Ending::Pipe => None,
            Ending::FailFast => Some("stopped at the first failure".to_owned()),
            Ending::Signal(2) => Some("stopped by Ctrl-C".to_owned()),
            Ending::Signal(number) => Some(format!("stopped by signal {number}")),
            Ending::Trouble(_, what) => Some(format!("stopped: {}", one_line(what))),
        };
        if let Some(stopped) = &stopped {
            writeln!(text, "oxgang map: {stopped}")?;
        }
        if quiet {
            return Ok(());
        }
        let seconds = elapsed.as_secs_f64();
        let rate = (self.ok + self.failed) as f64 / seconds.max(1e-3);
        write!(text, "oxgang map: {} ok, {} failed", self.ok, self.failed)?;
        if self.skipped > 0 {
            write!(text, ", {} skipped (done before)", self.skipped)?;
        }
        writeln!(text, " in {seconds:.1} s ({rate:.1}/s)")?;
        match (output, stopped.is_some(), self.failed > 0) {
            (Some(file), true, _) => {
                writeln!(text, "oxgang map: to go on with {file}, add --resume to the same command")
            }
            (Some(_), false, true) => {
                writeln!(text, "oxgang map: to try the failed inputs again, add --resume")
            }
            (None, true, _) => {
                writeln!(text, "oxgang map: with -o FILE a stopped run can go on (--resume)")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(1500);

    #[test]
    fn a_clean_run_is_one_line() {
        let tally = Tally { ok: 3, ..Tally::default() };
        assert_eq!(
            tally.text(&Ending::Done, TIME, Some("out.csv"), false),
            "oxgang map: 3 ok, 0 failed in 1.5 s (2.0/s)\n"
        );
        assert_eq!(tally.text(&Ending::Done, TIME, None, true), "");
        assert_eq!(tally.exit_code(&Ending::Done), 0);
    }

    #[test]
    fn the_first_failures_are_listed_and_the_rest_counted() {
        let mut tally = Tally { ok: 1, skipped: 4, ..Tally::default() };
        for index in 0..LISTED + 2 {
            tally.fail(&format!("in{index}"), "ValueError: two\nlines");
        }
        let text = tally.text(&Ending::Done, TIME, Some("out.csv"), false);
        assert!(
            text.starts_with("failed inputs:\n  in0: ValueError: two\\nlines\n  in1:"),
            "{text}"
        );
        assert!(text.contains("  in19: "), "{text}");
        assert!(!text.contains("  in20: "), "{text}");
        assert!(text.contains("\n  and 2 more\n"), "{text}");
        assert!(text.contains("1 ok, 22 failed, 4 skipped"), "{text}");
        assert!(text.contains("to try the failed inputs again, add --resume"), "{text}");
        let quiet = tally.text(&Ending::Done, TIME, None, true);
        assert!(quiet.contains("in0") && !quiet.contains("22 failed"), "{quiet}");
        assert_eq!(tally.exit_code(&Ending::Done), 1);
    }

    #[test]
    fn a_stopped_run_says_how_to_go_on() {
        let tally = Tally::default();
        for (ending, code, said) in [
            (Ending::Signal(2), 130, "stopped by Ctrl-C"),
            (Ending::Signal(15), 143, "stopped by signal 15"),
            (Ending::Trouble(2, "line 3: bad".into()), 2, "stopped: line 3: bad"),
        ] {
            assert_eq!(tally.exit_code(&ending), code);
            let text = tally.text(&ending, TIME, Some("o.csv"), false);
            assert!(text.contains(said), "{text}");
            assert!(text.contains("to go on with o.csv, add --resume"), "{text}");
            let text = tally.text(&ending, TIME, None, false);
            assert!(text.contains("with -o FILE"), "{text}");
            assert!(tally.text(&ending, TIME, None, true).contains(said));
        }
        assert_eq!(tally.exit_code(&Ending::Pipe), 141);
        assert_eq!(tally.text(&Ending::Pipe, TIME, None, false), "");
    }
}
