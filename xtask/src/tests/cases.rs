// SPDX-License-Identifier: Apache-2.0
//! Tests of parsing cargo's output, and of the conclusions.

use super::*;

const SAID: &str = "
   Compiling abi v0.1.0
     Running unittests src/lib.rs (target/debug/deps/abi-0123456789abcdef)

running 2 tests
test one ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s

     Running tests/golden.rs (target/debug/deps/golden-0123456789abcdef)
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s
     Running tests/golden/main.rs (/elsewhere/deps/golden-fedcba9876543210)
test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 1.00s
     Running unittests src/main.rs (target/debug/deps/empty-0123456789abcdef)
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests abi
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

fn suites(text: &str) -> Suites {
    let mut log = Log::default();
    text.lines().for_each(|line| log.line(line));
    log.suites
}

#[test]
fn suites_are_told_apart_and_those_of_one_name_are_added_up() {
    let found = suites(SAID);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["abi documents", "abi src/lib.rs", "empty src/main.rs", "golden"]);
    assert_eq!(found["golden"], Suite { passed: 7, left_out: 3, seconds: 2.5 });
    assert!(times(&found).find("golden").unwrap() < times(&found).find("abi src/lib.rs").unwrap());
}

#[test]
fn what_is_left_out_or_not_listed_is_at_fault_and_more_tests_are_not() {
    let found = suites(SAID);
    let faults = |expected: &str| left_out(&found, &least(expected, "quick").unwrap(), "quick").join("\n");
    let right = "# a comment\nquick 1 abi documents\nquick 1 abi src/lib.rs\nquick 7 golden\nlab 9 restart";
    assert_eq!(faults(right), "golden: 3 tests are ignored or filtered out");
    let gone = faults(&right.replace("quick 1 abi src/lib.rs", "quick 3 abi src/lib.rs\nquick 1 gone"));
    assert!(gone.contains("abi src/lib.rs: 2 tests ran") && gone.contains("gone: 0 tests ran"), "{gone}");
    let unlisted = faults("quick 1 abi documents\nquick 2 abi src/lib.rs");
    assert!(unlisted.contains("write `quick 7 golden`"), "{unlisted}");
    assert!(least("quick many golden", "quick").is_err() && least("quick", "quick").is_err());
}

#[test]
fn what_failed_tests_said_is_kept() {
    let said = "     Running tests/one.rs (target/debug/deps/one-0123456789abcdef)
test quiet ... ok
test asks ... FAILED (1.0 s)
    no answer: refused
test talks ... ok (2.0 s)
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s
     Running tests/two.rs (target/debug/deps/two-0123456789abcdef)
test counts ... FAILED

failures:

---- counts stdout ----
thread 'counts' panicked at tests/two.rs:3:5:
left: 1

failures:
    counts

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
    let mut log = Log::default();
    said.lines().for_each(|line| log.line(line));
    let kept = [
        "one: test asks ... FAILED (1.0 s)",
        "one:     no answer: refused",
        "two: test counts ... FAILED",
        "two: ---- counts stdout ----",
        "two: thread 'counts' panicked at tests/two.rs:3:5:",
        "two: left: 1",
    ];
    assert_eq!(log.said, kept);
}

fn metadata(lab: &str) -> Value {
    serde_json::json!({"packages": [
        {"name": "policy", "targets": [{"name": "policy", "kind": ["test"]}, {"name": "policy", "kind": ["lib"]}]},
        {"name": "datapath", "targets": [{"name": "kernel", "kind": ["test"]}, {"name": "prog", "kind": ["test"]}]},
        {"name": "lab", "targets": [{"name": lab, "kind": ["test"]}]},
    ]})
}

#[test]
fn every_integration_test_is_in_one_group() {
    let tests = Tests::list(&metadata("restart")).unwrap();
    let calls = |group: Group| group.calls(&tests).iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(calls(Group::Quick), ["--workspace --test policy --lib --bins"]);
    assert_eq!(calls(Group::Rest), ["--workspace --test kernel --test prog", "--workspace --doc"]);
    assert_eq!(calls(Group::Lab), ["--workspace --test restart --no-run"]);
    assert!(Tests::list(&metadata("kernel")).unwrap_err().to_string().contains("kernel"));
}

#[test]
fn lanes_take_the_long_suites_first() {
    let names = ["attack", "install", "plain", "restart"].map(str::to_owned).into_iter().collect();
    let mut order = shortest_first(&names);
    assert_eq!(order.split_off(2), ["install", "restart"], "taken from the end");
    assert_eq!(order, ["plain", "attack"]);
}
