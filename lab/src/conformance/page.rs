// SPDX-License-Identifier: Apache-2.0
//! The page about a run: what passed, what failed, what is not applicable, and the reasons.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Options, Results};

/// The page, in Markdown.
pub(super) fn page(results: &Results, options: &Options, kernel: &str) -> String {
    let Results { passed, failed, inapplicable } = results;
    let mut text = format!(
        "# Conformance\n\nWhat Kubernetes' own end-to-end tests find, run in the lab by `make conformance`. This page is generated.\n\n\
         Commit {}, Linux {kernel}, {} specs at a time.\n\n\
         | chosen by | left out | passed | failed | not applicable |\n| --- | --- | --- | --- | --- |\n| `{}` | `{}` | {} | {} | {} |\n",
        options.commit,
        options.procs,
        options.focus.replace('|', "\\|"),
        options.skip.replace('|', "\\|"),
        passed.len(),
        failed.len(),
        inapplicable.len(),
    );
    if !failed.is_empty() {
        text.push_str("\n## Failed\n\n");
    }
    for (name, why) in failed {
        let _ = writeln!(text, "- {name}: {why}");
    }
    text.push_str("\n## Passed\n\n");
    for name in passed {
        let _ = writeln!(text, "- {name}");
    }
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, why) in inapplicable {
        reasons.entry(why).or_default().push(name);
    }
    if !reasons.is_empty() {
        text.push_str("\n## Not applicable\n");
    }
    for (why, names) in reasons {
        let _ = writeln!(text, "\nBecause {why}:\n");
        names.iter().for_each(|name| text.push_str(&format!("- {name}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::report;
    use crate::state;

    const REPORT: &str = r#"[{"SpecReports": [
        {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeText": "b", "LeafNodeType": "It", "State": "failed", "Failure": {"Message": "timed out\nstack"}},
        {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeText": "a", "LeafNodeType": "It", "State": "passed"},
        {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeText": "d", "LeafNodeType": "It", "State": "skipped", "Failure": {"Message": "only for gce"}},
        {"ContainerHierarchyTexts": null, "LeafNodeText": "c", "LeafNodeType": "It", "State": "skipped"},
        {"LeafNodeText": "", "LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"}]}]"#;

    #[test]
    fn the_page_names_what_failed_and_why_and_leaves_out_what_was_not_chosen() {
        let folder = std::env::temp_dir().join(format!("lab-conformance-{}", std::process::id()));
        let file = folder.join("report.json");
        state::write(&file, REPORT).unwrap();
        let specs = report::read(&file).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let options =
            Options { focus: "x|y".into(), skip: "z".into(), procs: 6, report: None, commit: "0123abc".into() };
        let text = page(&Results::new(&specs, &specs, &[]), &options, "6.1.0");
        assert!(text.contains("\nCommit 0123abc, Linux 6.1.0, 6 specs at a time.\n"), "{text}");
        assert!(text.contains("| `x\\|y` | `z` | 1 | 1 | 1 |"), "{text}");
        assert!(text.contains("- [sig-network] DNS b: timed out\n"), "{text}");
        assert!(text.contains("## Passed\n\n- [sig-network] DNS a\n"), "{text}");
        assert!(text.ends_with("## Not applicable\n\nBecause only for gce:\n\n- [sig-network] DNS d\n"), "{text}");
    }
}
