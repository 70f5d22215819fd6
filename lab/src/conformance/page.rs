// SPDX-License-Identifier: Apache-2.0
//! The page about a run: what passed, what failed and why, what is not applicable and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::{Outcome, Spec};
use super::{Inapplicable, Options};

/// The page, in Markdown. `specs` passed or failed.
pub(super) fn page(specs: &[Spec], inapplicable: &[Inapplicable], options: &Options) -> String {
    let (passed, failed): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| spec.outcome() == Outcome::Passed);
    let mut text = format!(
        "# Conformance\n\nWhat Kubernetes' own end-to-end tests find, run in the lab by `make conformance`. This page is generated.\n\n\
         | chosen by | left out | passed | failed | not applicable |\n| --- | --- | --- | --- | --- |\n| `{}` | `{}` | {} | {} | {} |\n",
        options.focus.replace('|', "\\|"),
        options.skip.replace('|', "\\|"),
        passed.len(),
        failed.len(),
        inapplicable.len(),
    );
    if !failed.is_empty() {
        text.push_str("\n## Failed\n\n");
    }
    for spec in failed {
        let _ = writeln!(text, "- {}: {}", spec.name(), spec.message());
    }
    text.push_str("\n## Passed\n\n");
    for spec in passed {
        let _ = writeln!(text, "- {}", spec.name());
    }
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (spec, why) in inapplicable {
        reasons.entry(why).or_default().push(spec.name());
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
        let (declined, specs): (Vec<_>, Vec<_>) =
            specs.into_iter().partition(|spec| spec.outcome() == Outcome::Declined);
        let declined: Vec<Inapplicable> =
            declined.into_iter().map(|spec| (spec.clone(), spec.message().to_owned())).collect();
        let options = Options { focus: "x|y".into(), skip: "z".into(), procs: 1, report: None };
        let text = page(&specs, &declined, &options);
        assert!(text.contains("| `x\\|y` | `z` | 1 | 1 | 1 |"), "{text}");
        assert!(text.contains("- [sig-network] DNS b: timed out\n"), "{text}");
        assert!(text.contains("## Passed\n\n- [sig-network] DNS a\n"), "{text}");
        assert!(text.ends_with("## Not applicable\n\nBecause only for gce:\n\n- [sig-network] DNS d\n"), "{text}");
    }
}
