//! What may be written after `oxgang run`: oxgang's own options and the interpreter's, in any
//! order, then the program as `python` takes it, and whatever follows is the program's.
//!
//! Written by hand, since it is the interpreter's grammar and not ours: options in one word
//! (`-OO`, `-uB`), with their value in the word (`-Wignore`) or in the next, `-m` and `-c` ending
//! the options, `-` for standard input. Promise: [`parse`] touches nothing.

use std::ffi::{OsStr, OsString};

use crate::Stop;

/// What can be exchanged.
pub const FAMILIES: [&str; 4] = ["threading", "queue", "multiprocessing", "concurrent.futures"];

/// The interpreter's options that are one letter.
const LETTERS: &str = "bBdEiIOPqRsSuvx";
/// Those of one letter and a value.
const WITH_VALUE: &str = "WX";

/// The text of `oxgang run --help`.
pub const HELP: &str = "\
Run a Python program with oxgang's modules in the place of the standard ones

Usage: oxgang run [OPTIONS] [PYTHON'S OPTIONS] SCRIPT [ARGUMENTS]...
       oxgang run [OPTIONS] [PYTHON'S OPTIONS] -m MODULE [ARGUMENTS]...
       oxgang run [OPTIONS] [PYTHON'S OPTIONS] -c CODE [ARGUMENTS]...
       oxgang run [OPTIONS] [PYTHON'S OPTIONS] [-]     (the program is standard input)

threading, queue, multiprocessing and concurrent.futures are oxgang's, in this program and in the
Python processes that it starts through them. All else is as under python.

Options:
      --only NAMES  Exchange these alone: a list such as multiprocessing,queue
      --children    Also in Python processes that the program starts in other ways
      --report      End with a short table of what oxgang did, on standard error
  -h, --help        Print help

Python's options: -b -B -d -E -i -I -O -OO -P -q -s -S -u -v -x, -W ARG, -X OPT

Examples:
  oxgang run script.py data/*.csv
  oxgang run --report -m pytest -n2
  oxgang run -W error -X dev script.py

Exit codes: the program's own; 2 if the command is wrong.
";

/// `oxgang run`: everything the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// What is exchanged, in the order of [`FAMILIES`].
    pub only: Vec<&'static str>,
    /// Whether to end with a table.
    pub report: bool,
    /// Whether Python processes started in other ways are to have it too.
    pub children: bool,
    /// The interpreter's options.
    pub flags: Vec<OsString>,
    /// The program and its arguments, as the interpreter takes them.
    pub program: Vec<OsString>,
}

/// Reads the words that follow `oxgang run`.
pub fn parse<I>(words: I) -> Result<RunOptions, Stop>
where
    I: IntoIterator<Item = OsString>,
{
    let mut options = RunOptions { only: FAMILIES.to_vec(), ..RunOptions::default() };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        match name {
            "-h" | "--help" => return Err(help()),
            "--report" if value.is_none() => options.report = true,
            "--children" if value.is_none() => options.children = true,
            "--only" => {
                let value = match value {
                    Some(value) => value,
                    None => needed(words.next(), "--only", "a list such as multiprocessing,queue")?
                        .to_string_lossy()
                        .into_owned(),
                };
                options.only = families(&value)?;
            }
            "--check-hash-based-pycs" => {
                options.flags.push(word.clone());
                if value.is_none() {
                    let value = needed(words.next(), name, "always, default or never")?;
                    options.flags.push(value);
                }
            }
            "--" => {
                options.program = words.collect();
                return Ok(options);
            }
            "-" => {
                options.program = std::iter::once(word).chain(words).collect();
                return Ok(options);
            }
            _ if !text.starts_with('-') => {
                options.program = std::iter::once(word).chain(words).collect();
                return Ok(options);
            }
            _ if text.starts_with("--") => {
                return Err(usage(&format!(
                    "unknown option {name}; a program's own options come after its name; see: \
                     oxgang run --help"
                )));
            }
            _ => {
                if let Some(program) = cluster(&word, &mut words, &mut options.flags)? {
                    options.program = program.into_iter().chain(words).collect();
                    return Ok(options);
                }
            }
        }
    }
    Ok(options)
}

/// One word of one-letter options. Returns the beginning of the program if it ends in `-m` or `-c`.
fn cluster(
    word: &OsStr,
    words: &mut impl Iterator<Item = OsString>,
    flags: &mut Vec<OsString>,
) -> Result<Option<[OsString; 2]>, Stop> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let bytes = word.as_bytes();
    for (place, &byte) in bytes.iter().enumerate().skip(1) {
        let letter = char::from(byte);
        if LETTERS.contains(letter) {
            continue;
        }
        let ends = matches!(letter, 'm' | 'c');
        if !ends && !WITH_VALUE.contains(letter) {
            let shown = word.to_string_lossy();
            return Err(usage(&format!(
                "unknown option -{} in {shown}; see: oxgang run --help",
                String::from_utf8_lossy(&bytes[place..]).chars().next().unwrap_or(letter)
            )));
        }
        let option = OsString::from(format!("-{letter}"));
        if place > 1 {
            flags.push(OsString::from_vec(bytes[..place].to_vec()));
        }
        let value = match &bytes[place + 1..] {
            [] => {
                let what = match letter {
                    'm' => "the name of a module",
                    'c' => "Python code",
                    'W' => "a filter such as error or ignore::DeprecationWarning",
                    _ => "an option such as dev or importtime",
                };
                needed(words.next(), &option.to_string_lossy(), what)?
            }
            rest => OsString::from_vec(rest.to_vec()),
        };
        if ends {
            return Ok(Some([option, value]));
        }
        flags.extend([option, value]);
        return Ok(None);
    }
    flags.push(word.to_owned());
    Ok(None)
}

fn families(list: &str) -> Result<Vec<&'static str>, Stop> {
    let asked: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(other) = asked.iter().find(|name| !FAMILIES.contains(name)) {
        return Err(usage(&format!(
            "--only: {other} is none of {}; a module comes with all that is below it",
            FAMILIES.join(", ")
        )));
    }
    if asked.is_empty() {
        return Err(usage("--only: name at least one module, such as --only queue"));
    }
    Ok(FAMILIES.into_iter().filter(|name| asked.contains(name)).collect())
}

fn needed(word: Option<OsString>, option: &str, what: &str) -> Result<OsString, Stop> {
    word.ok_or_else(|| usage(&format!("{option} needs {what}")))
}

fn usage(message: &str) -> Stop {
    Stop::usage_of("run", message)
}

fn help() -> Stop {
    Stop { code: 0, out: HELP.to_owned(), err: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<RunOptions, Stop> {
        parse(words.iter().map(OsString::from))
    }

    fn split(words: &[&str]) -> (Vec<OsString>, Vec<OsString>) {
        let options = read(words).expect("a valid line");
        (options.flags, options.program)
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        let options = read(&["--report", "a b.py", "--only", "-x", "--", "-h"]).expect("valid");
        assert_eq!(options.program, ["a b.py", "--only", "-x", "--", "-h"]);
        assert!(options.report && !options.children && options.flags.is_empty());
        assert_eq!(options.only, FAMILIES);
    }

    #[test]
    fn the_interpreters_options_are_read_as_it_reads_them() {
        for (words, flags, program) in [
            (&["-m", "pkg", "-v"][..], &[][..], &["-m", "pkg", "-v"][..]),
            (&["-mpkg", "-v"], &[], &["-m", "pkg", "-v"]),
            (&["-Bm", "pkg"], &["-B"], &["-m", "pkg"]),
            (&["-uOOc", "pass", "x"], &["-uOO"], &["-c", "pass", "x"]),
            (&["-Wignore", "-W", "error", "s.py"], &["-W", "ignore", "-W", "error"], &["s.py"]),
            (&["-BXdev", "s.py"], &["-B", "-X", "dev"], &["s.py"]),
            (&["-iI", "s.py", "-i"], &["-iI"], &["s.py", "-i"]),
            (&["-q", "-", "x"], &["-q"], &["-", "x"]),
            (&["-q", "--", "s.py"], &["-q"], &["s.py"]),
            (&["-X", "dev"], &["-X", "dev"], &[]),
            (
                &["--check-hash-based-pycs", "never", "s.py"],
                &["--check-hash-based-pycs", "never"],
                &["s.py"],
            ),
            (&[], &[], &[]),
        ] {
            let (got_flags, got_program) = split(words);
            assert_eq!(got_flags, flags, "{words:?}");
            assert_eq!(got_program, program, "{words:?}");
        }
    }

    #[test]
    fn only_takes_a_list_in_any_order() {
        for words in
            [&["--only", "queue,threading", "s.py"], &["--only=queue, threading", "-", "x"]]
        {
            let options = read(words).expect("valid");
            assert_eq!(options.only, ["threading", "queue"]);
        }
    }

    #[test]
    fn each_mistake_is_one_line_that_names_it() {
        for (words, said) in [
            (&["--only", "asyncio", "s.py"][..], "asyncio is none of"),
            (&["--only", "multiprocessing.pool", "s.py"], "all that is below"),
            (&["--only", ",", "s.py"], "at least one"),
            (&["--only"], "--only needs"),
            (&["--reprot", "s.py"], "--reprot"),
            (&["--report=x", "s.py"], "--report"),
            (&["-m"], "-m needs the name"),
            (&["-BW"], "-W needs"),
            (&["-Bz", "s.py"], "-z in -Bz"),
        ] {
            let stop = read(words).expect_err("a mistake");
            assert_eq!((stop.code, stop.out.as_str()), (2, ""), "{words:?}");
            assert!(stop.err.starts_with("oxgang run: "), "{}", stop.err);
            assert!(stop.err.contains(said), "{words:?}: {}", stop.err);
            assert_eq!(stop.err.matches('\n').count(), 1, "{}", stop.err);
        }
    }

    #[test]
    fn help_is_help() {
        let help = read(&["-h", "s.py"]).expect_err("help ends the command");
        assert_eq!(help.code, 0);
        for word in ["--only", "--children", "--report", "-W"] {
            assert!(help.out.contains(word), "{word}");
        }
    }
}
