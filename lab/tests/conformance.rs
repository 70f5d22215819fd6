// SPDX-License-Identifier: Apache-2.0
//! A handful of Kubernetes' own end-to-end specs pass: one of each kind that `make conformance` runs. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::process::Command;

use lab::product;

#[test]
fn a_handful_of_kubernetes_own_specs_pass() {
    let script = product::repository("scripts/conformance");
    let mut command = Command::new(script);
    command
        .arg("--handful")
        .env("IMAGE_TAR", product::image())
        .env("CILIUM_LAB_PROGRAM", env!("CARGO_BIN_EXE_cilium-lab"));
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("9 specs passed"), "{said}");
}
