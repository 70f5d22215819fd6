// SPDX-License-Identifier: Apache-2.0
//! The command `cilium-dbg`: one agent, seen from inside its pod.

mod bpf;
mod cleanup;
mod endpoint;
mod identity;
mod ip;
mod lrp;
mod metrics;
mod monitor;
mod node;
mod proxy;
mod service;
mod statedb;
pub(crate) mod status;
mod version;

use crate::output::Format;
use crate::rest::{Agent, SOCKET};
use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Look inside of the agent of this node.
#[derive(Parser, Debug)]
#[command(name = "cilium-dbg", version, arg_required_else_help = true)]
struct Arguments {
    /// The agent's socket.
    #[arg(long, short = 'H', env = "CILIUM_SOCK", default_value = SOCKET, global = true)]
    host: PathBuf,
    #[command(subcommand)]
    command: Commands,
}

/// How to show the result.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Output {
    /// json, yaml or jsonpath='{...}'.
    #[arg(long, short)]
    output: Option<Format>,
}

impl Output {
    pub(crate) fn format(&self) -> Format {
        self.output.clone().unwrap_or_default()
    }
}

#[derive(Subcommand, Debug)]
enum Commands {
    /// Show the state of the agent and of what it runs.
    Status(status::Options),
    /// Endpoints: the pods of this node.
    #[command(subcommand, alias = "endpoints", alias = "ep")]
    Endpoint(endpoint::Commands),
    /// Security identities.
    #[command(subcommand, alias = "identities")]
    Identity(identity::Commands),
    /// Addresses and their identities.
    #[command(subcommand)]
    Ip(ip::Commands),
    /// Nodes of the cluster.
    #[command(subcommand, alias = "nodes")]
    Node(node::Commands),
    /// What the proxy of this node serves.
    Proxy(proxy::Options),
    /// Services.
    #[command(subcommand, alias = "services")]
    Service(service::Commands),
    /// Local redirect policies.
    #[command(subcommand)]
    Lrp(lrp::Commands),
    /// What is in the kernel's maps. Needs no agent.
    Bpf(bpf::Options),
    /// Show events as they come.
    Monitor(monitor::Options),
    /// Metrics of the agent.
    #[command(subcommand)]
    Metrics(metrics::Commands),
    /// Tables of the agent: their names, or the rows of one.
    Statedb(statedb::Options),
    /// Remove everything that an agent has left in the kernel and on disk. Pods lose their network.
    PostUninstallCleanup(cleanup::Options),
    /// Show the version of this command and of the agent.
    Version(Output),
}

/// What clap knows of it.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let arguments = Arguments::try_parse_from(args)?;
    let agent = Agent::new(&arguments.host, Duration::from_secs(30));
    match arguments.command {
        Commands::Status(options) => status::run(agent, &options).await,
        Commands::Endpoint(command) => endpoint::run(&agent, command).await,
        Commands::Identity(command) => identity::run(&agent, command).await,
        Commands::Ip(command) => ip::run(&agent, command).await,
        Commands::Node(command) => node::run(&agent, command).await,
        Commands::Lrp(command) => lrp::run(&agent, command).await,
        Commands::Proxy(options) => proxy::run(&options).await,
        Commands::Service(command) => service::run(&agent, command).await,
        Commands::Bpf(options) => bpf::run(&options),
        Commands::Monitor(options) => monitor::run(&options).await,
        Commands::Metrics(command) => metrics::run(command).await,
        Commands::Statedb(options) => statedb::run(&agent, &options).await,
        Commands::PostUninstallCleanup(options) => cleanup::run(&options).await,
        Commands::Version(output) => version::run(&agent, &output.format()).await,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_commands_are_well_formed() {
        super::command().debug_assert();
    }
}
