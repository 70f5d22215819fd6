// SPDX-License-Identifier: Apache-2.0
//! Applies hand-written mutations to the kernel programs, one at a time in a copy of the tree, and reports those that no test notices.
//!
//! Each is built and run against the most closely related tests first; the others run only if all of these pass.

mod run;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

use run::{Outcome, Programs};
use table::Mutant;

/// How far to test a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Until all tests have run.
    All,
    /// Until the tests named in its table have run.
    Related,
}

/// Mutants that survive, do not build or do not load. `words` selects those whose file or name contains one of them.
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

/// A test that fails without a mutation would prove nothing.
fn unchanged(tree: &tree::Tree, chosen: &[&Mutant]) -> Result<()> {
    let tests: BTreeSet<_> = chosen.iter().flat_map(|mutant| &mutant.tests).cloned().collect();
    let tests: Vec<_> = tests.into_iter().collect();
    let Some(programs) = Programs::build(tree, &tests)? else { bail!("they do not build as they are: {}", tree.log()) };
    match programs.first_failure(&tests)? {
        Outcome::Survives => Ok(()),
        outcome => bail!("without any change: {outcome}; see {}", tree.log()),
    }
}
