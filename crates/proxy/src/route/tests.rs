// SPDX-License-Identifier: Apache-2.0
//! The tables against an oracle that looks at every match of every route.

use super::{Sought, Tables, filter::NewPath};
use http::{HeaderMap, Method, Uri};
use l7::{Attachment, HostMatch, Name, PathChange, PathMatch, Precedence, Route, RouteAction, RouteMatch, ValueMatch};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::sync::Arc;

fn route(name: &str, hosts: &[&str], matches: Vec<RouteMatch>) -> Route {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Route::plain(name, Attachment { table: "t".into(), hosts }, matches, RouteAction::Respond(200))
}

#[derive(Debug)]
struct Asked {
    host: String,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

fn ask(host: &str, uri: &str) -> Asked {
    Asked { host: host.into(), method: Method::GET, uri: uri.parse().unwrap(), headers: HeaderMap::new() }
}

fn sought(asked: &Asked) -> Sought<'_> {
    Sought::new(&asked.method, &asked.uri, &asked.headers)
}

fn found(tables: &Tables, asked: &Asked) -> Option<Name> {
    let table = tables.get("t")?;
    table.find(&asked.host, &sought(asked)).map(|found| found.route.name().clone())
}

fn tables(routes: &[Route]) -> Tables {
    let mut tables = Tables::default();
    for route in routes {
        tables.set(&Arc::new(route.clone())).unwrap();
    }
    tables
}

// The oracle.

fn holds(value: &ValueMatch, text: &str) -> bool {
    match value {
        ValueMatch::Exact(wanted) => wanted == text,
        ValueMatch::Regex(regex) => regex::Regex::new(&format!("^({regex})$")).unwrap().is_match(text),
        ValueMatch::Present => true,
        ValueMatch::Absent => false,
        ValueMatch::Not(value) => !holds(value, text),
    }
}

fn path_holds(path: &PathMatch, text: &str) -> bool {
    match path {
        PathMatch::Exact(wanted) => wanted == text,
        PathMatch::Start(start) => text.starts_with(start.as_str()),
        PathMatch::Prefix(prefix) => {
            let prefix: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
            text.split('/').take(prefix.len()).eq(prefix)
        }
        PathMatch::Regex(regex) => holds(&ValueMatch::Regex(regex.clone()), text),
    }
}

fn all_of_it_holds(rule: &RouteMatch, asked: &Asked) -> bool {
    let query: Vec<(&str, &str)> =
        asked.uri.query().into_iter().flat_map(|q| q.split('&')).filter_map(|pair| pair.split_once('=')).collect();
    path_holds(&rule.path, asked.uri.path())
        && rule.method.as_ref().is_none_or(|method| method == asked.method.as_str())
        && rule.headers.iter().all(|(name, value)| {
            let all: Vec<&str> = asked.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
            match value {
                ValueMatch::Absent => all.is_empty(),
                value => !all.is_empty() && holds(value, &all.join(",")),
            }
        })
        && rule.query.iter().all(|(name, value)| match query.iter().find(|(key, _)| key == name) {
            Some((_, text)) => holds(value, text),
            None => matches!(value, ValueMatch::Absent),
        })
}

fn specificity(host: &HostMatch) -> (u8, usize) {
    match host {
        HostMatch::Exact(_) => (2, 0),
        HostMatch::Below(domain) => (1, domain.len()),
        HostMatch::Any => (0, 0),
    }
}

fn expected(routes: &[Route], asked: &Asked) -> Option<Name> {
    let hosts = |route: &Route| -> Vec<HostMatch> {
        let all = route.attachments.iter().filter(|a| *a.table == *"t").flat_map(|a| a.hosts.clone());
        all.filter(|host| host.covers(&asked.host)).collect()
    };
    let candidates = routes.iter().flat_map(|route| {
        let matches = route.matches.iter().filter(|rule| all_of_it_holds(rule, asked));
        matches.flat_map(move |rule| hosts(route).into_iter().map(move |host| (host, rule, route)))
    });
    let best = candidates
        .min_by_key(|(host, rule, route)| (Reverse(specificity(host)), rule.precedence.clone(), route.name.clone()));
    best.map(|(_, _, route)| route.name.clone())
}

