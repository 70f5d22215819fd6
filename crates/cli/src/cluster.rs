// SPDX-License-Identifier: Apache-2.0
//! The command `cilium`: a cluster seen from a workstation, through its API server.

mod collect;
mod config;
mod exec;
mod forward;
mod gateway;
mod policy;
mod report;
mod service;
mod status;
mod version;

pub(crate) use forward::Forwarder;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Install, inspect and try out Cilium in a Kubernetes cluster.
#[derive(Parser, Debug)]
#[command(
    name = "cilium",
    version,
    arg_required_else_help = true,
    after_help = "cilium lab ...   brings up a Kubernetes cluster on this machine to try it in"
)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Commands,
}

/// Which cluster to use, and which namespace.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config]
    #[arg(long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace in which Cilium runs.
    #[arg(long, short, global = true, default_value = "kube-system", env = "CILIUM_NAMESPACE")]
    pub(crate) namespace: String,
}

impl Place {
    async fn connect(&self) -> Result<k8s::Client> {
        let kubeconfig = match (&self.kubeconfig, &self.context) {
            (Some(path), _) => Some(path.clone()),
            // A context belongs to a file, which has to be named to be read.
            (None, Some(_)) => default_kubeconfig(),
            (None, None) => None,
        };
        let config = k8s::ClientConfig {
            kubeconfig,
            context: self.context.clone(),
            user_agent: Some(concat!("cilium-cli/", env!("CARGO_PKG_VERSION")).to_owned()),
            ..k8s::ClientConfig::default()
        };
        Ok(k8s::Client::connect(&config).await?)
    }
}

fn default_kubeconfig() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config")))
}

#[derive(Subcommand, Debug)]
enum Commands {
    /// Show whether Cilium works, on every node.
    Status(status::Options),
    /// Show the version of this command and of the agents.
    Version(version::Options),
    /// The configuration of the agents.
    #[command(subcommand)]
    Config(config::Commands),
    /// Hubble's servers, forwarded to this machine.
    #[command(subcommand)]
    Hubble(forward::Commands),
    /// Network policies.
    #[command(subcommand)]
    Policy(policy::Commands),
    /// Gateways, as the proxies of all nodes serve them.
    #[command(subcommand, alias = "gateways")]
    Gateway(gateway::Commands),
    /// Services, as the agents of all nodes see them.
    #[command(subcommand, alias = "services")]
    Service(service::Commands),
}

/// What clap knows of it.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let Arguments { place, command } = Arguments::try_parse_from(args)?;
    match command {
        Commands::Status(options) => status::run(&place, &options).await,
        Commands::Version(options) => version::run(&place, &options).await,
        Commands::Config(config::Commands::View) => config::view(&place).await,
        Commands::Hubble(command) => forward::run(&place, &command).await,
        Commands::Policy(policy::Commands::Suggest(options)) => policy::suggest(&options).await,
        Commands::Gateway(command) => gateway::run(&place, &command).await,
        Commands::Service(command) => service::run(&place, &command).await,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_commands_are_well_formed() {
        super::command().debug_assert();
    }
}
