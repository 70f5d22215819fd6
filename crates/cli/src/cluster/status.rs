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

/// Between two looks when waiting.
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
    let deadline = Instant::now() + options.wait_duration;
    let live = options.wait && options.interactive && options.output == Format::Text && stdout().is_terminal();
    let mut shown = 0;
    let report = loop {
        let report = collect(&client, &place.namespace).await;
        let good = report.is_good(options.ignore_warnings);
        if good || !options.wait || Instant::now() + PAUSE >= deadline {
            break report;
        }
        if live {
            shown = redraw(&report, shown);
        }
        tokio::time::sleep(PAUSE).await;
    };
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

/// Shows the report over the one before; returns its lines.
fn redraw(report: &Report, shown: usize) -> usize {
    erase(shown);
    let text = report.render(true);
    print!("{text}");
    text.lines().count()
}

/// Removes the last lines from the terminal.
fn erase(lines: usize) {
    if lines > 0 {
        print!("\x1b[{lines}A\x1b[J");
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::hubble::duration(text).ok_or_else(|| "want a duration such as 5m".to_owned())
}
