// SPDX-License-Identifier: Apache-2.0
//! Runs the tests of the workspace in groups, with cargo, and makes sure that none is left out: it is a fault if a suite does not run, or
//! runs fewer tests than `xtask/tests.txt` says, or if a test is ignored or filtered out. At the end it
//! prints how long each suite took. It never selects single tests: `cargo test` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use serde_json::Value;

use crate::metadata::{cargo, cargo_metadata, list};

#[cfg(test)]
mod cases;

/// The fewest tests each suite of a group must run.
const EXPECTED: &str = "xtask/tests.txt";

/// Integration tests that are quick and need nothing.
const QUICK: [&str; 4] = ["golden", "policy", "reference", "stories"];

/// The slowest lab suites, the slowest first. They start in this order, so that none is left alone at the end.
const LONG: [&str; 6] = ["services", "observability", "restart", "install", "attack", "host_network"];

/// Lab suites that run side by side, each on its own cluster: they spend much of their time waiting.
const LANES: usize = 2;

/// What can be run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// What `make check` runs.
    Quick,
    /// Everything else without a cluster.
    Rest,
    /// The lab's.
    Lab,
}

/// Tests of one suite: those of a library, of a program, of an integration test, or in documents. Integration tests of the same
/// name are one suite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Suite {
    passed: u32,
    left_out: u32,
    seconds: f64,
}

type Suites = BTreeMap<String, Suite>;

/// Runs a group; the faults are failed tests and what was left out.
pub(crate) fn run(root: &Path, group: &str) -> Result<Vec<String>> {
    let Ran { suites, passed, said } = run_group(root, Group::named(group)?)?;
    println!("{}", times(&suites));
    if !passed {
        // Last of all, because who reads a long log begins at its end.
        return Ok([said, vec!["a test failed, or was not built".to_owned()]].concat());
    }
    let expected = fs::read_to_string(root.join(EXPECTED)).with_context(|| format!("read {EXPECTED}"))?;
    Ok(left_out(&suites, &least(&expected, group)?, group))
}

/// Runs a group and records the numbers of tests as the new minimum.
pub(crate) fn write(root: &Path, group: &str) -> Result<Vec<String>> {
    let Ran { suites, passed, .. } = run_group(root, Group::named(group)?)?;
    if !passed {
        bail!("a test failed: nothing is written");
    }
    let path = root.join(EXPECTED);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let others = text.lines().filter(|line| !line.starts_with(&format!("{group} "))).map(str::to_owned);
    let own = suites.iter().filter(|(_, suite)| suite.passed > 0);
    let mut lines: Vec<String> =
        others.chain(own.map(|(name, suite)| format!("{group} {} {name}", suite.passed))).collect();
    lines.sort_by_key(|line| (!line.starts_with('#'), line.split(' ').next().map(str::to_owned)));
    fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("write {EXPECTED}"))?;
    Ok(Vec::new())
}

impl Group {
    fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "quick" => Self::Quick,
            "rest" => Self::Rest,
            "lab" => Self::Lab,
            _ => bail!("no group of tests is called {name:?}: there are quick, rest and lab"),
        })
    }

    /// The arguments of each call of `cargo test`. All select from the whole workspace, since cargo would rebuild libraries with fewer
    /// features for a part of it.
    fn calls(self, tests: &Tests) -> Vec<Vec<String>> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        match self {
            Self::Quick => vec![[integration(&tests.quick), words("--lib --bins")].concat()],
            Self::Rest => vec![integration(&tests.rest), words("--workspace --doc")],
            Self::Lab => vec![[integration(&tests.lab), words("--no-run")].concat()],
        }
    }
}

fn integration<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let names = names.into_iter().flat_map(|name| ["--test".to_owned(), name.clone()]);
    ["--workspace".to_owned()].into_iter().chain(names).collect()
}

/// The names of the integration tests of each group.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tests {
    quick: BTreeSet<String>,
    rest: BTreeSet<String>,
    lab: BTreeSet<String>,
}

