// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod accounting;
mod bare;
mod clock;
mod cluster;
mod cni;
mod collect;
mod etcd;
mod failover;
mod hubble;
mod load;
mod memory;
mod networks;
mod place;
mod plugin;
mod pods;
mod programs;
mod proxy;
mod report;
mod run;
mod scale;
mod sections;
mod services;
mod soak;
mod stats;
mod sync;
mod traffic;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::load::Kind;
use crate::place::Place;
use crate::plugin::Calls;
use crate::sections::Options;

/// The product's own: what of it is measured in processes of the bench has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the datapath, the CNI plugin and the agent, against plain veth routing and other networks, alternated in one run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Measure.
    Run(Options),
    /// Let objects come and go and daemons fail, and look what is there in the end.
    Soak(soak::Options),
    /// Answer a load on one address, forever.
    Serve {
        #[command(flatten)]
        place: Place,
        address: IpAddr,
    },
    /// Load a server and print what was seen.
    Load {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value_t = 5000)]
        milliseconds: u64,
        #[arg(long, default_value_t = load::PORT)]
        port: u16,
        kind: Kind,
        server: IpAddr,
    },
    /// Call a CNI plugin and print how long it took.
    Plugin(Calls),
    /// Run a relay of flows, forever.
    #[command(disable_help_flag = true)]
    Relay {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the proxy of a node, forever.
    #[command(disable_help_flag = true)]
    Proxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Try to connect and print what became of it: connected, refused or silent.
    Connect {
        #[command(flatten)]
        place: Place,
        /// How long to wait for an answer.
        #[arg(long, default_value_t = 500)]
        milliseconds: u64,
        address: IpAddr,
        port: u16,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Commands::Run(options) => return sections::measure(&options),
        Commands::Soak(options) => return soak::run(&options),
        Commands::Relay { arguments } => return Ok(hubble::serve_relay(arguments)),
        Commands::Proxy { arguments } => return Ok(proxy::serve(arguments)),
        Commands::Plugin(calls) => println!("{}", serde_json::to_string(&plugin::run(&calls)?)?),
        Commands::Serve { place, address } => {
            place.enter()?;
            load::serve(address)?;
        }
        Commands::Load { place, milliseconds, port, kind, server } => {
            place.enter()?;
            let measured = load::run(kind, SocketAddr::new(server, port), Duration::from_millis(milliseconds))?;
            println!("{}", serde_json::to_string(&measured)?);
        }
        Commands::Connect { place, milliseconds, address, port } => {
            place.enter()?;
            let limit = Duration::from_millis(milliseconds);
            println!(
                "{}",
                match TcpStream::connect_timeout(&SocketAddr::new(address, port), limit) {
                    Ok(_) => "connected",
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused",
                    Err(_) => "silent",
                }
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
