// SPDX-License-Identifier: Apache-2.0
//! Golden files, for the tests of features. A file of `tests/golden` is a story in sections, `== COMMAND` with what belongs to it
//! below: some put objects in, the others show what came of them. `UPDATE_GOLDEN=1` writes what is seen into the
//! files; the difference is to be reviewed as the specification.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// All stories of a crate (its `CARGO_MANIFEST_DIR`), in the order of their names.
pub(crate) fn stories(crate_folder: &str) -> Vec<(PathBuf, String)> {
    let folder = std::fs::read_dir(Path::new(crate_folder).join("tests/golden")).unwrap();
    let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The story as it goes: each command gets what stands below it, and gives what it shows, or nothing.
pub(crate) async fn play(story: &str, mut command: impl AsyncFnMut(&str, &str) -> Option<String>) -> String {
    let (mut seen, rest) = match story.split_once("== ") {
        Some((intro, rest)) => (intro.to_owned(), rest),
        None => panic!("no command"),
    };
    for section in rest.split("\n== ") {
        let (name, body) = section.split_once('\n').unwrap_or((section, ""));
        let shown = command(name, body).await;
        let body = shown.as_deref().unwrap_or(body).trim_end();
        let body = if body.is_empty() { String::new() } else { format!("{body}\n") };
        write!(seen, "== {name}\n{body}\n").unwrap();
    }
    seen.trim_end().to_owned() + "\n"
}

/// Fails unless the story went as it is written, or writes it anew.
pub(crate) fn compare(path: &Path, story: &str, seen: &str, how: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, seen).unwrap();
    } else {
        assert!(seen == story, "{} {how} went otherwise:\n{seen}", path.display());
    }
}