impl Tests {
    /// Of all members, according to cargo.
    fn list(metadata: &Value) -> Result<Self> {
        let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut tests = Self::default();
        for package in list(metadata, "packages") {
            for target in list(package, "targets").filter(|target| list(target, "kind").any(|kind| kind == "test")) {
                match name(target) {
                    test if name(package) == "lab" => tests.lab.insert(test),
                    test if QUICK.contains(&test.as_str()) => tests.quick.insert(test),
                    test => tests.rest.insert(test),
                };
            }
        }
        // Cargo would run both.
        if let Some(both) = tests.lab.iter().find(|name| tests.quick.contains(*name) || tests.rest.contains(*name)) {
            bail!("an integration test of the lab and one of another crate are both called {both:?}");
        }
        Ok(tests)
    }
}

/// The outcome of a group, or of part of one.
#[derive(Debug)]
struct Ran {
    suites: Suites,
    passed: bool,
    /// The output of failed tests.
    said: Vec<String>,
}

impl Ran {
    fn nothing() -> Self {
        Self { suites: Suites::new(), passed: true, said: Vec::new() }
    }

    fn and(mut self, more: Self) -> Self {
        self.suites.extend(more.suites);
        self.said.extend(more.said);
        self.passed &= more.passed;
        self
    }
}

/// Runs all of a group.
fn run_group(root: &Path, group: Group) -> Result<Ran> {
    let manifest = root.join("Cargo.toml");
    let metadata = cargo_metadata(&["--no-deps", "--offline", "--manifest-path", &manifest.to_string_lossy()])?;
    let tests = Tests::list(&metadata)?;
    let mut ran = Ran::nothing();
    for arguments in group.calls(&tests) {
        ran = ran.and(cargo_test(root, &arguments, "")?);
        if !ran.passed {
            return Ok(ran);
        }
    }
    if group == Group::Lab {
        ran = ran.and(side_by_side(root, &tests.lab)?);
    }
    Ok(ran)
}

/// Runs lab suites in lanes until all have run, or one has failed.
fn side_by_side(root: &Path, names: &BTreeSet<String>) -> Result<Ran> {
    let waiting = Mutex::new(shortest_first(names));
    let next = || waiting.lock().pop();
    let lane = || {
        let mut ran = Ran::nothing();
        while let Some(name) = next() {
            let arguments = [integration([&name]), vec!["--".to_owned(), "--test-threads=1".to_owned()]].concat();
            ran = ran.and(cargo_test(root, &arguments, &format!("{name}: "))?);
            if !ran.passed {
                waiting.lock().clear();
            }
        }
        Ok(ran)
    };
    let lanes: Vec<Result<Ran>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_| bail!("a lane panicked"))).collect()
    });
    lanes.into_iter().try_fold(Ran::nothing(), |ran, lane| Ok(ran.and(lane?)))
}

/// The order in which lanes take suites from the end.
fn shortest_first(names: &BTreeSet<String>) -> Vec<String> {
    let place = |name: &String| LONG.iter().position(|long| long == name).unwrap_or(LONG.len());
    let mut order: Vec<String> = names.iter().cloned().collect();
    order.sort_by_key(|name| std::cmp::Reverse(place(name)));
    order
}

/// Shows cargo's output with a prefix on each line.
fn cargo_test(root: &Path, arguments: &[String], prefix: &str) -> Result<Ran> {
    // One pipe for both, so that the name of a suite and its result stay in order.
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let mut command = Command::new(cargo());
    command.args(["test", "--locked"]).args(arguments).current_dir(root);
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn().context("run cargo test")?;
    // It holds the pipe open.
    drop(command);
    let mut log = Log::default();
    for line in BufReader::new(reader).lines() {
        let line = line.context("read what cargo test says")?;
        println!("{prefix}{line}");
        log.line(&line);
    }
    let passed = child.wait().context("wait for cargo test")?.success();
    Ok(Ran { suites: log.suites, passed, said: log.said })
}

/// The output of cargo and the tests so far.
#[derive(Debug, Default)]
struct Log {
    suites: Suites,
    current: String,
    /// The output of failed tests.
    said: Vec<String>,
    /// Whether the line before this one was of a test that failed.
    failing: bool,
}

