// SPDX-License-Identifier: Apache-2.0
//! Checks every source file: it begins with the licence of its folder, and is short enough to be read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The most lines a file may have. The aim is 400.
const LONGEST: usize = 600;

/// Folders whose code runs in the kernel, or is shared with it, and is therefore under two licences.
const DUAL: [&str; 2] = ["bpf", "crates/abi"];

/// Files that do not begin with the licence of their folder.
pub(crate) fn licences(root: &Path) -> Result<Vec<String>> {
    faults(root, |path, text| {
        let expected = licence_line(path);
        (text.lines().next() != Some(expected.as_str())).then(|| format!("the first line must be `{expected}`"))
    })
}

/// Files that are too long.
pub(crate) fn size(root: &Path) -> Result<Vec<String>> {
    faults(root, |_, text| {
        let lines = text.lines().count();
        (lines > LONGEST).then(|| format!("{lines} lines, the limit is {LONGEST}: split it by concept"))
    })
}

/// Applies a rule to every Rust file; paths are relative to the root.
fn faults(root: &Path, rule: impl Fn(&Path, &str) -> Option<String>) -> Result<Vec<String>> {
    let mut files = Vec::new();
    sources(root, &mut files)?;
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let path = file.strip_prefix(root)?;
        faults.extend(rule(path, &text).map(|fault| format!("{}: {fault}", path.display())));
    }
    Ok(faults)
}

/// Adds every Rust file in the folder.
pub(crate) fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if kind.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, files)?;
        } else if kind.is_file() && name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn licence_line(path: &Path) -> String {
    let dual = DUAL.iter().any(|folder| path.starts_with(folder));
    let expression = if dual { "(GPL-2.0-only OR BSD-2-Clause)" } else { "Apache-2.0" };
    format!("// SPDX-License-Identifier: {expression}")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{LONGEST, licence_line, licences, size};

    /// A tree with one file of each kind, below this crate's build folder.
    fn tree(name: &str, files: &[(&str, String)]) -> std::path::PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/xtask-tests").join(name);
        let _ = fs::remove_dir_all(&root);
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn kernel_code_is_under_two_licences_and_all_else_under_one() {
        assert!(licence_line(Path::new("bpf/src/main.rs")).contains("GPL-2.0-only OR BSD-2-Clause"));
        assert!(licence_line(Path::new("crates/abi/src/lib.rs")).contains("GPL-2.0-only OR BSD-2-Clause"));
        assert!(licence_line(Path::new("crates/agent/src/lib.rs")).ends_with("Apache-2.0"));
    }

    #[test]
    fn a_file_without_its_licence_is_named() {
        let good = "// SPDX-License-Identifier: Apache-2.0\n".to_string();
        let root = tree(
            "licences",
            &[
                ("crates/a/src/good.rs", good.clone()),
                ("crates/a/src/bare.rs", "//! Nothing.\n".into()),
                ("bpf/src/wrong.rs", good),
                ("target/debug/out.rs", "generated".into()),
                (".cache/out.rs", "generated".into()),
            ],
        );
        let faults = licences(&root).unwrap();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("bpf/src/wrong.rs: ") && faults[1].starts_with("crates/a/src/bare.rs: "));
    }

    #[test]
    fn a_file_that_is_too_long_is_named_with_its_length() {
        let root = tree("size", &[("a.rs", "x\n".repeat(LONGEST)), ("b.rs", "x\n".repeat(LONGEST + 1))]);
        assert_eq!(size(&root).unwrap(), ["b.rs: 601 lines, the limit is 600: split it by concept"]);
    }
}
