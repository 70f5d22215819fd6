// SPDX-License-Identifier: Apache-2.0
//! The command line.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Layer 7 proxy of this node: Gateway API, Ingress and layer 7 policy. The agent tells it what to serve.
#[derive(Clone, Debug, Parser)]
#[command(name = "cilium-proxy", version)]
pub struct Config {
    /// Unix socket of the agent, which has the configuration.
    #[arg(long, default_value = "/var/run/cilium/proxy/agent.sock")]
    pub agent_socket: PathBuf,
    /// File that holds the last configuration, to start from when the agent is away. It holds private keys.
    #[arg(long, default_value = "/var/run/cilium/proxy/state.json")]
    pub state_file: PathBuf,
    /// Unix socket on which the next process is given the listening sockets.
    #[arg(long, default_value = "/var/run/cilium/proxy/hand-over.sock")]
    pub hand_over_socket: PathBuf,
    /// Address of metrics.
    #[arg(long, default_value = "0.0.0.0:9964")]
    pub metrics_address: SocketAddr,
    /// Address of the health check.
    #[arg(long, default_value = "127.0.0.1:9878")]
    pub health_address: SocketAddr,
    /// Threads that serve connections; 0: one per core.
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Seconds that open connections have to end when the process is to, or when their route is withdrawn.
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub drain_time: Duration,
    /// Seconds for which connections are still taken when the process is to end, so that the node can send clients elsewhere.
    #[arg(long, default_value = "0", value_parser = seconds)]
    pub linger_time: Duration,
    /// Pod that the process is in, as NAMESPACE/NAME, for the agent.
    #[arg(long, default_value = "")]
    pub pod: String,
    /// File for a line of JSON per request; - is standard output.
    #[arg(long)]
    pub access_log: Option<PathBuf>,
    /// Bytes of answers that may wait for clients that do not read; then the connection for which the most waits ends. 0: a quarter of the
    /// memory.
    #[arg(long, default_value_t = 0)]
    pub unread_bytes: usize,
    /// More logs.
    #[arg(long)]
    pub debug: bool,
    /// How logs are written: format=json or format=text, and level=debug, info, warn or error.
    #[arg(long, value_delimiter = ',', value_parser = surface::log_option)]
    pub log_opt: Vec<surface::LogOption>,
    /// The socket at standard input is that of the process which holds the listening sockets and starts this one again.
    #[arg(long, hide = true)]
    pub kept: bool,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

impl Config {
    /// Threads, with 0 replaced.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers == 0 { cores() } else { self.workers }
    }
}
