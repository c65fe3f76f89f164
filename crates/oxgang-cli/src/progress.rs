//! How far it is: one line on standard error that keeps itself up to date.
//!
//! On a terminal it is a bar with rate, time left and failures; where standard error is no
//! terminal nothing is drawn, unless asked ([`Stream::Always`]): then a plain line now and then,
//! fit for a log. With an unknown total there is a count, and neither bar nor time left.
//!
//! The thread that keeps the clock moving while no task ends is started with the first outcome:
//! by then the workers exist, and starting them was not made harder by a second thread. It
//! knows nothing of Python.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// On standard error if it is a terminal.
    Auto,
    /// On standard error, whatever it is.
    Always,
    /// Nowhere.
    Never,
}

const KNOWN: &str = "{prefix} {wide_bar} {human_pos}/{human_len}  {per_sec}  ETA {eta}{msg}";
const UNKNOWN: &str = "{prefix} {spinner} {human_pos} done  {per_sec}  {elapsed}{msg}";

const TICK: Duration = Duration::from_millis(250);
const BETWEEN_LINES: Duration = Duration::from_secs(2);

enum Face {
    Bar { bar: ProgressBar, ticking: bool },
    Lines { last: Instant },
    Hidden,
}

/// A display of progress.
pub struct Progress {
    face: Face,
    description: String,
    started: Instant,
    total: Option<u64>,
    count: u64,
    failed: u64,
}

impl Progress {
    /// Shows `description` and, if the total is known, how much of it is done.
    pub fn new(total: Option<u64>, description: &str, stream: Stream) -> Progress {
        let terminal = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        let face = match (stream, terminal) {
            (Stream::Never, _) | (Stream::Auto, false) => Face::Hidden,
            (Stream::Always, false) => Face::Lines { last: Instant::now() },
            (Stream::Auto | Stream::Always, true) => {
                Face::Bar { bar: bar(total, description), ticking: false }
            }
        };
        let description = description.to_owned();
        Progress { face, description, started: Instant::now(), total, count: 0, failed: 0 }
    }

    /// One more outcome.
    pub fn advance(&mut self, ok: bool) {
        self.count += 1;
        self.failed += u64::from(!ok);
        match &mut self.face {
            Face::Bar { bar, ticking } => {
                if !ok {
                    bar.set_message(format!("  {} failed", self.failed));
                }
                bar.inc(1);
                if !*ticking {
                    bar.enable_steady_tick(TICK);
                    *ticking = true;
                }
            }
            Face::Lines { last } => {
                if last.elapsed() >= BETWEEN_LINES {
                    *last = Instant::now();
                    self.say();
                }
            }
            Face::Hidden => {}
        }
    }

    /// One of the total needs no work.
    pub fn skip(&mut self) {
        if let Some(total) = &mut self.total {
            *total = total.saturating_sub(1);
            if let Face::Bar { bar, .. } = &self.face {
                bar.set_length(*total);
            }
        }
    }

    /// Runs `write`, which prints, with the bar out of its way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.face {
            Face::Bar { bar, .. } => bar.suspend(write),
            Face::Lines { .. } | Face::Hidden => write(),
        }
    }

    /// Takes the bar away (or says the last line), for good.
    pub fn finish(&mut self) {
        match std::mem::replace(&mut self.face, Face::Hidden) {
            Face::Bar { bar, .. } => {
                bar.disable_steady_tick();
                // What stands at the end is part of the record: the bar stays, on its own line.
                if self.count > 0 { bar.abandon() } else { bar.finish_and_clear() }
            }
            Face::Lines { .. } => self.say(),
            Face::Hidden => {}
        }
    }

    fn say(&self) {
        // Nobody to tell if standard error is gone; the work goes on.
        drop(std::io::stderr().write_all(self.line().as_bytes()));
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = self.count as f64 / seconds.max(1e-9);
        let mut line = format!("{}: {}", self.description, self.count);
        let told = match self.total {
            Some(total) => {
                let left = total.saturating_sub(self.count) as f64 / rate.max(1e-9);
                let left = HumanDuration(Duration::from_secs_f64(left.min(1e9)));
                write!(line, " of {total}, {rate:.1}/s, ETA {left}")
            }
            None => write!(line, " done, {rate:.1}/s"),
        };
        debug_assert!(told.is_ok(), "writing to a string cannot fail");
        if self.failed > 0 {
            line.push_str(&format!(", {} failed", self.failed));
        }
        line.push('\n');
        line
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Face::Bar { bar, .. } = &self.face {
            bar.disable_steady_tick();
            bar.abandon();
        }
    }
}

fn bar(total: Option<u64>, description: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = if total.is_some() { KNOWN } else { UNKNOWN };
    // The templates are constants; should one be wrong, the plain style still counts.
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_prefix(description.to_owned());
    bar.tick();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_plain_line_tells_count_rate_time_left_and_failures() {
        let mut progress = Progress::new(Some(5), "squares", Stream::Never);
        progress.skip();
        for ok in [true, false] {
            progress.advance(ok);
        }
        progress.started = Instant::now()
            .checked_sub(Duration::from_secs(4))
            .expect("the clock is older than four seconds");
        assert_eq!(progress.line(), "squares: 2 of 4, 0.5/s, ETA 4 seconds, 1 failed\n");
        progress.total = None;
        assert_eq!(progress.line(), "squares: 2 done, 0.5/s, 1 failed\n");
    }

    #[test]
    fn nothing_written_aside_is_lost_when_hidden() {
        let mut progress = Progress::new(None, "x", Stream::Never);
        assert_eq!(progress.aside(|| 7), 7);
        progress.finish();
        progress.finish();
    }
}
