// SPDX-License-Identifier: Apache-2.0
//! Pods are isolated, behind the tunnel. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod cases;

use lab::suite::Suite;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    name: "policies",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: cases::CASES,
};

fn main() -> ExitCode {
    SUITE.main()
}
