// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
// What a connection holds is many types deep, and all of it has to be seen to be `Sync`.
#![recursion_limit = "256"]

mod access;
mod admin;
mod budget;
mod callers;
mod config;
mod crowd;
mod disk;
mod exchange;
mod explain;
mod follow;
mod framing;
#[cfg(fuzzing)]
pub mod fuzz;
mod hand_over;
mod invalid;
mod keeper;
mod lease;
mod limiter;
mod listen;
mod loops;
mod metrics;
mod node_sockets;
mod observe;
mod pages;
mod proxy_protocol;
mod rewind;
mod route;
mod run;
mod serving;
mod socket;
mod store;
mod stream;
mod tcp;
mod timed;
mod tls;
mod token;
mod udp;
mod upstream;
mod worker;

pub use config::Config;
pub use run::{RunError, run};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// The process: its arguments, its name first.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let config = match parse(&arguments) {
        Ok(config) => config,
        Err(code) => return code,
    };
    pages::be_small();
    take_all_descriptors();
    let stop = || {
        let stop = CancellationToken::new();
        surface::stop_on_signal(stop.clone())?;
        Ok(stop)
    };
    match run(&config, stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("cilium-proxy: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

/// A connection takes two descriptors with that to its backend, and many processes begin with leave for a thousand.
fn take_all_descriptors() {
    let limit = Resource::RLIMIT_NOFILE;
    if let Err(error) = getrlimit(limit).and_then(|(_, most)| setrlimit(limit, most, most)) {
        tracing::warn!(%error, "cannot raise RLIMIT_NOFILE");
    }
}

/// A process that starts the proxy with the same arguments, starts it again when it is killed, and ends as it ends.
#[must_use]
pub fn starter(arguments: Vec<OsString>) -> ExitCode {
    if let Err(code) = parse(&arguments) {
        return code;
    }
    pages::be_small();
    match keeper::keep(arguments.get(1..).unwrap_or_default()) {
        Ok(status) => {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("cilium-envoy-starter: cilium-proxy cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration, or how to end; logs are on from then on.
fn parse(arguments: &[OsString]) -> Result<Config, ExitCode> {
    let config = Config::try_parse_from(arguments).map_err(|error| {
        // Help goes to standard output, and is no failure.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })?;
    surface::init_logs(config.debug, &config.log_opt);
    Ok(config)
}
