// SPDX-License-Identifier: Apache-2.0
//! Files of the kernel programs do not use each other in a circle: each can be read with those below it alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
};

use anyhow::{Context, Result};

use crate::files;
use names::Names;

mod names;
#[cfg(test)]
mod tests;

const PROGRAMS: &str = "bpf/src";

/// A module that has a file of its own, by its path from the root, which is empty.
type Module = Vec<String>;

/// What each file uses: other files, and the names that it uses of them.
type Uses = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

/// The circles among the files of the kernel programs.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let circles = circles(&uses(&sources(&root.join(PROGRAMS))?));
    Ok(circles.into_iter().map(|circle| format!("{PROGRAMS}: files use each other in a circle: {circle}")).collect())
}

fn sources(folder: &Path) -> Result<BTreeMap<Module, String>> {
    let mut found = Vec::new();
    if folder.exists() {
        files::sources(folder, &mut found)?;
    }
    let mut sources = BTreeMap::new();
    for path in found {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        sources.insert(module(path.strip_prefix(folder)?), text);
    }
    Ok(sources)
}

fn module(file: &Path) -> Module {
    let path: Module = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path == ["main"] { Module::new() } else { path }
}

fn file(module: &Module) -> String {
    if module.is_empty() { "main.rs".into() } else { module.join("/") + ".rs" }
}

fn uses(sources: &BTreeMap<Module, String>) -> Uses {
    let used_by = |(module, source): (&Module, &String)| {
        let mut used: BTreeMap<Module, BTreeSet<String>> = BTreeMap::new();
        for path in Names::of(source).absolute_paths(module) {
            let Some((other, name)) = split(&path, sources) else { continue };
            if other != module.as_slice() {
                used.entry(other.to_vec()).or_default().extend(name.cloned());
            }
        }
        (module.clone(), used)
    };
    sources.iter().map(used_by).collect()
}

/// The innermost module on the path, and the name in it that the path goes on with.
fn split<'a>(path: &'a [String], sources: &BTreeMap<Module, String>) -> Option<(&'a [String], Option<&'a String>)> {
    let splits = (0..=path.len()).rev().filter_map(|at| path.split_at_checked(at));
    let mut modules = splits.filter(|(module, _)| sources.contains_key(*module));
    modules.next().map(|(module, rest)| (module, rest.first()))
}

/// One circle, as short as can be, of every set of files that use each other.
fn circles(uses: &Uses) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for start in uses.keys() {
        let Some(circle) = shortest(start, uses) else { continue };
        if circle.iter().all(|module| !told.contains(module)) {
            circles.push(draw(&circle, uses));
        }
        told.extend(circle);
    }
    circles
}

/// The shortest way from a file back to itself, which is its first and last.
fn shortest<'a>(start: &'a Module, uses: &'a Uses) -> Option<Vec<&'a Module>> {
    let mut used_by: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for used in uses.get(module).into_iter().flat_map(BTreeMap::keys) {
            if used == start {
                let mut way = vec![start, module];
                while let Some(user) = way.last().and_then(|last| used_by.get(last)) {
                    way.push(user);
                }
                way.reverse();
                return Some(way);
            }
            if !used_by.contains_key(used) {
                used_by.insert(used, module);
                queue.push_back(used);
            }
        }
    }
    None
}

fn draw(circle: &[&Module], uses: &Uses) -> String {
    let mut text = circle.first().map_or_else(String::new, |first| file(first));
    for (user, used) in circle.iter().zip(circle.iter().skip(1)) {
        let names = uses.get(*user).and_then(|used_by| used_by.get(*used)).into_iter().flatten();
        let names: Vec<&str> = names.map(String::as_str).collect();
        text += &format!(" -> {} ({})", file(used), names.join(", "));
    }
    text
}
