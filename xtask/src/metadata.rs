// SPDX-License-Identifier: Apache-2.0
//! Cargo's view of the workspace, as JSON.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The cargo that built this program.
pub(crate) fn cargo() -> &'static str {
    option_env!("CARGO").unwrap_or("cargo")
}

/// Runs `cargo metadata` with further arguments.
pub(crate) fn cargo_metadata(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version", "1"])
        .args(arguments)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("parse cargo metadata")
}

/// The items of a list field; none if it is absent.
pub(crate) fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value.get(member).and_then(Value::as_array).into_iter().flatten()
}