impl Log {
    fn line(&mut self, line: &str) {
        self.failing = is_of_failure(line, self.failing);
        if self.failing && !line.trim().is_empty() {
            self.said.push(format!("{}: {line}", self.current));
        }
        if let Some(name) = heading(line.trim()) {
            self.suites.entry(name.clone()).or_default();
            self.current = name;
        } else if let Some(result) = result(line) {
            let suite = self.suites.entry(self.current.clone()).or_default();
            suite.passed += result.passed;
            suite.left_out += result.left_out;
            suite.seconds += result.seconds;
        }
    }
}

/// Whether a line is of a test that failed. Suites of the lab indent the reason under the line of the test; the standard harness
/// shows at the end, under a heading, what the test printed.
fn is_of_failure(line: &str, before: bool) -> bool {
    let heading = line.starts_with("---- ") || line.starts_with("test ") && line.contains(" ... FAILED");
    heading || before && line != "failures:" && !line.starts_with("test ")
}

/// The name of a suite that begins: of `Running unittests src/lib.rs (target/debug/deps/abi-0123456789abcdef)` it is `abi src/lib.rs`,
/// of `Running tests/golden.rs (...)` it is `golden`, of `Doc-tests abi` it is `abi documents`.
fn heading(line: &str) -> Option<String> {
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} documents"));
    }
    let (source, program) = line.strip_prefix("Running ")?.strip_suffix(')')?.split_once(" (")?;
    let (name, _) = program.rsplit('/').next()?.rsplit_once('-')?;
    Some(match source.strip_prefix("unittests ") {
        Some(file) => format!("{name} {file}"),
        None => name.to_owned(),
    })
}

/// The result of a suite, from `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s`.
fn result(line: &str) -> Option<Suite> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut suite = Suite::default();
    for count in counts.split("; ") {
        match count.split_once(' ')? {
            (number, "passed") => suite.passed = number.parse().ok()?,
            (number, "ignored" | "filtered out") => suite.left_out += number.parse::<u32>().ok()?,
            ("finished", time) => suite.seconds = time.strip_prefix("in ")?.strip_suffix('s')?.parse().ok()?,
            _ => {}
        }
    }
    Some(suite)
}

/// The minimum of each suite of a group, from lines such as `quick 12 abi src/lib.rs`.
fn least(text: &str, group: &str) -> Result<BTreeMap<String, u32>> {
    let mut least = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let parts = line.split_once(' ').and_then(|(of, rest)| Some((of, rest.split_once(' ')?)));
        let Some((of, (count, name))) = parts else { bail!("{EXPECTED}: {line:?} is not GROUP COUNT SUITE") };
        if of == group {
            least.insert(name.to_owned(), count.parse().with_context(|| format!("{EXPECTED}: {line:?}"))?);
        }
    }
    Ok(least)
}

/// The faults of a run.
fn left_out(suites: &Suites, least: &BTreeMap<String, u32>, group: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, suite) in suites {
        if suite.left_out > 0 {
            faults.push(format!("{name}: {} tests are ignored or filtered out", suite.left_out));
        }
        if suite.passed > 0 && !least.contains_key(name) {
            faults.push(format!("{name}: it has no line in {EXPECTED}; write `{group} {} {name}`", suite.passed));
        }
    }
    for (name, least) in least {
        let passed = suites.get(name).map_or(0, |suite| suite.passed);
        if passed < *least {
            faults.push(format!(
                "{name}: {passed} tests ran, and {EXPECTED} wants {least}; lower it if some were taken away on purpose"
            ));
        }
    }
    faults
}

/// How long each suite took, longest first.
fn times(suites: &Suites) -> String {
    let mut rows: Vec<_> = suites.iter().filter(|(_, suite)| suite.passed > 0).collect();
    rows.sort_by(|(_, one), (_, other)| other.seconds.total_cmp(&one.seconds));
    let lines = rows.iter().map(|(name, suite)| format!("{:>8.1} s {:>5}  {name}\n", suite.seconds, suite.passed));
    format!("\n    time tests  suite\n{}", lines.collect::<String>())
}
