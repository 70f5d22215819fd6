// SPDX-License-Identifier: Apache-2.0
//! The licences of our dependencies: each offers at least one that is acceptable to our users.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::metadata::{cargo_metadata, list};

/// Permissive, or copyleft per file without conditions on ours. `deny.toml` has the same list for cargo-deny.
pub(crate) const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

/// Dependencies whose licence is not on the list, for the platform we ship.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let manifest = root.join("Cargo.toml");
    let platform = ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path"];
    let metadata = cargo_metadata(&[&platform[..], &[&*manifest.to_string_lossy()]].concat())?;
    Ok(list(&metadata, "packages").filter_map(fault).collect())
}

fn fault(package: &Value) -> Option<String> {
    // Packages without a source are ours; their licences are checked file by file.
    package.get("source")?.as_str()?;
    let text = |member| package.get(member).and_then(Value::as_str);
    let (name, version) = (text("name").unwrap_or("?"), text("version").unwrap_or("?"));
    match text("license") {
        Some(expression) if allowed(expression) => None,
        Some(expression) => Some(format!("{name} {version}: `{expression}` offers no licence on our list")),
        None => Some(format!("{name} {version}: names no licence")),
    }
}

/// Whether an SPDX expression can be satisfied by allowed licences. `AND` binds before `OR`; `/` is the old `OR`.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    match split_outside(&expression, " OR ") {
        parts if parts.len() > 1 => return parts.iter().any(|part| allowed(part)),
        _ => {}
    }
    match split_outside(&expression, " AND ") {
        parts if parts.len() > 1 => return parts.iter().all(|part| allowed(part)),
        _ => {}
    }
    let term = expression.trim();
    match term.strip_prefix('(').and_then(|term| term.strip_suffix(')')) {
        Some(inner) => allowed(inner),
        // `+` means "or later".
        None => ALLOWED.contains(&term.trim_end_matches('+')),
    }
}

/// Splits at an operator outside parentheses.
fn split_outside<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, character) in expression.char_indices() {
        depth += i32::from(character == '(') - i32::from(character == ')');
        let here = expression.get(at..).is_some_and(|rest| rest.starts_with(operator));
        if depth == 0 && here {
            parts.extend(expression.get(start..at));
            start = at + operator.len();
        }
    }
    parts.extend(expression.get(start..));
    parts
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::{ALLOWED, allowed, fault};

    #[test]
    fn an_expression_is_fine_when_one_choice_of_it_is() {
        for expression in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "ISC AND (Apache-2.0 OR ISC)",
            "MPL-2.0+",
        ] {
            assert!(allowed(expression), "{expression}");
        }
        for expression in ["GPL-3.0-only", "MIT AND GPL-2.0-only", "(MIT OR Zlib) AND AGPL-3.0-only", "", "SSPL-1.0"] {
            assert!(!allowed(expression), "{expression}");
        }
    }

    #[test]
    fn a_library_without_an_allowed_licence_is_named_and_our_own_crates_are_not_asked() {
        let library = json!({"name": "x", "version": "1.0.0", "license": "AGPL-3.0-only", "source": "registry"});
        assert_eq!(fault(&library).unwrap(), "x 1.0.0: `AGPL-3.0-only` offers no licence on our list");
        let unknown = json!({"name": "y", "version": "2.0.0", "license": null, "source": "registry"});
        assert_eq!(fault(&unknown).unwrap(), "y 2.0.0: names no licence");
        let ours = json!({"name": "abi", "version": "0.1.0", "license": "GPL-2.0-only", "source": null});
        assert_eq!(fault(&ours), None);
    }

    #[test]
    fn deny_toml_allows_the_same_licences() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml");
        let text = fs::read_to_string(path).unwrap();
        let list = text.split_once("allow = [").unwrap().1.split_once(']').unwrap().0;
        let named: Vec<&str> = list.split(',').map(|item| item.trim().trim_matches('"')).collect();
        assert_eq!(named.into_iter().filter(|item| !item.is_empty()).collect::<Vec<_>>(), ALLOWED);
    }
}
