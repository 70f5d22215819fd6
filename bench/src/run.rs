// SPDX-License-Identifier: Apache-2.0
//! Other programs: started, waited for up to a limit, and killed with their children.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::clock;

/// The standard output of a program that succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    text(command, &output)
}

/// The same, with standard input.
pub(crate) fn with_input(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {command:?}"))?;
    text(command, &output)
}

fn text(command: &Command, output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    bail!("{command:?}: {}: {} {}", output.status, error.trim(), said.trim())
}

/// A program in the background that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self { child: child.with_context(|| format!("cannot run {command:?}"))? })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written its first line.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            BufReader::new(stdout).read_line(&mut line).context("cannot read what a program says")?;
        }
        if line.is_empty() { bail!("a program ended at once: {}", self.error()) } else { Ok(line) }
    }

    /// Waits for it to end and returns its output; kills it after `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String> {
        let ended = clock::poll(limit, Duration::from_millis(5), || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => bail!("it still runs"),
            Err(error) => Err(error.into()),
        })?;
        let mut said = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut said).context("cannot read what a program says")?;
        }
        if ended.success() { Ok(said) } else { bail!("{}", self.error()) }
    }

    fn error(&mut self) -> String {
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        said.trim().to_owned()
    }

    /// Takes its standard output.
    pub(crate) fn lines(&mut self) -> Result<impl Iterator<Item = String> + Send + 'static> {
        let stdout = self.child.stdout.take().context("the output of a program was taken already")?;
        Ok(BufReader::new(stdout).lines().map_while(std::io::Result::ok))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
