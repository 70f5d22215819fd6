// SPDX-License-Identifier: Apache-2.0
//! The command `hubble`: flows of a node or of a cluster.

mod config;
mod connect;
mod events;
mod file;
mod filters;
mod flows;
mod history;
mod names;
mod observe;
mod print;
mod selectors;
mod stats;
mod status;
mod times;
mod watch;

use crate::cluster::{Forwarder, Place};
use crate::output::Format;
use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use clap_complete::Shell;
use events::Events;
use history::Export;
use observe::Observe;
use stats::Stats;
use status::StatusOutput;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use connect::Connection;
pub(crate) use flows::Flows;
pub(crate) use names::{drop_reason, observation_point, policy_match};
pub(crate) use times::duration;

#[derive(Args, Debug)]
struct Global {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    forward: Forward,
}

// Whether hubble-relay is reached through the API server, and of which cluster. No documentation: that would be the command's.
#[derive(Args, Debug)]
#[command(next_help_heading = "Port forwarding")]
struct Forward {
    /// Reach hubble-relay through the API server, by a port of this machine: --server does not count then.
    #[arg(long, short = 'P', env = "HUBBLE_PORT_FORWARD", global = true)]
    port_forward: bool,
    /// That port; 0 for any.
    #[arg(long, env = "HUBBLE_PORT_FORWARD_PORT", global = true, default_value_t = 4245)]
    port_forward_port: u16,
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config]
    #[arg(long, env = "HUBBLE_KUBECONFIG", global = true)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, env = "HUBBLE_KUBE_CONTEXT", global = true)]
    kube_context: Option<String>,
    /// Namespace in which Cilium runs.
    #[arg(long, env = "HUBBLE_KUBE_NAMESPACE", global = true, default_value = "kube-system")]
    kube_namespace: String,
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
    /// Show or change a file with values for flags.
    #[command(subcommand)]
    Config(config::Commands),
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
        .subcommand(observe().name("flows").about("Observe flows"))
        .subcommand(Events::augment_args(Command::new("agent-events")).about("Observe what agents do"))
        .subcommand(
            Events::augment_args(Command::new("debug-events"))
                .about("Observe what datapaths say to look for a fault; ours says nothing"),
        );
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
    Other::augment_subcommands(Global::augment_args(command.arg(config::file())))
}

/// Runs the command.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let args = filters::join_not(args)?;
    let matches = config::with_file(command(), &args)?.try_get_matches_from(args)?;
    let Global { connection, forward } = Global::from_arg_matches(&matches)?;
    if !forward.port_forward || is_local(&matches) {
        return act(&matches, &connection).await;
    }
    let place =
        Place { context: forward.kube_context, kubeconfig: forward.kubeconfig, namespace: forward.kube_namespace };
    let forwarder = Forwarder::to_relay(&place, forward.port_forward_port).await?;
    let connection = connection.by_port(forwarder.port()?);
    tokio::select! {
        done = act(&matches, &connection) => done,
        failed = forwarder.run() => failed,
    }
}

/// Whether the command asks no server.
fn is_local(matches: &ArgMatches) -> bool {
    matches!(matches.subcommand_name(), Some("config" | "completion" | "version"))
}

async fn act(matches: &ArgMatches, connection: &Connection) -> Result<()> {
    match matches.subcommand() {
        Some(("observe", observe)) => {
            return match observe.subcommand() {
                Some(("agent-events", events)) => events::agent(connection, events).await,
                Some(("debug-events", events)) => events::debug(connection, events).await,
                flows => observe::run(connection, flows.map_or(observe, |(_, flows)| flows)).await,
            };
        }
        Some(("stats", stats)) => return stats::run(connection, stats).await,
        Some(("history", history)) => {
            let export = history.subcommand_matches("export").unwrap_or(history);
            return history::export(connection, export).await;
        }
        _ => {}
    }
    match Other::from_arg_matches(matches)? {
        Other::Status { output } => status::status(connection, output).await,
        Other::List(List::Nodes(list)) => status::nodes(connection, list.wide(), &list.format()?).await,
        Other::List(List::Namespaces(list)) => status::namespaces(connection, list.wide(), &list.format()?).await,
        Other::Watch(Watch::Peers) => watch::peers(connection).await,
        Other::Config(command) => {
            print!("{}", config::run(&command, matches, connection)?);
            Ok(())
        }
        Other::Completion { shell } => {
            clap_complete::generate(shell, &mut self::command(), "hubble", &mut std::io::stdout());
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
