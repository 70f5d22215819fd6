// SPDX-License-Identifier: Apache-2.0
//! The table of mutations: `bpf/mutants/NAME.diff` mutates `bpf/src/NAME.rs`.
//!
//! ```text
//! tests: prog::model prog::state          the nearest tests, by binary and module
//!
//! A renewed record forgets who opened it.
//! - the lines as they are
//! + the lines as they become
//!
//! Another one.
//! tests: prog::wire                       nearer ones for this mutant
//! = Why it changes nothing that anybody could notice: it is not run.
//!   a line that stays
//! - a line that goes
//! ```

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A change of some lines.
#[derive(Debug, Default, Clone)]
pub(super) struct Mutant {
    /// What the programs then do wrong.
    pub(super) name: String,
    /// The file it changes, below `bpf/src`.
    pub(super) file: PathBuf,
    /// `BINARY::WORDS` of the tests that should notice.
    pub(super) tests: Vec<String>,
    /// Why it cannot be noticed.
    pub(super) equivalent: Option<String>,
    old: Vec<String>,
    new: Vec<String>,
}

impl Display for Mutant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.name)
    }
}

impl Mutant {
    pub(super) fn is_called(&self, words: &[&str]) -> bool {
        let title = self.to_string();
        words.is_empty() || words.iter().any(|word| title.contains(word))
    }

    /// The source with the change. Indentation is ignored.
    pub(super) fn apply(&self, source: &str) -> Result<String> {
        let lines: Vec<&str> = source.lines().collect();
        let is_here =
            |window: &[&str]| window.iter().map(|line| line.trim()).eq(self.old.iter().map(|line| line.trim()));
        let places: Vec<usize> = lines
            .windows(self.old.len())
            .enumerate()
            .filter_map(|(at, window)| is_here(window).then_some(at))
            .collect();
        let [at] = places.as_slice() else { bail!("{self}: its lines are there {} times, not once", places.len()) };
        let (before, rest) = lines.split_at(*at);
        let after = rest.iter().skip(self.old.len()).copied();
        let changed = before.iter().copied().chain(self.new.iter().map(String::as_str)).chain(after);
        Ok(changed.flat_map(|line| [line, "\n"]).collect())
    }

    fn take(&mut self, line: &str) -> bool {
        let (sign, rest) = line.split_at_checked(1).unwrap_or((line, ""));
        match sign {
            "-" => self.old.push(rest.into()),
            "+" => self.new.push(rest.into()),
            " " => {
                self.old.push(rest.into());
                self.new.push(rest.into());
            }
            "=" => self.equivalent = Some(rest.trim().into()),
            _ => return false,
        }
        true
    }
}

/// All mutants, each checked to apply to its file.
pub(super) fn read(root: &Path) -> Result<Vec<Mutant>> {
    let folder = root.join("bpf/mutants");
    let mut tables = Vec::new();
    list(&folder, &mut tables)?;
    tables.sort();
    let mut mutants = Vec::new();
    for path in tables {
        let file = path.strip_prefix(&folder)?.with_extension("rs");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let source = fs::read_to_string(root.join("bpf/src").join(&file))
            .with_context(|| format!("{} is about a file that is not there", path.display()))?;
        for mutant in parse(&file, &text)? {
            mutant.apply(&source)?;
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

fn list(folder: &Path, tables: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, tables)?;
        } else if path.extension().is_some_and(|extension| extension == "diff") {
            tables.push(path);
        }
    }
    Ok(())
}

fn parse(file: &Path, text: &str) -> Result<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = Vec::new();
    let mut nearest = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(tests) = line.strip_prefix("tests:") {
            let tests: Vec<String> = tests.split_whitespace().map(String::from).collect();
            match mutants.last_mut() {
                Some(mutant) => mutant.tests = tests,
                None => nearest = tests,
            }
        } else if !mutants.last_mut().is_some_and(|mutant| mutant.take(line)) {
            mutants.push(Mutant {
                name: line.trim_end_matches('.').into(),
                file: file.into(),
                tests: nearest.clone(),
                ..Mutant::default()
            });
        }
    }
    for mutant in &mutants {
        ensure!(mutant.old != mutant.new && !mutant.old.is_empty(), "{mutant}: it changes no line");
        ensure!(mutant.tests.iter().all(|test| test.contains("::")), "{mutant}: tests are named BINARY::WORDS");
        ensure!(!mutant.tests.is_empty(), "{mutant}: no tests are named");
    }
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Mutant, parse, read};

    const TABLE: &str = "# A comment.\ntests: prog::a prog::b\n\nTwo is three.\n-    two\n+    three\n\nOne goes.\ntests: kernel::c\n= Nobody counts.\n- one\n  two\n";

    #[test]
    fn the_table_is_of_the_programs_as_they_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(!read(&root).unwrap().is_empty());
    }

    fn table(text: &str) -> Result<Vec<Mutant>, String> {
        parse(Path::new("stages/x.rs"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_names_its_mutants_with_their_tests() {
        let mutants = table(TABLE).unwrap();
        assert_eq!(
            mutants.iter().map(Mutant::to_string).collect::<Vec<_>>(),
            ["stages/x.rs: Two is three", "stages/x.rs: One goes"]
        );
        assert_eq!(
            (&mutants[0].tests[..], &mutants[1].tests[..]),
            (&["prog::a".to_string(), "prog::b".to_string()][..], &["kernel::c".to_string()][..])
        );
        assert_eq!(mutants[1].equivalent.as_deref(), Some("Nobody counts."));
        assert!(mutants[0].equivalent.is_none());
    }

    #[test]
    fn a_mutant_changes_its_lines_and_no_others() {
        let mutants = table(TABLE).unwrap();
        assert_eq!(mutants[0].apply("one\n  two\nfour\n").unwrap(), "one\n    three\nfour\n");
        assert_eq!(mutants[1].apply("one\n  two\nfour\n").unwrap(), " two\nfour\n");
    }

    #[test]
    fn lines_that_are_not_there_once_are_an_error_that_names_the_mutant() {
        let mutants = table(TABLE).unwrap();
        for (source, times) in [("one\n", 0), ("two\ntwo\n", 2)] {
            let error = mutants[0].apply(source).unwrap_err().to_string();
            assert_eq!(error, format!("stages/x.rs: Two is three: its lines are there {times} times, not once"));
        }
    }

    #[test]
    fn a_mutant_that_changes_nothing_or_names_no_test_is_refused() {
        assert_eq!(table("tests: prog::a\nNothing.\n").unwrap_err(), "stages/x.rs: Nothing: it changes no line");
        assert_eq!(table("Nobody looks.\n- one\n").unwrap_err(), "stages/x.rs: Nobody looks: no tests are named");
        let error = table("tests: a\nWhere.\n- one\n").unwrap_err();
        assert_eq!(error, "stages/x.rs: Where: tests are named BINARY::WORDS");
    }

    #[test]
    fn words_choose_by_file_and_name() {
        let mutants = table(TABLE).unwrap();
        let chosen = |words: &[&str]| mutants.iter().filter(|mutant| mutant.is_called(words)).count();
        assert_eq!([chosen(&[]), chosen(&["goes"]), chosen(&["stages/x", "goes"]), chosen(&["four"])], [2, 1, 2, 0]);
    }
}
