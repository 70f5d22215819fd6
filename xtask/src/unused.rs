// SPDX-License-Identifier: Apache-2.0
//! Unused dependencies: those of a member whose sources never mention the library, and those of the workspace that no
//! member has. Being mentioned in a comment counts as use.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::metadata::{cargo_metadata, list};

/// Libraries used only by sources outside the member's folder: generated ones, and test helpers of another member.
const ELSEWHERE: &[(&str, &str)] = &[
    ("hubble", "tonic-prost"),
    ("certgen", "ports"),
    ("certgen", "tempfile"),
    ("operator", "rcgen"),
    ("cli", "parking_lot"),
    ("cli", "tokio-util"),
];

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let manifest = root.join("Cargo.toml");
    let metadata = cargo_metadata(&["--no-deps", "--offline", "--manifest-path", &manifest.to_string_lossy()])?;
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for package in list(&metadata, "packages") {
        faults.extend(of_package(package)?);
        used.extend(list(package, "dependencies").filter_map(|dependency| text(dependency, "name")));
    }
    let text = fs::read_to_string(&manifest).context("read Cargo.toml")?;
    let idle = of_workspace(&text).filter(|name| !used.contains(name));
    faults.extend(idle.map(|name| format!("Cargo.toml: no member depends on {name}")));
    Ok(faults)
}

fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value.get(member)?.as_str()
}

fn of_package(package: &Value) -> Result<Vec<String>> {
    let name = text(package, "name").context("a package without a name")?;
    let manifest = text(package, "manifest_path").context("a package without a manifest")?;
    let folder = Path::new(manifest).parent().context("a manifest without a folder")?;
    let mut faults = Vec::new();
    for dependency in list(package, "dependencies") {
        let Some(library) = text(dependency, "name") else { continue };
        let places: &[&str] = match text(dependency, "kind") {
            Some("build") => &["build.rs"],
            Some(_) => &["src", "tests", "benches", "examples"],
            None => &["src"],
        };
        let word = text(dependency, "rename").unwrap_or(library).replace('-', "_");
        if !ELSEWHERE.contains(&(name, library)) && !named(&word, places.iter().map(|place| folder.join(place)))? {
            faults.push(format!("{name} depends on {library}, which nothing in {} names", places.join(", ")));
        }
    }
    Ok(faults)
}

/// Whether a Rust source below one of these paths contains this word.
fn named<P: AsRef<Path>>(word: &str, paths: impl IntoIterator<Item = P>) -> Result<bool> {
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            let below: Vec<_> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            if named(word, below)? {
                return Ok(true);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && path.exists() {
            let source = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            if has_word(&source, word) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn has_word(source: &str, word: &str) -> bool {
    source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// The names in the section `[workspace.dependencies]`.
fn of_workspace(manifest: &str) -> impl Iterator<Item = &str> {
    let section = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let names = section.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
    names.map(|(name, _)| name.trim()).filter(|name| !name.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_library_is_used_where_a_source_names_it_as_a_word() {
        assert!(has_word("use serde_json::Value;", "serde_json"));
        assert!(!has_word("use serde_json::Value;", "serde"));
    }

    #[test]
    fn dependencies_that_no_source_names_are_told_with_where_they_were_looked_for() {
        let dependency = |name: &str, kind: Value| json!({"name": name, "kind": kind});
        let package = json!({
            "name": "xtask",
            "manifest_path": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "dependencies": [
                dependency("anyhow", Value::Null),
                // In two parts, or this line would mention it.
                dependency(concat!("not-", "here"), Value::Null),
                dependency(concat!("nor-", "there"), "dev".into()),
            ],
        });
        let faults = of_package(&package).unwrap();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults.iter().any(|fault| fault.ends_with("nothing in src names")), "{faults:?}");
    }

    #[test]
    fn the_workspaces_dependencies_end_with_their_section() {
        let text =
            "[a]\nx = 1\n[workspace.dependencies]\n# y = 1\nabi = { path = \"a\" }\nclap = \"4\"\n\n[b]\nz = 1\n";
        assert_eq!(of_workspace(text).collect::<Vec<_>>(), ["abi", "clap"]);
    }
}
