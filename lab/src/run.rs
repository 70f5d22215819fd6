// SPDX-License-Identifier: Apache-2.0
//! Runs other programs and returns their output, or an error with program, arguments and message.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// The standard output of a command that succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    checked(command, &output)
}

/// Like [`output`], with `input` on standard input.
pub(crate) fn with_input(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", shown(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends early closes the pipe; its own message is the better error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {}", shown(command)))?;
    checked(command, &output)
}

/// Applies a batch of iproute2 commands, one per line.
pub(crate) fn ip(prefix: &[&str], batch: &str) -> Result<()> {
    let mut words = prefix.iter().copied().chain(["ip", "-batch", "-"]);
    let mut command = Command::new(words.next().unwrap_or("ip"));
    command.args(words);
    with_input(&mut command, batch).with_context(|| format!("in these commands:\n{batch}"))?;
    Ok(())
}

/// Whether a program is on the search path.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

fn checked(command: &Command, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() { text } else { said.into_owned() };
        bail!("{} ended with {}: {}", shown(command), output.status, said.trim());
    }
    Ok(text)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
