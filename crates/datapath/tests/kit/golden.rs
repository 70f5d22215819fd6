// SPDX-License-Identifier: Apache-2.0
//! Golden files, for the tests of features. A file in `tests/golden` is a story in sections, `== COMMAND` followed by a body: some
//! put objects in, others show the result. `UPDATE_GOLDEN=1` rewrites the files; review the difference as you would a
//! specification.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// All stories of a crate (its `CARGO_MANIFEST_DIR`), by name.
pub(crate) fn stories(crate_folder: &str) -> Vec<(PathBuf, String)> {
    let folder = std::fs::read_dir(Path::new(crate_folder).join("tests/golden")).unwrap();
    let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Plays a story and returns it as it went: each command gets the body below it, and returns what replaces it, if anything.
pub(crate) async fn play(story: &str, mut command: impl AsyncFnMut(&str, &str) -> Option<String>) -> String {
    let (intro, rest) = story.split_once("== ").unwrap();
    let mut seen = intro.to_owned();
    for section in rest.split("\n== ") {
        let (name, body) = section.split_once('\n').unwrap_or((section, ""));
        let shown = command(name, body).await;
        let body = shown.as_deref().unwrap_or(body).trim_end();
        let body = if body.is_empty() { String::new() } else { format!("{body}\n") };
        write!(seen, "== {name}\n{body}\n").unwrap();
    }
    seen.trim_end().to_owned() + "\n"
}

/// Fails unless the story went as written, or rewrites it.
pub(crate) fn compare(path: &Path, story: &str, seen: &str, how: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, seen).unwrap();
    } else {
        assert!(seen == story, "{} {how} went otherwise:\n{seen}", path.display());
    }
}
