// SPDX-License-Identifier: Apache-2.0
//! `hubble history export`: flows as JSON lines, which `hubble observe --input-file` and most tools read, or as a Parquet file.

mod columns;
mod parquet;

use super::connect::Connection;
use super::filters;
use super::flows::Flows;
use super::print::{Printer, shown};
use anyhow::{Result, bail};
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use hubble::proto::flow::FlowFilter;
use hubble::proto::observer::GetFlowsResponse;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::to_json;
use parquet::Table;
use std::io::{BufWriter, IsTerminal, Write, stdout};

#[derive(Args, Clone, Debug)]
pub(super) struct Export {
    #[command(flatten)]
    flows: Flows,
    /// The format.
    #[arg(long, short, value_enum, default_value = "json", ignore_case = true)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One JSON object a line.
    #[value(alias = "jsonpb")]
    Json,
    /// A table with a row for each flow.
    Parquet,
}

/// Runs the command.
pub(super) async fn export(connection: &Connection, matches: &ArgMatches) -> Result<()> {
    let (options, filters) = (Export::from_arg_matches(matches)?, filters::compile(matches)?);
    match options.output {
        Output::Json => json(connection, options.flows, filters).await,
        Output::Parquet if stdout().is_terminal() => bail!("a Parquet file is nothing for a terminal: add > FILE"),
        Output::Parquet => table(connection, options.flows, filters).await,
    }
}

async fn json(connection: &Connection, flows: Flows, filters: (Vec<FlowFilter>, Vec<FlowFilter>)) -> Result<()> {
    let mut out = BufWriter::new(stdout());
    let take = |response: &_| match shown(to_json(response)) {
        Some(text) => Ok(writeln!(out, "{text}")?),
        None => Ok(()),
    };
    flows.each(connection, filters, take).await?;
    Ok(out.flush()?)
}

async fn table(connection: &Connection, flows: Flows, filters: (Vec<FlowFilter>, Vec<FlowFilter>)) -> Result<()> {
    let mut table = Table::new(stdout())?;
    let mut aside = Printer::aside();
    let take = |response: &GetFlowsResponse| {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => return table.push(flow),
            Some(ResponseTypes::LostEvents(lost)) => table.push_lost(lost.num_events_lost),
            _ => {}
        }
        aside.print(response)
    };
    let told = flows.each(connection, filters, take).await;
    // What there is can be read, even if there is no more.
    table.finish()?;
    told
}
