// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod access;
mod admin;
mod budget;
mod config;
mod disk;
mod exchange;
mod follow;
#[cfg(fuzzing)]
pub mod fuzz;
mod hand_over;
mod invalid;
mod listen;
mod metrics;
mod observe;
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
mod udp;
mod upstream;
mod worker;

pub use config::Config;
pub use run::{RunError, run};

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// The process: its arguments, its name first.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let config = match Config::try_parse_from(arguments) {
        Ok(config) => config,
        Err(error) => {
            // Help goes to standard output, and is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    surface::init_logs(config.debug);
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
