// SPDX-License-Identifier: Apache-2.0
//! The layering rule: a crate depends on lower layers only, and some libraries are reserved for one crate.
//!
//! The rule is data ([`LAYERS`], [`FENCES`]); the manifests are compared with it, and the diagram in
//! `ARCHITECTURE.md` is printed from both, so that the document cannot drift. Below the crates, the files of the kernel programs are in no circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::metadata::{cargo_metadata, list};

mod circles;
#[cfg(test)]
mod tests;

/// From bottom to top; a crate may depend on lower layers.
const LAYERS: [(&str, &[&str]); 7] = [
    ("L0", &["abi", "l7", "rest", "statedb"]),
    ("L1", &["model"]),
    ("L2", &["k8s", "datapath", "surface"]),
    ("L3", &["ipcache"]),
    (
        "L4",
        &[
            "endpoint",
            "health",
            "ipam",
            "l2",
            "lbipam",
            "node",
            "policy",
            "services",
            "gateway",
            "proxy",
            "bgp",
            "clustermesh",
            "hubble",
        ],
    ),
    ("L5", &["agent", "operator", "certgen", "relay", "ui", "cli"]),
    ("L6", &["cilium"]),
];

/// Members outside the layers, and what they may use; only the reference of the binary's commands uses the lab, and nobody uses the others.
const OUTSIDE: [(&str, &[&str]); 5] = [
    ("lab", &[]),
    (
        "bench",
        &["abi", "datapath", "frames", "hubble", "l7", "model", "proxy", "relay", "services", "statedb", "surface"],
    ),
    ("frames", &[]),
    ("ports", &[]),
    ("xtask", &[]),
];

/// Members that the tests of all others may use.
const FOR_TESTS: [&str; 2] = ["frames", "ports"];

const BINARIES: &[&str] = &["agent", "operator", "certgen", "relay", "ui", "cli", "cilium", "bench", "lab", "xtask"];

/// Libraries that only some crates may depend on; a name ending in `*` is a prefix.
const FENCES: [(&str, &[&str]); 7] = [
    ("kube*", &["k8s"]),
    ("k8s-openapi*", &["k8s"]),
    ("aya", &["abi", "datapath"]),
    ("aya-*", &["datapath"]),
    ("rtnetlink", &["datapath"]),
    ("netlink-*", &["datapath"]),
    ("anyhow", BINARIES),
];

const DOCUMENT: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- printed by `xtask layers --write`, compared by `make check` -->\n```text\n";
const END: &str = "```\n<!-- end of what is printed -->";

/// The direct dependencies of each workspace member.
type Manifests = BTreeMap<String, BTreeSet<String>>;

/// Violations of the rule, including an outdated diagram.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let manifests = read_manifests(root)?;
    let diagram = diagram(&manifests);
    print!("{diagram}");
    let mut faults = breaches(&manifests);
    faults.extend(kernel_side(root)?);
    faults.extend(circles::check(root)?);
    let document = fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    if !document.contains(&diagram) {
        faults.push(format!("{DOCUMENT} does not hold the diagram above: run `make docs`"));
    }
    Ok(faults)
}

/// Writes the diagram into the document.
pub(crate) fn write(root: &Path) -> Result<Vec<String>> {
    let path = root.join(DOCUMENT);
    let document = fs::read_to_string(&path).with_context(|| format!("read {DOCUMENT}"))?;
    let with_diagram = replace_diagram(&document, &diagram(&read_manifests(root)?))?;
    if with_diagram != document {
        fs::write(&path, with_diagram).with_context(|| format!("write {DOCUMENT}"))?;
    }
    Ok(Vec::new())
}

fn read_manifests(root: &Path) -> Result<Manifests> {
    let metadata = metadata(&root.join("Cargo.toml"))?;
    let mut manifests = Manifests::new();
    for package in list(&metadata, "packages") {
        let name = package.get("name").and_then(Value::as_str).context("cargo metadata: a package without a name")?;
        manifests.insert(name.to_string(), dependency_names(package).map(str::to_string).collect());
    }
    Ok(manifests)
}

fn metadata(manifest: &Path) -> Result<Value> {
    cargo_metadata(&["--no-deps", "--offline", "--manifest-path", &manifest.to_string_lossy()])
}

fn dependency_names(package: &Value) -> impl Iterator<Item = &str> {
    list(package, "dependencies").filter(|dependency| !is_for_tests(dependency)).filter_map(name_of)
}

