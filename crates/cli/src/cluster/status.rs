// SPDX-License-Identifier: Apache-2.0
//! `cilium status`.

use super::Place;
use super::collect::collect;
use super::report::Report;
use crate::output::Format;
use anyhow::{Result, bail};
use clap::Args;
use std::io::{IsTerminal, stdout};
use std::time::Duration;
use tokio::time::Instant;

/// Interval between checks while waiting.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Wait until all is well.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    wait_duration: Duration,
    /// Warnings are no reason to wait or to fail.
    #[arg(long)]
    ignore_warnings: bool,
    /// Show the status again and again while waiting.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true,
          action = clap::ArgAction::Set)]
    interactive: bool,
    /// Accepted for scripts; everything is always shown.
    #[arg(long)]
    verbose: bool,
    /// summary or json.
    #[arg(long, short, default_value = "summary")]
    output: Format,
}

pub(super) async fn run(place: &Place, options: &Options) -> Result<()> {
    let client = place.connect().await?;
    let live = options.wait && options.interactive && options.output == Format::Text && stdout().is_terminal();
    let mut shown = 0;
    let look = async || collect(&client, &place.namespace).await;
    let show = |report: &Report| {
        if live {
            shown = redraw(report, shown);
        }
    };
    let report = watch(options, look, show).await;
    if live {
        erase(shown);
    }
    let color = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    options.output.print(&report, || report.render(color))?;
    if report.is_good(options.ignore_warnings) {
        return Ok(());
    }
    if options.wait {
        bail!("timeout while waiting for status to become successful");
    }
    bail!("status check failed")
}

/// Checks until all is well or the time is up, with a last check right then; just once without `wait`. Problems are shown meanwhile.
async fn watch(options: &Options, look: impl AsyncFn() -> Report, mut show: impl FnMut(&Report)) -> Report {
    let deadline = Instant::now() + options.wait_duration;
    loop {
        let report = look().await;
        if report.is_good(options.ignore_warnings) || !options.wait || Instant::now() >= deadline {
            return report;
        }
        show(&report);
        tokio::time::sleep_until(deadline.min(Instant::now() + PAUSE)).await;
    }
}

/// Prints the report over the previous one; returns its number of lines.
fn redraw(report: &Report, shown: usize) -> usize {
    erase(shown);
    let text = report.render(true);
    print!("{text}");
    text.lines().count()
}

/// Clears the last lines of the terminal.
fn erase(lines: usize) {
    if lines > 0 {
        print!("\x1b[{lines}A\x1b[J");
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::hubble::duration(text).ok_or_else(|| "want a duration such as 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const START: Duration = Duration::ZERO;

    fn options(wait: bool, wait_duration: Duration) -> Options {
        Options {
            wait,
            wait_duration,
            ignore_warnings: false,
            interactive: false,
            verbose: false,
            output: Format::Text,
        }
    }

    /// Whether the last check succeeded, when, and after how many, if all is well from a given time on.
    async fn watched(options: &Options, good_at: Duration) -> (bool, Duration, u32) {
        let (start, looks) = (Instant::now(), Cell::new(0));
        let look = async || {
            looks.set(looks.get() + 1);
            let mut report = Report::default();
            if start.elapsed() < good_at {
                report.error("cilium", "cilium", "not ready");
            }
            report
        };
        let report = watch(options, look, |_| {}).await;
        (report.is_good(false), start.elapsed(), looks.get())
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_time_is_waited_and_the_last_look_is_at_its_end() {
        let seconds = Duration::from_secs;
        let patient = options(true, seconds(9));
        assert_eq!(watched(&patient, START).await, (true, START, 1));
        assert_eq!(watched(&patient, seconds(3)).await, (true, seconds(4), 3));
        assert_eq!(watched(&patient, seconds(9)).await, (true, seconds(9), 6));
        assert_eq!(watched(&patient, seconds(10)).await, (false, seconds(9), 6));
        assert_eq!(watched(&options(true, seconds(1)), seconds(1)).await, (true, seconds(1), 2));
        assert_eq!(watched(&options(false, seconds(9)), seconds(1)).await, (false, START, 1));
    }
}
