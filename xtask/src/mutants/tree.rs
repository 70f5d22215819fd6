// SPDX-License-Identifier: Apache-2.0
//! A copy of the source tree to mutate: the checkout itself is never changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::run::{Outcome, Programs};
use super::table::Mutant;

/// The copy, below `target/mutants/bpf`.
pub(super) struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// Copies what git tracks or would add. Unchanged files keep their times, so that they are not rebuilt.
    pub(super) fn copy(root: &Path) -> Result<Self> {
        let tree = Self { folder: root.join("target/mutants/bpf") };
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("run git ls-files")?;
        ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let (from, to) = (root.join(name), tree.sources().join(name));
            if from.is_file() {
                update(&to, &fs::read(&from).with_context(|| format!("read {}", from.display()))?)?;
            }
        }
        Ok(tree)
    }

    /// Where the sources are.
    pub(super) fn sources(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Where they are built.
    pub(super) fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// The last output of compiler and tests.
    pub(super) fn log(&self) -> String {
        self.folder.join("log").display().to_string()
    }

    /// Builds the programs with the mutation and runs the tests against them.
    pub(super) fn with(&self, mutant: &Mutant, meet: impl FnOnce(&Programs) -> Result<Outcome>) -> Result<Outcome> {
        let path = self.sources().join("bpf/src").join(&mutant.file);
        let source = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        update(&path, mutant.apply(&source)?.as_bytes())?;
        let outcome = match Programs::build(self, &mutant.tests) {
            Ok(Some(programs)) => meet(&programs),
            Ok(None) => Ok(Outcome::BuildFails),
            Err(error) => Err(error),
        };
        update(&path, source.as_bytes())?;
        outcome
    }
}

fn update(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
