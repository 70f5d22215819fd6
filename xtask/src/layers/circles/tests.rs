// SPDX-License-Identifier: Apache-2.0
//! Made-up files in circles, without any, and the kernel programs as they are.

use std::{collections::BTreeMap, path::Path};

use super::{check, circles, module, sources, uses};

fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let sources: BTreeMap<_, _> =
        files.iter().map(|(file, text)| (module(Path::new(file)), text.to_string())).collect();
    circles(&uses(&sources))
}

#[test]
fn files_that_use_those_below_them_are_in_no_circle() {
    let files = [
        ("main.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::{self, one}; use crate::c::two; fn f() { b::three() }"),
        ("b.rs", "use crate::c; pub fn one() { crate::b::three(); self::three(); c::two() }"),
        ("c.rs", "use abi::b::one; pub fn two() { one(); core::mem::take() }"),
    ];
    assert_eq!(circles_of(&files), Vec::<String>::new());
}

#[test]
fn a_circle_is_printed_with_the_names_along_it() {
    let files = [
        ("a.rs", "use crate::{c::{Two, self}, b::one as other};"),
        ("b.rs", "use abi::x;\nuse crate::c::Two;\n"),
        ("c.rs", "pub struct Two; fn f() { crate::a::f(); crate::a::g::<u8>() }"),
    ];
    assert_eq!(circles_of(&files), ["a.rs -> c.rs (Two) -> a.rs (f, g)"]);
}

#[test]
fn each_circle_is_printed_once() {
    let files = [
        ("a.rs", "use crate::b::x;"),
        ("b.rs", "use crate::a::x; use crate::c::y;"),
        ("c.rs", "use crate::d::y;"),
        ("d.rs", "use crate::c::y;"),
    ];
    assert_eq!(circles_of(&files), ["a.rs -> b.rs (x) -> a.rs (x)", "c.rs -> d.rs (y) -> c.rs (y)"]);
}

#[test]
fn a_folder_uses_what_is_in_it_by_name_and_is_used_from_there() {
    let names_its_own = ("stages.rs", "pub mod route; fn decide() { route::check() }");
    for above in ["use super::Pkt;", "fn f(pkt: &super::Pkt) {}", "fn f() { crate::stages::decide() }"] {
        assert_eq!(circles_of(&[names_its_own, ("stages/route.rs", above)]).len(), 1, "{above}");
    }
    let beside = ("stages/route.rs", "use super::source; use crate::fib::{ask};");
    let others = [("stages/source.rs", "pub fn check() {}"), ("fib.rs", "pub fn ask() {}")];
    assert_eq!(circles_of(&[names_its_own, beside, others[0], others[1]]), Vec::<String>::new());
    // Only declared.
    let declares = ("hook.rs", "mod tc; pub trait Hook {}");
    assert_eq!(circles_of(&[declares, ("hook/tc.rs", "use super::Hook;")]), Vec::<String>::new());
}

#[test]
fn an_imported_file_is_used_by_what_is_named_in_it() {
    let files = [
        ("programs.rs", "use crate::stages; fn f() { stages::commit::store() }"),
        ("stages.rs", "pub mod commit;"),
        ("stages/commit.rs", "use crate::programs::f;"),
    ];
    assert_eq!(circles_of(&files), ["programs.rs -> stages/commit.rs (store) -> programs.rs (f)"]);
}

#[test]
fn comments_strings_and_other_crates_name_no_file() {
    let source = "//! See crate::a::f.\n/* crate::a::f */ use abi::lb::flags as a;\nfn g<'a>() -> char { \"crate::a::f \\\" crate::a::f\"; a::X; '\"' }";
    let used = ("a.rs", "use crate::b::g;");
    assert_eq!(circles_of(&[used, ("b.rs", source)]), Vec::<String>::new());
    assert_eq!(circles_of(&[used, ("b.rs", &format!("{source} fn h() {{ crate::a::f() }}"))]).len(), 1);
}

#[test]
fn the_kernel_programs_are_in_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    assert_eq!(check(&root).unwrap(), Vec::<String>::new());
    let uses = uses(&sources(&root.join("bpf/src")).unwrap());
    let used = &uses[&module(Path::new("stages.rs"))];
    assert!(used.contains_key(&module(Path::new("stages/route.rs"))), "{used:?}");
}
