// SPDX-License-Identifier: Apache-2.0
//! The lab's program, which `cilium lab` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::main(std::env::args_os().skip(1)).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
