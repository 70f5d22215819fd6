// SPDX-License-Identifier: Apache-2.0
//! The command `cilium-health`: what this node can reach.

pub(crate) mod render;

use crate::dbg::{Output, status};
use crate::rest::{Agent, HEALTH_SOCKET};
use crate::table::Table;
use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use rest::{HealthResponse, HealthStatusResponse};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How long to wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long to wait for new probes: longer than the agent gives itself.
const PROBE: Duration = Duration::from_secs(75);

/// Show which nodes, and which of their health endpoints, can be reached from this node.
#[derive(Parser, Debug)]
#[command(name = "cilium-health", version, arg_required_else_help = true)]
struct Arguments {
    /// The socket of the health API.
    #[arg(long, short = 'H', env = "CILIUM_HEALTH_SOCK", default_value = HEALTH_SOCKET, global = true)]
    host: PathBuf,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand, Debug)]
enum Commands {
    /// Show what the last probes of each node found.
    Status(StatusOptions),
    /// Show the state of the agent of this node.
    #[command(alias = "inspect", alias = "show")]
    Get(Output),
    /// Check that the health API answers.
    Ping,
}

#[derive(Args, Debug)]
struct StatusOptions {
    /// Probe all nodes now, and show what that finds.
    #[arg(long)]
    probe: bool,
    /// Show one line per node, which is what is shown without --verbose.
    #[arg(long, conflicts_with = "verbose")]
    succinct: bool,
    /// Show every address, with round trips or errors.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    output: Output,
}

/// What clap knows of it.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let arguments = Arguments::try_parse_from(args)?;
    let agent = Agent::health(&arguments.host, ANSWER);
    match arguments.command {
        Commands::Status(options) => {
            let found = find(agent, options.probe).await?;
            let text = || if options.verbose { render::blocks(&found) } else { short(&found) };
            options.output.format().print(&found, text)
        }
        Commands::Get(output) => {
            let health: HealthResponse = agent.get("/healthz").await?;
            output.format().print(&health, || node(&health))
        }
        Commands::Ping => {
            let _: HealthResponse = agent.get("/healthz").await?;
            println!("OK");
            Ok(())
        }
    }
}

async fn find(agent: Agent, probe: bool) -> Result<HealthStatusResponse> {
    if probe { agent.within(PROBE).put("/status/probe").await } else { agent.get("/status").await }
}

fn short(found: &HealthStatusResponse) -> String {
    let mut table = Table::default();
    render::table(&mut table, found);
    table.to_string()
}

/// The node and its agent.
fn node(health: &HealthResponse) -> String {
    let mut table = Table::default();
    table.row(["Daemon uptime:", &health.uptime]);
    if let Some(load) = &health.system_load {
        table.row(["Node load:", &format!("{} {} {}", load.last1min, load.last5min, load.last15min)]);
    }
    table.append(status::lines(&health.cilium.clone().unwrap_or_default()));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::tests::agent;
    use std::path::Path;

    #[test]
    fn the_commands_are_well_formed() {
        command().debug_assert();
    }

    #[tokio::test]
    async fn fresh_results_are_asked_for_only_on_demand() {
        let (_, dir) = agent(&[
            ("/status", r#"{"timestamp":"old"}"#),
            ("PUT /status/probe", r#"{"timestamp":"fresh"}"#),
            ("/healthz", r#"{"uptime":"5s"}"#),
        ]);
        let socket = dir.path().join("cilium.sock");
        let health = Agent::health(&socket, ANSWER);
        assert_eq!(find(health.clone(), false).await.unwrap().timestamp, "old");
        assert_eq!(find(health, true).await.unwrap().timestamp, "fresh");
        let run = async |words: &[&str], socket: &Path| {
            let host = ["cilium-health".into(), "-H".into(), socket.into()];
            run(host.into_iter().chain(words.iter().map(OsString::from))).await
        };
        for words in [&["status"][..], &["status", "--probe", "-o", "json"], &["get"], &["ping"]] {
            run(words, &socket).await.unwrap();
        }
        let error = run(&["ping"], Path::new("/nonexistent/health.sock")).await.unwrap_err();
        assert!(format!("{error:#}").contains("is it running?"));
    }

    #[test]
    fn the_node_is_shown_before_its_agent() {
        let health = r#"{"uptime":"1m5s","system-load":{"last1min":"0.10","last5min":"0.20","last15min":"0.30"},
            "cilium":{"cilium":{"state":"Ok","msg":"0.1.0"}}}"#;
        let text = node(&serde_json::from_str(health).unwrap());
        assert!(text.starts_with("Daemon uptime:          1m5s\nNode load:              0.10 0.20 0.30\n"), "{text}");
        assert!(text.contains("\nCilium:                 Ok   0.1.0\n"), "{text}");
    }
}
