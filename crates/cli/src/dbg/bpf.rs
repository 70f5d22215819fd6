// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg bpf`: the contents of the kernel's maps, read without an agent.

mod ct;
mod endpoint;
mod ipcache;
mod lb;
mod metrics;
mod policy;

use super::Output;
use crate::table::Table;
use anyhow::Result;
use clap::{Args, Subcommand};
use datapath::bpf::{BPFFS, Pinned};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The bpf file system.
    #[arg(long, default_value = BPFFS, global = true)]
    bpf_root: PathBuf,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand, Debug)]
enum Commands {
    /// Local endpoints by address.
    #[command(subcommand)]
    Endpoint(List),
    /// Compiled policy.
    #[command(subcommand)]
    Policy(Policy),
    /// Connections: the flow table.
    #[command(subcommand)]
    Ct(Ct),
    /// Services.
    #[command(subcommand)]
    Lb(Lb),
    /// Clients of services with session affinity.
    #[command(subcommand)]
    Affinity(List),
    /// Identity of addresses.
    #[command(subcommand)]
    Ipcache(Ipcache),
    /// Prefixes that are reached through another node.
    #[command(subcommand)]
    Tunnel(List),
    /// Packet counters.
    #[command(subcommand)]
    Metrics(List),
}

#[derive(Subcommand, Debug)]
enum List {
    /// List all entries.
    #[command(alias = "ls")]
    List(Output),
}

#[derive(Subcommand, Debug)]
enum Lb {
    /// List frontends and their backends.
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        what: lb::What,
        #[command(flatten)]
        output: Output,
    },
    /// Lookup tables of services that maglev chooses for.
    #[command(subcommand)]
    Maglev(MaglevTables),
}

#[derive(Subcommand, Debug)]
enum MaglevTables {
    /// List all.
    #[command(alias = "ls")]
    List(Output),
    /// Show that of one service.
    Get {
        /// Its number.
        service: u32,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum Policy {
    /// List the entries of all compiled policies.
    #[command(alias = "ls")]
    List(Output),
    /// List the entries that apply to an endpoint.
    Get {
        /// Its number.
        endpoint: Option<u16>,
        /// Those of all endpoints.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum Ct {
    /// List connections.
    #[command(alias = "ls")]
    List {
        /// `global`, or the number of an endpoint.
        #[arg(default_value = "global")]
        whose: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum Ipcache {
    /// List all prefixes.
    #[command(alias = "ls")]
    List(Output),
    /// Show the entry that an address has.
    Get {
        /// The address.
        address: std::net::IpAddr,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(options: &Options) -> Result<()> {
    let maps = Pinned::open(&options.bpf_root);
    match &options.command {
        Commands::Endpoint(List::List(output)) => {
            show(endpoint::list(&maps)?, ["IP ADDRESS", "LOCAL ENDPOINT INFO"], output)
        }
        Commands::Policy(Policy::List(output)) => policy::show(policy::list(&maps, None)?, output),
        Commands::Policy(Policy::Get { endpoint, all, output }) => {
            anyhow::ensure!(endpoint.is_some() != *all, "want the number of an endpoint, or --all");
            policy::show(policy::list(&maps, *endpoint)?, output)
        }
        Commands::Ct(Ct::List { whose, output }) => ct::show(&maps, whose, output),
        Commands::Lb(Lb::List { what, output }) => {
            let (header, entries) = lb::list(&maps, what)?;
            show(entries, header, output)
        }
        Commands::Lb(Lb::Maglev(MaglevTables::List(output))) => show(lb::maglev(&maps, None)?, MAGLEV, output),
        Commands::Lb(Lb::Maglev(MaglevTables::Get { service, output })) => {
            show(lb::maglev(&maps, Some(*service))?, MAGLEV, output)
        }
        Commands::Affinity(List::List(output)) => show(lb::affinity(&maps)?, ["SERVICE CLIENT", "BACKEND"], output),
        Commands::Ipcache(Ipcache::List(output)) => {
            show(ipcache::list(&maps)?, ["IP PREFIX/ADDRESS", "IDENTITY"], output)
        }
        Commands::Ipcache(Ipcache::Get { address, output }) => {
            let found = ipcache::get(&maps, *address)?;
            output.format().print(&found, || format!("{address} maps to {found}\n"))
        }
        Commands::Tunnel(List::List(output)) => show(ipcache::tunnels(&maps)?, ["TUNNEL", "VALUE"], output),
        Commands::Metrics(List::List(output)) => metrics::show(&maps, output),
    }
}

const MAGLEV: [&str; 2] = ["SVC ID", "LOOKUP TABLE"];

/// Entries as text, in order, or as a JSON object of lists like the published tool's.
type Entries = Vec<(String, String)>;

fn show(entries: Entries, header: [&str; 2], output: &Output) -> Result<()> {
    let mut object: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in &entries {
        object.entry(key).or_default().push(value);
    }
    output.format().print(&object, || {
        let mut table = Table::new(header);
        entries.iter().for_each(|(key, value)| table.row([key, value].map(String::as_str)));
        table.to_string()
    })
}

/// Bits by name.
fn flags(bits: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "<none>".to_owned() } else { set.join(",") }
}

/// An address and port, the port in network order.
fn socket(ip: abi::Addr, port: u16) -> String {
    std::net::SocketAddr::new(ip.into(), u16::from_be(port)).to_string()
}

/// The name of an IP protocol.
fn protocol(number: u8) -> String {
    match number {
        abi::flow::proto::ICMP => "ICMP".to_owned(),
        abi::flow::proto::TCP => "TCP".to_owned(),
        abi::flow::proto::UDP => "UDP".to_owned(),
        abi::flow::proto::ICMPV6 => "ICMPv6".to_owned(),
        abi::flow::proto::SCTP => "SCTP".to_owned(),
        0 => "ANY".to_owned(),
        other => other.to_string(),
    }
}
