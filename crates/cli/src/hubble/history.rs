// SPDX-License-Identifier: Apache-2.0
//! `hubble history export`: flows as JSON lines, which `hubble observe --input-file` and most tools read.

use super::connect::Connection;
use super::filters;
use super::flows::Flows;
use anyhow::Result;
use clap::{ArgMatches, Args, FromArgMatches};
use hubble::proto::to_json;
use std::io::{BufWriter, Write};

#[derive(Args, Clone, Debug)]
pub(super) struct Export {
    #[command(flatten)]
    flows: Flows,
}

/// Runs the command.
pub(super) async fn export(connection: &Connection, matches: &ArgMatches) -> Result<()> {
    let mut out = BufWriter::new(std::io::stdout());
    let take = |response: &_| Ok(writeln!(out, "{}", to_json(response)?)?);
    Export::from_arg_matches(matches)?.flows.each(connection, filters::compile(matches)?, take).await?;
    Ok(out.flush()?)
}
