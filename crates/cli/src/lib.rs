// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod ages;
mod cluster;
mod curl;
mod dbg;
mod explanation;
mod health;
mod hubble;
mod jsonpath;
mod output;
mod rest;
mod routed;
mod table;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

/// The clap definitions of `cilium`, `cilium-dbg`, `cilium-health`, `hubble` and `curl`, from which the reference is made.
#[must_use]
pub fn commands() -> [clap::Command; 5] {
    [cluster::command(), dbg::command(), health::command(), hubble::command(), curl::command()]
}

/// Runs `cilium`; the first argument is its name.
#[must_use]
pub fn cilium(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    block_on(cluster::run(args))
}

/// Runs `cilium-dbg`; the first argument is its name.
#[must_use]
pub fn dbg(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    block_on(dbg::run(args))
}

/// Runs `cilium-health`; the first argument is its name.
#[must_use]
pub fn health(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    block_on(health::run(args))
}

/// Runs `hubble`; the first argument is its name.
#[must_use]
pub fn hubble(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    block_on(hubble::run(args))
}

/// Runs `curl`; the first argument is its name.
#[must_use]
pub fn curl(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    block_on(curl::run(args))
}

/// Runs a command to completion on this thread, and reports its error.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // Help and version are not failures.
        let _ = usage.print();
        return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(1));
    }
    let closed = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    eprintln!("Error: {error:#}");
    ExitCode::FAILURE
}
