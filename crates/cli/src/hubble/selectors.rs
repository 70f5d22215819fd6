// SPDX-License-Identifier: Apache-2.0
//! Which of the past and coming flows or events a command shows.

use super::times::parse;
use anyhow::{Context, Result};
use clap::Args;
use prost_types::Timestamp;
use std::time::SystemTime;

/// How many are shown when nothing else is asked for.
pub(super) const DEFAULT_LAST: u64 = 20;

#[derive(Args, Clone, Debug)]
pub(super) struct Selectors {
    /// Show all that the server holds.
    #[arg(long, help_heading = "Selectors", conflicts_with_all = ["last", "first"])]
    all: bool,
    /// Show the last N [default: 20, unless another selector is given]
    #[arg(long, value_name = "N", help_heading = "Selectors", conflicts_with = "first")]
    last: Option<u64>,
    /// Show the first N.
    #[arg(long, value_name = "N", help_heading = "Selectors", conflicts_with = "follow")]
    first: Option<u64>,
    /// Go on with what comes.
    #[arg(long, short, help_heading = "Selectors")]
    pub(super) follow: bool,
    /// What is of this time or later: RFC 3339, or a duration before now.
    #[arg(long, help_heading = "Selectors")]
    since: Option<String>,
    /// Up to this time.
    #[arg(long, help_heading = "Selectors")]
    until: Option<String>,
}

/// The same as requests have it.
#[derive(Debug, PartialEq)]
pub(super) struct Window {
    pub(super) number: u64,
    pub(super) first: bool,
    pub(super) follow: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Selectors {
    /// What is asked for; the last so many if nothing is.
    pub(super) fn window(&self, by_default: u64) -> Result<Window> {
        let now = SystemTime::now();
        let time = |flag: &str, text: Option<&String>| {
            text.map(|text| parse(text, now)).transpose().with_context(|| format!("--{flag}"))
        };
        let since = time("since", self.since.as_ref())?;
        let until = if self.follow { None } else { time("until", self.until.as_ref())? };
        let vanilla = since.is_none() && until.is_none() && self.first.is_none();
        let last = match self.last {
            _ if self.all && vanilla => u64::MAX,
            None | Some(0) if vanilla && !self.follow => by_default,
            last => last.unwrap_or(0),
        };
        Ok(Window {
            number: self.first.unwrap_or(last),
            first: self.first.is_some(),
            follow: self.follow,
            since,
            until,
        })
    }
}
