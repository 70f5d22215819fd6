// SPDX-License-Identifier: Apache-2.0
//! The command `hubble`: flows of a node or of a cluster.

mod connect;
mod file;
mod filters;
mod flows;
mod history;
mod names;
mod observe;
mod print;
mod stats;
mod status;
mod times;
mod watch;

use crate::output::Format;
use anyhow::Result;
use clap::{Args, Command, FromArgMatches, Subcommand};
use clap_complete::Shell;
use history::Export;
use observe::Observe;
use stats::Stats;
use status::StatusOutput;
use std::ffi::OsString;

pub(crate) use connect::Connection;
pub(crate) use flows::Flows;
pub(crate) use names::{drop_reason, observation_point, policy_match};
pub(crate) use times::duration;

#[derive(Args, Debug)]
struct Global {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Other {
    /// Show whether the server is healthy and how many flows it has.
    Status {
        /// How to show it.
        #[arg(long, short, value_enum, default_value = "compact", ignore_case = true)]
        output: StatusOutput,
    },
    /// List what the server knows.
    #[command(subcommand)]
    List(List),
    /// Follow changes of what the server knows.
    #[command(subcommand)]
    Watch(Watch),
    /// Print a script that completes commands in a shell.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Show the version.
    Version,
}

#[derive(Subcommand, Debug)]
enum Watch {
    /// Nodes that serve flows (an agent knows them).
    #[command(alias = "peer")]
    Peers,
}

#[derive(Subcommand, Debug)]
enum List {
    /// Nodes (a relay knows them).
    #[command(alias = "node")]
    Nodes(ListOptions),
    /// Namespaces with flows in the last hour.
    #[command(alias = "namespace", alias = "ns")]
    Namespaces(ListOptions),
}

#[derive(Args, Debug)]
struct ListOptions {
    /// table, wide, json, yaml or jsonpath='{...}'.
    #[arg(long, short, default_value = "table")]
    output: String,
}

/// What clap knows of it.
pub(crate) fn command() -> Command {
    let observe = || Observe::augment_args(filters::add(Command::new("observe")));
    let observe = observe()
        .about("Observe flows, past and as they come")
        .after_help("A flow is shown when it fits all flags; a flag fits when one of its values does.")
        .subcommand(observe().name("flows").about("Observe flows"));
    let stats = Stats::augment_args(filters::add(Command::new("stats")))
        .about("Show who talks most, and what is dropped: by rule, reason and pair");
    let export = Export::augment_args(filters::add(Command::new("export")))
        .about("Write flows as JSON lines or as a Parquet file");
    let history = Command::new("history")
        .about("Flows that nodes have on disk")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(export);
    let command = Command::new("hubble")
        .about("See what happens on the network")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(observe)
        .subcommand(stats)
        .subcommand(history);
    Other::augment_subcommands(Global::augment_args(command))
}

/// Runs the command.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let args = filters::join_not(args)?;
    let matches = command().try_get_matches_from(args)?;
    let connection = Global::from_arg_matches(&matches)?.connection;
    match matches.subcommand() {
        Some(("observe", observe)) => {
            let observe = observe.subcommand_matches("flows").unwrap_or(observe);
            return observe::run(&connection, observe).await;
        }
        Some(("stats", stats)) => return stats::run(&connection, stats).await,
        Some(("history", history)) => {
            let export = history.subcommand_matches("export").unwrap_or(history);
            return history::export(&connection, export).await;
        }
        _ => {}
    }
    match Other::from_arg_matches(&matches)? {
        Other::Status { output } => status::status(&connection, output).await,
        Other::List(List::Nodes(list)) => status::nodes(&connection, list.wide(), &list.format()?).await,
        Other::List(List::Namespaces(list)) => status::namespaces(&connection, list.wide(), &list.format()?).await,
        Other::Watch(Watch::Peers) => watch::peers(&connection).await,
        Other::Completion { shell } => {
            clap_complete::generate(shell, &mut command(), "hubble", &mut std::io::stdout());
            Ok(())
        }
        Other::Version => {
            println!("hubble v{}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

impl ListOptions {
    fn wide(&self) -> bool {
        self.output == "wide"
    }

    fn format(&self) -> Result<Format> {
        self.output.parse().map_err(anyhow::Error::msg)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_commands_are_well_formed() {
        super::command().debug_assert();
    }
}
