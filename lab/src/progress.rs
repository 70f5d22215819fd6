// SPDX-License-Identifier: Apache-2.0
//! Progress on standard error: each step, and how long it took.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock;

/// Shows steps, unless it is quiet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) quiet: bool,
}

impl Progress {
    /// Runs one step. The closure returns a remark about the result.
    pub(crate) fn step(self, what: &str, act: impl FnOnce() -> Result<String>) -> Result<()> {
        let begin = clock::now();
        let spinner = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {msg}") {
            spinner.set_style(style);
        }
        spinner.set_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(80));
        let result = act();
        spinner.finish_and_clear();
        let seconds = begin.elapsed().as_secs_f32();
        match (&result, self.quiet) {
            (_, true) => {}
            (Ok(said), false) => eprintln!("  \u{2713} {what:<28} {said:<46} {seconds:>5.1} s"),
            (Err(_), false) => eprintln!("  \u{2717} {what}"),
        }
        result.map(drop)
    }
}