fn is_for_tests(dependency: &Value) -> bool {
    let is_dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
    is_dev && name_of(dependency).is_some_and(|name| FOR_TESTS.contains(&name))
}

fn name_of(dependency: &Value) -> Option<&str> {
    dependency.get("name")?.as_str()
}

/// The kernel side may use the contract and its own toolkit only.
fn kernel_side(root: &Path) -> Result<Vec<String>> {
    let manifest = root.join("bpf/Cargo.toml");
    if !manifest.exists() {
        return Ok(Vec::new());
    }
    let metadata = metadata(&manifest)?;
    let names = list(&metadata, "packages").flat_map(dependency_names);
    let foreign = names.filter(|name| !["abi", "aya-ebpf"].contains(name));
    Ok(foreign.map(|name| format!("bpf depends on {name}; it may see only abi and aya-ebpf")).collect())
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, members)| members.contains(&name))
}

/// What a member outside the layers may use.
fn outside(name: &str) -> Option<&'static [&'static str]> {
    OUTSIDE.iter().find(|(outside, _)| *outside == name).map(|(_, allowed)| *allowed)
}

fn breaches(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, dependencies) in manifests {
        if layer(name).is_none() && outside(name).is_none() {
            faults.push(format!("{name} has no layer: give it one in xtask/src/layers.rs"));
        }
        for dependency in dependencies {
            let fault = if manifests.contains_key(dependency) {
                member_fault(name, dependency)
            } else {
                fence_fault(name, dependency)
            };
            faults.extend(fault);
        }
    }
    faults
}

/// What is wrong with one member depending on another, if anything.
fn member_fault(name: &str, dependency: &str) -> Option<String> {
    if let Some(allowed) = outside(name) {
        let fault = format!("{name} depends on {dependency}; it stands outside and may use [{}]", allowed.join(", "));
        return (!allowed.contains(&dependency)).then_some(fault);
    }
    if dependency == "lab" && name == "cilium" {
        return None;
    }
    let (Some(own), Some(other)) = (layer(name), layer(dependency)) else {
        return Some(format!("{name} depends on {dependency}, which stands outside the layers"));
    };
    let direction = match own.cmp(&other) {
        std::cmp::Ordering::Greater => return None,
        std::cmp::Ordering::Equal => "sideways",
        std::cmp::Ordering::Less => "upwards",
    };
    Some(format!("{name} (L{own}) depends {direction} on {dependency} (L{other})"))
}

/// What is wrong with a member depending on a library, if anything.
fn fence_fault(name: &str, dependency: &str) -> Option<String> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => dependency.starts_with(prefix),
        None => dependency == pattern,
    };
    let (_, allowed) = FENCES.iter().find(|(pattern, _)| matches(pattern))?;
    let inside = allowed.contains(&name);
    (!inside).then(|| format!("{name} depends on {dependency}, which only {} may", allowed.join(", ")))
}

/// The layers from top to bottom, with each member's actual dependencies.
fn diagram(manifests: &Manifests) -> String {
    let mut text = String::new();
    let members = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| manifests.contains_key(*name)).collect()
    };
    for (label, names) in LAYERS.iter().rev() {
        draw(&mut text, label, &members(names), manifests);
    }
    draw(&mut text, "--", &members(&OUTSIDE.map(|(name, _)| name)), manifests);
    text
}

fn draw(text: &mut String, label: &str, names: &[&str], manifests: &Manifests) {
    for (index, name) in names.iter().enumerate() {
        let used: BTreeSet<&String> =
            manifests.get(*name).into_iter().flatten().filter(|used| manifests.contains_key(*used)).collect();
        let mut used: Vec<&str> = used.into_iter().map(String::as_str).collect();
        used.sort_by_key(|used| (std::cmp::Reverse(layer(used)), *used));
        let label = if index == 0 { label } else { "" };
        let arrow = if used.is_empty() { "" } else { "─► " };
        let line = format!("{label:<3} {name:<10} {arrow}{}", used.join(" "));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn replace_diagram(document: &str, diagram: &str) -> Result<String> {
    let Some((before, rest)) = document.split_once(BEGIN) else {
        bail!("{DOCUMENT} lacks the line that opens the diagram: {}", BEGIN.lines().next().unwrap_or_default());
    };
    let Some((_, after)) = rest.split_once(END) else {
        bail!("{DOCUMENT} lacks the lines that close the diagram");
    };
    Ok(format!("{before}{BEGIN}{diagram}{END}{after}"))
}
