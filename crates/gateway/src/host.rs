// SPDX-License-Identifier: Apache-2.0
//! Host names of routes within those of listeners.

use l7::HostMatch;

/// What both are for. Of two wildcards it is the longer, or nothing.
pub(crate) fn intersection(a: &HostMatch, b: &HostMatch) -> Option<HostMatch> {
    use HostMatch::{Any, Below, Exact};
    let below = |inner: &str, outer: &str| inner.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'));
    let narrower = match (a, b) {
        (Any, other) | (other, Any) => other,
        (Exact(name), _) if b.covers(name) => a,
        (_, Exact(name)) if a.covers(name) => b,
        (Below(x), Below(y)) if x == y || below(x, y) => a,
        (Below(x), Below(y)) if below(y, x) => b,
        _ => return None,
    };
    Some(narrower.clone())
}

/// Those of a route's host names that a listener is for, each once. A route without names takes the listener's. Names that are none are for
/// nothing.
pub(crate) fn within(listener: &HostMatch, hostnames: &[String]) -> Vec<HostMatch> {
    if hostnames.is_empty() {
        return vec![listener.clone()];
    }
    let parsed = hostnames.iter().filter(|name| !name.is_empty()).filter_map(|name| name.parse().ok());
    let mut hosts: Vec<_> = parsed.filter_map(|host| intersection(listener, &host)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn host() -> impl Strategy<Value = HostMatch> {
        "(\\*|(\\*\\.)?[ab](\\.[ab]){0,3})".prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn an_intersection_covers_what_both_cover(a in host(), b in host(), name in "[ab](\\.[ab]){0,4}") {
            let both = intersection(&a, &b);
            prop_assert_eq!(both.is_some_and(|both| both.covers(&name)), a.covers(&name) && b.covers(&name));
        }

        #[test]
        fn it_does_not_matter_which_is_which(a in host(), b in host()) {
            prop_assert_eq!(intersection(&a, &b), intersection(&b, &a));
        }
    }

    #[test]
    fn names_of_a_route_that_the_listener_is_not_for_are_left_out() {
        let within = |listener: &str, names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let hosts = within(&listener.parse().unwrap(), &names);
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(within("*.a", &["b.a", "b.c", "*.a", "*.d.a", "b.a"]), ["b.a", "*.a", "*.d.a"]);
        assert_eq!(within("b.a", &["*.a", "*"]), ["b.a"]);
        assert_eq!(within("b.a", &["c.a", "", "b..a"]), [""; 0]);
        assert_eq!(within("*", &[]), ["*"]);
    }
}
