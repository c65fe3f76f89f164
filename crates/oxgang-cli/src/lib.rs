//! The `oxgang` command, without Python: its grammar, and everything `oxgang map` does around the
//! calls themselves. Of `oxgang run` it is only the grammar ([`run`]), since from there on the
//! interpreter does everything.
//!
//! The Python side resolves the target and runs the tasks; this crate decides what is asked for
//! ([`grammar`]), what goes in ([`inputs`], [`record`]), what comes out ([`plan`], [`resume`],
//! [`output`]) and what is said about it ([`progress`], [`summary`]). [`job`] joins them into one
//! object with the order of events of a run: read the command, prepare, start, one row per
//! outcome, finish.
//!
//! Promises:
//! * bad input ends with one line and exit code 2 before anything was started or created
//!   ([`Stop`]);
//! * data goes to standard output, talk to standard error;
//! * every wait (for input, for a reader of our output) asks a [`patience::Check`] several times a
//!   second whether to go on, so that a signal is never left waiting.
//!
//! Exit codes: 0 every input succeeded, 1 some failed, 2 the command or its input was wrong,
//! 128 + n ended by signal n (130 for Ctrl-C, 141 when the reader of standard output went away).

pub mod grammar;
pub mod inputs;
pub mod job;
pub mod output;
pub mod patience;
pub mod plan;
pub mod progress;
pub mod record;
pub mod resume;
pub mod run;
pub mod summary;

#[cfg(test)]
mod testing;

/// The command ends here: exit code, and what to print on each stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Exit code of the process.
    pub code: u8,
    /// For standard output (help and version).
    pub out: String,
    /// For standard error: one line.
    pub err: String,
}

impl Stop {
    /// Bad input: one line that says what to do; exit code 2.
    pub fn usage(message: impl AsRef<str>) -> Stop {
        Stop::usage_of("map", message)
    }

    /// The same for a command of this name.
    pub fn usage_of(command: &str, message: impl AsRef<str>) -> Stop {
        Stop { code: 2, out: String::new(), err: line(command, message.as_ref()) }
    }

    /// The run itself cannot go on (a full disk, say): one line; exit code 1.
    pub fn trouble(message: impl AsRef<str>) -> Stop {
        Stop { code: 1, out: String::new(), err: line("map", message.as_ref()) }
    }
}

fn line(command: &str, message: &str) -> String {
    format!("oxgang {command}: {}\n", one_line(message))
}

/// Shows control characters as escapes, so that a name with a newline stays on its line.
pub fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// The system's words for an error, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