// What is tried.

fn host_text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["*", "a.x", "b.a.x", "*.x", "*.a.x", "*.b.a.x", "x"])
}

fn path_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", ""]), 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path_text().prop_map(PathMatch::Exact),
        path_text().prop_map(PathMatch::Prefix),
        path_text().prop_map(PathMatch::Start),
        prop::sample::select(vec!["/a.*", "/", "/(a|b)/?", ".*"]).prop_map(|text| PathMatch::Regex(text.into())),
    ]
}

fn pairs() -> impl Strategy<Value = Vec<(String, ValueMatch)>> {
    let value = prop_oneof![
        Just(ValueMatch::Exact("1".into())),
        Just(ValueMatch::Regex("1|2".into())),
        Just(ValueMatch::Present),
        Just(ValueMatch::Absent),
        Just(ValueMatch::Not(Box::new(ValueMatch::Exact("1".into()))))
    ];
    prop::collection::vec((prop::sample::select(vec!["k".to_owned(), "l".to_owned()]), value), 0..2)
}

fn rule() -> impl Strategy<Value = RouteMatch> {
    let method = prop::option::of(prop::sample::select(vec!["GET".to_owned(), "POST".to_owned()]));
    (path_match(), method, pairs(), pairs(), 0..3u32).prop_map(|(path, method, headers, query, rank)| RouteMatch {
        precedence: Precedence { specificity: [rank, 0, 0, 0, 0], ..Precedence::default() },
        path,
        method,
        headers,
        query,
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let hosts = prop::collection::vec(host_text(), 1..3);
    prop::collection::vec((0..8u8, hosts, prop::collection::vec(rule(), 0..4)), 0..10).prop_map(|all| {
        let named = all.into_iter().map(|(name, hosts, rules)| (name, route(&name.to_string(), &hosts, rules)));
        // Of a name there is one: the last.
        named.collect::<std::collections::BTreeMap<_, _>>().into_values().collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let host = prop::sample::select(vec!["a.x", "b.a.x", "c.b.a.x", "x", "y", ""]);
    let pairs = || {
        prop::collection::vec((prop::sample::select(vec!["k", "l"]), prop::sample::select(vec!["1", "2", ""])), 0..3)
    };
    (host, path_text(), prop::bool::ANY, pairs(), pairs()).prop_map(|(host, path, post, headers, query)| {
        let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut asked = ask(host, &format!("{path}?{}", query.join("&")));
        asked.method = if post { Method::POST } else { Method::GET };
        for (name, value) in headers {
            asked.headers.append(name, value.parse().unwrap());
        }
        asked
    })
}

proptest! {
    // Expressions take long to compile in a build for tests.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_request_meets_the_route_that_a_look_at_every_match_finds(routes in routes(), asked in asked()) {
        prop_assert_eq!(found(&tables(&routes), &asked), expected(&routes, &asked));
    }

    #[test]
    fn changes_one_by_one_lead_where_a_new_start_does(
        before in routes(), after in routes(), asked in prop::collection::vec(asked(), 1..8),
    ) {
        let mut changed = tables(&before);
        for old in &before {
            if !after.iter().any(|new| new.name == old.name) {
                changed.remove(&old.name);
            }
        }
        for new in &after {
            changed.set(&Arc::new(new.clone())).unwrap();
        }
        prop_assert_eq!(changed.len(), after.len());
        for asked in &asked {
            prop_assert_eq!(found(&changed, asked), expected(&after, asked));
        }
    }

    #[test]
    fn what_is_taken_out_leaves_nothing(routes in routes()) {
        let mut all = tables(&routes);
        routes.iter().for_each(|route| all.remove(&route.name));
        prop_assert!(all.get("t").is_none());
    }
}

#[test]
fn a_change_is_not_seen_by_who_still_holds_the_tables_of_before() {
    let mut now = tables(&[route("a", &["*"], vec![RouteMatch::on(PathMatch::Exact("/x".into()))])]);
    let before = now.clone();
    now.remove(&"a".into());
    assert_eq!(found(&before, &ask("h", "/x")).as_deref(), Some("a"));
    assert_eq!(found(&now, &ask("h", "/x")), None);
}

#[test]
fn a_route_that_cannot_be_used_leaves_the_one_of_before() {
    let mut tables = tables(&[route("a", &["*"], vec![RouteMatch::on(PathMatch::Exact("/x".into()))])]);
    for path in [
        PathMatch::Regex("(".into()),
        PathMatch::Regex("a)|(b".into()),
        PathMatch::Regex("(((a{100}){100}){100}){100}".into()),
        PathMatch::Exact("x".into()),
    ] {
        let error = tables.set(&Arc::new(route("a", &["*"], vec![RouteMatch::on(path)]))).unwrap_err();
        assert!(error.to_string().starts_with("path: "), "{error}");
    }
    assert_eq!(found(&tables, &ask("h", "/x")).as_deref(), Some("a"));
}

#[test]
fn a_prefix_is_replaced_as_gateway_api_has_it() {
    let rows = [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
    ];
    for (path, prefix, new, wanted) in rows {
        let tables = tables(&[route("a", &["*"], vec![RouteMatch::on(PathMatch::Prefix(prefix.into()))])]);
        let asked = ask("h", path);
        let found = tables.get("t").unwrap().find("h", &sought(&asked)).unwrap();
        let new = NewPath::parse(&PathChange::Prefix(new.into())).unwrap();
        assert_eq!(new.of(path, found.prefix), wanted, "{path} with {prefix} replaced");
    }
}

#[test]
fn a_beginning_is_replaced_letter_by_letter_and_what_an_expression_finds_by_what_it_found() {
    let start = |new: &str| NewPath::parse(&PathChange::Start(new.into())).unwrap();
    assert_eq!((start("/b").of("/ab/c", 2), start("/").of("/a/c", 2)), ("/bb/c".into(), "//c".into()));
    let replace =
        |pattern: &str, with: &str| NewPath::parse(&PathChange::Replace { pattern: pattern.into(), with: with.into() });
    let rows = [
        ("^/foo.*$", "/", "/foo/bar", "/"),
        ("^/foo.*$", "/", "/bar/foo", "/bar/foo"),
        ("^/api/v(\\d+)/(.*)$", "/\\2/\\1", "/api/v3/x/y", "/x/y/3"),
        ("a", "<\\0>", "/aba", "/<a>b<a>"),
    ];
    for (pattern, with, path, wanted) in rows {
        assert_eq!(replace(pattern, with).unwrap().of(path, path.len()), wanted, "{pattern} by {with}");
    }
    assert!(replace("(", "/").is_err() && replace("a", "\\1").is_err());
    // It does not become as long as it could.
    let long = replace("", &"x".repeat(1024)).unwrap();
    assert_eq!(long.of(&"/".repeat(60_000), 0), "");
}

#[test]
fn a_path_of_many_slashes_costs_what_the_deepest_prefix_does() {
    // Each segment more that is looked at costs its length: with this many, the test would not end.
    let tables = tables(&[route("a", &["*"], vec![RouteMatch::on(PathMatch::Prefix("/a/b".into()))])]);
    let asked = ask("h", &format!("/a/b{}", "/".repeat(60_000)));
    for _ in 0..1_000 {
        assert_eq!(found(&tables, &asked).as_deref(), Some("a"));
    }
}

#[test]
fn a_long_query_is_read_once_whoever_asks_of_it() {
    // Each route that asks something of it would read it again: with this many, the test would not end.
    let asks = |n: u32| RouteMatch {
        precedence: Precedence { place: n, ..Precedence::default() },
        query: vec![(format!("k{n}"), ValueMatch::Exact("wanted".into()))],
        ..RouteMatch::default()
    };
    let tables = tables(&[route("a", &["*"], (0..2_000).map(asks).collect())]);
    let others: String = (0..6_000).map(|n| format!("&k{n}=1")).collect();
    let asked = ask("h", &format!("/?x{others}&k7=wanted&k1999=wanted"));
    for _ in 0..50 {
        assert_eq!(found(&tables, &asked), None, "of one that comes twice, the first counts");
    }
    assert_eq!(found(&tables, &ask("h", &format!("/?k1999=wanted{others}"))).as_deref(), Some("a"));
}
