//! What may be written on the command line, and what it means.
//!
//! Promise: [`parse`] touches nothing (no file, no stream). Errors come as one line, however many
//! the parser would print; help and version come as text with exit code 0.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::Stop;

#[derive(Debug, Parser)]
#[command(
    name = "oxgang",
    version,
    about = "Run work side by side: many workers, one command.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Call a Python function once per input, on all CPUs
    Map(Box<MapOptions>),
    /// Run a Python program with oxgang's modules in the place of the standard ones
    // here for the list of commands; its words are read in `run`
    Run,
}

const EXAMPLES: &str = "\
Examples:
  oxgang map script.py:convert photos/*.jpg
      one call convert('photos/a.jpg') per file; results on standard output
  oxgang map stats.py:stats data/*.csv -o stats.csv
      a dict that stats() returns becomes the columns of one row
  oxgang map package.module:fetch --from urls.txt -j 32 --model thread -o pages.jsonl
      one input per line of urls.txt, 32 threads
  oxgang map package.module:afetch --from urls.txt -j 500 -o pages.jsonl
      an async function: up to 500 calls at once on one event loop
  oxgang map model.py:score --from people.csv -o scores.csv
      one call score(name='..', age='..') per row: the columns are keyword arguments
  oxgang map stats.py:stats data/*.csv -o stats.csv --resume
      goes on after Ctrl-C, a crash or failures: inputs that are done are skipped

Exit codes: 0 all inputs succeeded; 1 some failed; 2 the command or its input is wrong;
130 stopped by Ctrl-C.";

/// `oxgang map`: everything the user asked for.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct MapOptions {
    /// The function: module:function, or path/to/file.py:function
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub target: String,

    /// The inputs, one call each; without any, and without --from, one per line of standard input
    pub inputs: Vec<OsString>,

    /// Read the inputs from FILE: .jsonl objects and .csv rows are keyword arguments, any other
    /// file has one input per line; '-' is standard input
    #[arg(long = "from", value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// How many workers [default: one per CPU that may be used]; of coroutines, how many at once
    /// [default: 100]
    #[arg(short = 'j', long = "jobs", value_name = "N", value_parser = parse_jobs, allow_negative_numbers = true)]
    pub jobs: Option<usize>,

    /// What a worker is: its own process, or a thread for work that waits; coroutine, which auto
    /// takes for a function that is async: all of them on one event loop
    #[arg(long, value_enum, default_value_t = Model::Auto)]
    pub model: Model,

    /// Seconds one call may take; then TaskTimeout is raised in it, and a second later its process
    /// is ended (a thread cannot be: its input fails, and it goes on)
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub timeout: Option<f64>,

    /// Memory that a worker may have during a call, such as 512MiB or 2GB; then it is ended
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_limit: Option<u64>,

    /// Call again up to N times for an input that failed; the function must be safe to repeat
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_retries, allow_negative_numbers = true)]
    pub retries: u32,

    /// How many inputs a worker is handed at once: a number, or 'auto' to go by measured time
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = parse_chunksize, allow_negative_numbers = true)]
    pub chunksize: Chunksize,

    /// Write one row per input to FILE (.csv or .jsonl), as results arrive
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Go on with the file given by -o: skip the inputs done, try the failed ones again
    #[arg(long)]
    pub resume: bool,

    /// Stop at the first input that fails; calls that are running are ended
    #[arg(long)]
    pub fail_fast: bool,

    /// When to show progress on standard error; auto: when it is a terminal
    #[arg(long, value_enum, default_value_t = Show::Auto, value_name = "WHEN")]
    pub progress: Show,

    /// No progress, no summary; failed inputs are still listed
    #[arg(short = 'q', long, conflicts_with = "progress")]
    pub quiet: bool,
}

/// What a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// oxgang chooses.
    Auto,
    /// A process per worker.
    Process,
    /// A thread per worker.
    Thread,
    /// Coroutines on an event loop.
    Coroutine,
}

impl Model {
    /// The word for it, as in `oxgang.Executor(model=…)`.
    pub fn word(self) -> &'static str {
        match self {
            Model::Auto => "auto",
            Model::Process => "process",
            Model::Thread => "thread",
            Model::Coroutine => "coroutine",
        }
    }
}

/// When to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// When standard error is a terminal.
    Auto,
    /// Also when it is not: as plain lines then.
    Always,
    /// Not at all.
    Never,
}

/// How many inputs are handed over at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunksize {
    /// By measured time.
    Auto,
    /// This many.
    Exactly(usize),
}

fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 worker is needed; leave -j out for one per CPU".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("give a whole number of workers, such as -j 4".into()),
    }
}

fn parse_retries(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "give a whole number, 0 or more, such as --retries 2".into())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("give a number of seconds above 0, such as --timeout 2.5".into()),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let advice = "give a size above 0, such as 512MiB or 2GB";
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_lowercase() || c == ' ');
    let power = |base: u64, letter: &str| {
        "kmgt".find(letter).map(|power| base.pow(power as u32 + 1)).ok_or(advice)
    };
    let unit = match lower[number.len()..].trim() {
        "" | "b" => 1,
        unit if unit.len() == 1 => power(1024, unit)?,
        unit => match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
            (Some(letter), _) if letter.len() == 1 => power(1024, letter)?,
            (_, Some(letter)) if letter.len() == 1 => power(1000, letter)?,
            _ => return Err(advice.into()),
        },
    };
    match number.parse::<f64>().map(|number| number * unit as f64) {
        // what no machine has is a mistake too
        Ok(bytes) if (1.0..9e18).contains(&bytes) => Ok(bytes as u64),
        _ => Err(advice.into()),
    }
}

fn parse_chunksize(text: &str) -> Result<Chunksize, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Chunksize::Auto),
        (_, Ok(count)) if count > 0 => Ok(Chunksize::Exactly(count)),
        _ => Err("give 'auto' or a whole number, 1 or more".into()),
    }
}

/// Reads the arguments that follow the command's own name.
pub fn parse<I>(arguments: I) -> Result<MapOptions, Stop>
where
    I: IntoIterator<Item = OsString>,
{
    let words = std::iter::once(OsString::from("oxgang")).chain(arguments);
    match Cli::try_parse_from(words) {
        Ok(Cli { command: Command::Map(options) }) => Ok(*options),
        Ok(Cli { command: Command::Run }) => {
            Err(Stop::usage_of("run", "is a command of its own; see: oxgang run --help"))
        }
        Err(error) => Err(stop_for(&error)),
    }
}

fn stop_for(error: &clap::Error) -> Stop {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Stop { code: 0, out: text, err: String::new() }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Stop { code: 2, out: String::new(), err: text }
        }
        _ => {
            // The parser prints a paragraph: the error, maybe a tip, the usage. What comes before
            // the usage is what the reader needs.
            let told: Vec<&str> = text
                .lines()
                .take_while(|line| !line.starts_with("Usage:"))
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
                .collect();
            let told = told.join(" ");
            let told = told.strip_prefix("error: ").unwrap_or(&told);
            let told = told.trim_end_matches('.');
            if error.kind() == ErrorKind::InvalidSubcommand {
                return Stop {
                    code: 2,
                    out: String::new(),
                    err: format!("oxgang: {told}; see: oxgang --help\n"),
                };
            }
            Stop::usage(format!("{told}; see: oxgang map --help"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<MapOptions, Stop> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_full_line_is_understood_in_any_order() {
        let options = read(
            "map -j 3 pkg.mod:fn a b -o out.csv --resume --retries 2 --chunksize 7 --model thread \
             --fail-fast --progress never --timeout 1.5 --memory-limit 1.5GiB -- -c",
        )
        .expect("a valid line");
        assert_eq!(options.target, "pkg.mod:fn");
        assert_eq!(options.inputs, ["a", "b", "-c"]);
        assert_eq!(options.jobs, Some(3));
        assert_eq!(options.retries, 2);
        assert_eq!(options.chunksize, Chunksize::Exactly(7));
        assert_eq!(options.model, Model::Thread);
        assert_eq!((options.timeout, options.memory_limit), (Some(1.5), Some(3 << 29)));
        assert_eq!(options.progress, Show::Never);
        assert_eq!(options.output, Some(PathBuf::from("out.csv")));
        assert!(options.resume && options.fail_fast && !options.quiet);
    }

    #[test]
    fn little_is_needed() {
        let options = read("map f.py:fn").expect("a valid line");
        assert_eq!(options.chunksize, Chunksize::Auto);
        assert_eq!(options.model, Model::Auto);
        assert_eq!((options.jobs, options.retries), (None, 0));
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1b", 1),
            ("2k", 2048),
            ("2kB", 2000),
            ("3MiB", 3 << 20),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "-1", "0", "nan", "inf", "1 gibbon", "1ib", "1bb", "1e30", "é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_mistake_is_one_line_that_names_it() {
        for (line, said) in [
            ("map f.py:fn -j 0", "at least 1 worker"),
            ("map f.py:fn -j many", "whole number of workers"),
            ("map f.py:fn -j -2", "whole number of workers"),
            ("map f.py:fn --retries -1", "whole number, 0 or more"),
            ("map f.py:fn --timeout 0", "seconds above 0"),
            ("map f.py:fn --timeout -1", "seconds above 0"),
            ("map f.py:fn --chunksize -1", "'auto' or a whole number"),
            ("map f.py:fn --timeout soon", "seconds above 0"),
            ("map f.py:fn --memory-limit 2gibbons", "512MiB or 2GB"),
            ("map f.py:fn --chunksize 0", "'auto' or a whole number"),
            ("map f.py:fn --model fiber", "auto, process, thread, coroutine"),
            ("map f.py:fn --progress maybe", "auto, always, never"),
            ("map f.py:fn --qiet", "--quiet"),
            ("map f.py:fn -q --progress always", "--progress"),
            ("map", "<TARGET>"),
            ("mop f.py:fn", "oxgang: unrecognized subcommand 'mop'"),
        ] {
            let stop = read(line).expect_err(line);
            assert_eq!(stop.code, 2, "{line}");
            assert_eq!(stop.out, "", "{line}");
            assert!(stop.err.contains(said), "{line}: {}", stop.err);
            assert!(stop.err.ends_with('\n'), "{line}: {}", stop.err);
            assert_eq!(stop.err.matches('\n').count(), 1, "{line}: {}", stop.err);
        }
    }

    #[test]
    fn help_teaches_and_version_tells() {
        let help = read("map --help").expect_err("help ends the command");
        assert_eq!((help.code, help.err.as_str()), (0, ""));
        for word in ["TARGET", "--resume", "--from", "Examples:", "Exit codes"] {
            assert!(help.out.contains(word), "{word} in {}", help.out);
        }
        let version = read("--version").expect_err("version ends the command");
        assert_eq!(version.out, format!("oxgang {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(read("").expect_err("nothing asked").code, 2);
    }
}
