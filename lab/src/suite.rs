// SPDX-License-Identifier: Apache-2.0
//! For tests: cases that share one cluster with the product on it. The cluster is up once for all cases of a file and down at the end; each case is told apart in
//! the output and can be run alone: `cargo test --package lab --test connectivity -- pings`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, anyhow};

use crate::probe::Cluster;
use crate::{clock, product, run};

/// A sentence that users can rely on, and its test.
pub type Case = (&'static str, fn(&Cluster) -> Result<()>);

/// Cases and the cluster they share.
#[derive(Debug)]
pub struct Suite {
    /// Also the lab's name.
    pub name: &'static str,
    /// The command of the lab: `env!("CARGO_BIN_EXE_cilium-lab")`.
    pub command: &'static str,
    /// Options of `lab up`.
    pub options: &'static [&'static str],
    /// Chart values in addition to the usual ones.
    pub values: &'static [&'static str],
    /// A manifest of the repository used by all cases; its pods are Ready before the first one.
    pub manifest: Option<&'static str>,
    /// In this order.
    pub cases: &'static [Case],
}

/// Runs suites one after the other, each on its own cluster, as [`Suite::main`] runs one.
#[must_use]
pub fn main(suites: &[Suite]) -> ExitCode {
    let failed = suites.iter().filter(|suite| !suite.passes()).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Suite {
    /// Runs the cases whose names contain one of the program's arguments, or all. `CILIUM_LAB_KEEP=NAME` uses that lab, if it is up with the
    /// product on it, and leaves it up.
    pub fn main(&self) -> ExitCode {
        main(std::slice::from_ref(self))
    }

    /// Whether all is as it should be.
    fn passes(&self) -> bool {
        let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
        if std::env::args().any(|word| word == "--list") {
            self.cases.iter().for_each(|(name, _)| println!("{name}: test"));
            return true;
        }
        let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
        let cases: Vec<&Case> = self.cases.iter().filter(|(name, _)| chosen(name)).collect();
        println!("\nrunning {} tests", cases.len());
        let begin = clock::now();
        let failed = if cases.is_empty() { Ok(0) } else { self.run(&cases) };
        let failed = failed.unwrap_or_else(|error| {
            println!("{}: no cluster: {error:#}", self.name);
            cases.len()
        });
        // In the words of the standard harness, for programs that count tests.
        println!(
            "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
            if failed == 0 { "ok" } else { "FAILED" },
            cases.len() - failed,
            self.cases.len() - cases.len(),
            begin.elapsed().as_secs_f32()
        );
        failed == 0
    }

    fn run(&self, cases: &[&Case]) -> Result<usize> {
        let keep = std::env::var("CILIUM_LAB_KEEP").ok();
        let begin = clock::now();
        let cluster = match keep.as_ref().and_then(|name| Cluster::open(name, self.command).ok()) {
            Some(cluster) => self.deploy(&cluster).map(|()| cluster)?,
            None => self.up().inspect_err(|_| drop(self.lab(&["down"])))?,
        };
        println!("{}: cluster ready after {:.1} s", self.name, begin.elapsed().as_secs_f32());
        let mut failed = 0;
        for (name, body) in cases {
            let since = clock::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| cluster.test(&format!("{}-{name}", self.name), body)));
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("panicked, as said above")));
            let seconds = since.elapsed().as_secs_f32();
            match outcome {
                Ok(()) => println!("test {name} ... ok ({seconds:.1} s)"),
                Err(error) => {
                    failed += 1;
                    println!("test {name} ... FAILED ({seconds:.1} s)\n    {error:#}");
                }
            }
        }
        if keep.is_none() {
            self.lab(&["down"])?;
        }
        Ok(failed)
    }

    fn up(&self) -> Result<Cluster> {
        self.lab(&[&["up"], self.options].concat())?;
        let cluster = Cluster::open(self.name, self.command)?;
        cluster.test(&format!("{}-install", self.name), |cluster| {
            product::install(cluster, self.values).context("installing the chart")?;
            self.deploy(cluster)
        })?;
        Ok(cluster)
    }

    fn deploy(&self, cluster: &Cluster) -> Result<()> {
        let Some(manifest) = self.manifest else { return Ok(()) };
        cluster.apply_file(&product::repository(manifest))?;
        cluster.kubectl(&["wait", "--all-namespaces", "pod", "--all", "--for=condition=Ready", "--timeout=90s"])?;
        Ok(())
    }

    fn lab(&self, words: &[&str]) -> Result<String> {
        run::output(Command::new(self.command).args(["--name", self.name]).args(words))
    }
}
