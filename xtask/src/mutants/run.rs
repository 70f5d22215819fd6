// SPDX-License-Identifier: Apache-2.0
//! Builds the tests with the mutated programs, and runs them until one fails.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Reach;
use super::table::Mutant;
use super::tree::Tree;

/// Time limit for the tests of one binary, in seconds.
const PATIENCE: &str = "900";
/// The module whose tests load the programs: a mutant that fails there was not tested.
const LOADER: &str = "kernel/sandbox.rs:";

/// The fate of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Killed by that test.
    Killed(String),
    /// No test has.
    Survives,
    /// It does not compile.
    BuildFails,
    /// The verifier rejects it.
    LoadFails,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(test) => write!(f, "killed by {test}:"),
            Self::Survives => f.pad("SURVIVES"),
            Self::BuildFails => f.pad("BUILD FAILS"),
            Self::LoadFails => f.pad("LOAD FAILS"),
        }
    }
}

/// The test binaries, which embed the programs of the tree.
pub(super) struct Programs {
    binaries: BTreeMap<String, PathBuf>,
    log: String,
}

impl Programs {
    /// Builds the binaries of these tests; `None` if the programs do not compile.
    pub(super) fn build(tree: &Tree, tests: &[String]) -> Result<Option<Self>> {
        let log = File::create(tree.log()).with_context(|| format!("create {}", tree.log()))?;
        let built = Command::new("cargo")
            .args(["test", "--package", "datapath", "--no-run", "--locked", "--message-format=json-render-diagnostics"])
            .args(by_binary(tests).into_keys().flat_map(|binary| ["--test", binary]))
            .current_dir(tree.sources())
            .env("CARGO_TARGET_DIR", tree.target())
            .stderr(log)
            .output()
            .context("run cargo")?;
        if !built.status.success() {
            return Ok(None);
        }
        let messages = built.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let binaries = messages.filter_map(|message: Value| {
            let name = message.get("target")?.get("name")?.as_str()?.to_string();
            Some((name, PathBuf::from(message.get("executable")?.as_str()?)))
        });
        Ok(Some(Self { binaries: binaries.collect(), log: tree.log() }))
    }

    /// Runs the related tests and, if they all pass, the rest of the same binaries.
    pub(super) fn meet(&self, mutant: &Mutant, reach: Reach) -> Result<Outcome> {
        let nearest = self.first_failure(&mutant.tests)?;
        if nearest != Outcome::Survives || reach == Reach::Related {
            return Ok(nearest);
        }
        for (binary, words) in by_binary(&mutant.tests) {
            let others: Vec<&str> = words.iter().flat_map(|word| ["--skip", word]).collect();
            let outcome = self.run(binary, &others)?;
            if outcome != Outcome::Survives {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Survives)
    }

    /// Runs the given tests until one fails.
    pub(super) fn first_failure(&self, tests: &[String]) -> Result<Outcome> {
        for (binary, words) in by_binary(tests) {
            let outcome = self.run(binary, &words)?;
            if outcome != Outcome::Survives {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Survives)
    }

    fn run(&self, binary: &str, arguments: &[&str]) -> Result<Outcome> {
        let Some(path) = self.binaries.get(binary) else { bail!("there is no test binary {binary}") };
        // A failure must be seen before the last test has ended.
        let log = OpenOptions::new().append(true).open(&self.log).with_context(|| format!("open {}", self.log))?;
        let mut tests = Command::new("timeout")
            .args(["--kill-after=10", PATIENCE])
            .arg(path)
            .arg("--nocapture")
            .args(arguments)
            // Only the fact of a failure matters, not its details.
            .env("MODEL_SHRINK", "0")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("run timeout")?;
        let lines = tests.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
        let failed = lines.map_while(Result::ok).find_map(|line| failed(&line).map(String::from));
        if failed.is_some() {
            // `timeout` passes the signal on.
            let _ = Command::new("kill").arg(tests.id().to_string()).status();
        }
        let status = tests.wait()?;
        let said = fs::read(&self.log).with_context(|| format!("read {}", self.log))?;
        let said = String::from_utf8_lossy(&said);
        let loads = !said.lines().any(|line| line.contains("panicked at") && line.contains(LOADER));
        Ok(match failed {
            Some(_) if !loads => Outcome::LoadFails,
            Some(test) => Outcome::Killed(test),
            None if status.success() => Outcome::Survives,
            None => Outcome::Killed(format!("{binary}, which ended with {status}")),
        })
    }
}

/// The test that a line of the output reports as failed. Other threads may write into that line.
fn failed(line: &str) -> Option<&str> {
    let rest = line.get(line.find("test ")? + 5..)?;
    let (name, result) = rest.split_once(" ... ")?;
    (result.trim() == "FAILED").then_some(name)
}

/// `BINARY::WORDS` by binary.
fn by_binary(tests: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut binaries: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (binary, words) in tests.iter().filter_map(|test| test.split_once("::")) {
        binaries.entry(binary).or_default().push(words);
    }
    binaries
}

#[cfg(test)]
mod tests {
    use super::{by_binary, failed};

    #[test]
    fn a_failed_test_is_known_by_its_line() {
        assert_eq!(failed("test state::a_flow_ends ... FAILED"), Some("state::a_flow_ends"));
        assert_eq!(failed("test state::a_flow_ends ... ok"), None);
        assert_eq!(failed("test result: FAILED. 1 passed; 1 failed"), None);
    }

    #[test]
    fn tests_are_run_by_their_binaries() {
        let tests = ["prog::a", "kernel::b::c", "prog::d"].map(String::from);
        let found: Vec<_> = by_binary(&tests).into_iter().collect();
        assert_eq!(found, [("kernel", vec!["b::c"]), ("prog", vec!["a", "d"])]);
    }
}
