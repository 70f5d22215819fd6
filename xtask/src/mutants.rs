// SPDX-License-Identifier: Apache-2.0
//! Changes the kernel programs by hand-written mutations, one at a time and in a copy of the tree, and tells which of them no test notices.
//!
//! Each is built and meets the tests that are nearest to it first; all others only run when none of these has failed.

mod run;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

use run::{Outcome, Programs};
use table::Mutant;

/// How far to go with a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Until all tests have run.
    All,
    /// Until those have run that its table names.
    Related,
}

/// Mutants that survive, do not build or do not load. `words` choose those whose file or name has one of them.
pub(crate) fn run(root: &Path, reach: Reach, words: &[&str]) -> Result<Vec<String>> {
    let table = table::read(root)?;
    let chosen: Vec<&Mutant> = table.iter().filter(|mutant| mutant.is_called(words)).collect();
    if chosen.is_empty() {
        bail!("no mutant's file or name has one of the words: {}", words.join(" "));
    }
    let (equivalent, chosen): (Vec<&Mutant>, Vec<&Mutant>) =
        chosen.into_iter().partition(|mutant| mutant.equivalent.is_some());
    let tree = tree::Tree::copy(root)?;
    unchanged(&tree, &chosen)?;
    let mut faults = Vec::new();
    for mutant in &chosen {
        let outcome = tree.with(mutant, |programs| programs.meet(mutant, reach))?;
        println!("{outcome:<12} {mutant}");
        if !matches!(outcome, Outcome::Killed(_)) {
            faults.push(format!("{mutant}: {outcome}"));
        }
    }
    let killed = chosen.len() - faults.len();
    println!("{killed} of {} mutants are killed, {} more change nothing", chosen.len(), equivalent.len());
    Ok(faults)
}

/// A test that fails without any change notices nothing.
fn unchanged(tree: &tree::Tree, chosen: &[&Mutant]) -> Result<()> {
    let tests: BTreeSet<_> = chosen.iter().flat_map(|mutant| &mutant.tests).cloned().collect();
    let tests: Vec<_> = tests.into_iter().collect();
    let Some(programs) = Programs::build(tree, &tests)? else { bail!("they do not build as they are: {}", tree.log()) };
    match programs.first_failure(&tests)? {
        Outcome::Survives => Ok(()),
        outcome => bail!("without any change: {outcome}; see {}", tree.log()),
    }
}
