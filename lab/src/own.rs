// SPDX-License-Identifier: Apache-2.0
//! For tests: a lab of one test alone. Tests that can share a cluster do so by [`crate::suite`].

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::probe::Cluster;

/// A lab that is down when the test ends, however it ends.
#[derive(Debug)]
pub struct Own {
    command: &'static str,
    name: &'static str,
    /// What is in it.
    pub cluster: Cluster,
}

impl Own {
    /// Brings it up, by the command of the lab (`env!("CARGO_BIN_EXE_cilium-lab")`) and with options of `lab up`.
    pub fn up(command: &'static str, name: &'static str, options: &[&str]) -> Result<Self> {
        let output = lab(command, name, &[&["up"], options].concat())?;
        ensure!(output.status.success(), "the lab did not come up: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { command, name, cluster: Cluster::open(name, command)? })
    }

    /// Runs the command of the lab with other arguments.
    pub fn lab(&self, arguments: &[&str]) -> Result<Output> {
        lab(self.command, self.name, arguments)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // What is left is taken down by the next lab of that name.
        let _ = self.lab(&["down"]);
    }
}

fn lab(command: &str, name: &str, arguments: &[&str]) -> Result<Output> {
    let mut process = Command::new(command);
    process.args(["--name", name]).args(arguments).env("RUST_BACKTRACE", "0");
    process.output().with_context(|| format!("run {command}"))
}
