// SPDX-License-Identifier: Apache-2.0
//! Paths as they are routed: what a client has written, in the one way that all readers read alike.

use http::Uri;
use http::uri::PathAndQuery;
use std::borrow::Cow;

/// Path and query in the one way to write them (RFC 3986, 6.2.2): without `.` and `..`, and what need not be encoded is not. So routes and
/// backends speak of the same path. A backslash, which some backends take for a slash, is in no path, and dots that only some would see are
/// in none either.
pub(super) fn plain_path(uri: &Uri) -> Result<PathAndQuery, &'static str> {
    let path = uri.path_and_query().ok_or("the request has no path")?;
    if !path.as_str().starts_with('/') {
        return if path == "*" { Ok(path.clone()) } else { Err("the path does not begin with /") };
    }
    if path.path().contains('\\') {
        return Err("the path is malformed");
    }
    let decoded = decoded(path.path()).ok_or("the path is malformed")?;
    if hides_dots(&decoded) {
        return Err("the path hides a way out of it");
    }
    if decoded == path.path() && !decoded.split('/').any(is_dots) {
        return Ok(path.clone());
    }
    let query = path.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", without_dots(&decoded)).try_into().map_err(|_| "the path is malformed")
}

/// Without the encoding of characters that mean nothing but themselves. Nothing if a percent sign encodes nothing: what follows it could
/// make an encoding of it.
fn decoded(path: &str) -> Option<Cow<'_, str>> {
    let Some((first, rest)) = path.split_once('%') else { return Some(Cow::Borrowed(path)) };
    let mut all = first.to_owned();
    for part in rest.split('%') {
        let (hex, literal) = part.split_at_checked(2).filter(|(hex, _)| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(hex, 16).ok()?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            all.extend(["%", hex]);
        }
        all.push_str(literal);
    }
    Some(Cow::Owned(all))
}

fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut last_is_dots = false;
    for segment in path.split('/').skip(1) {
        last_is_dots = is_dots(segment);
        match segment {
            ".." => drop(segments.pop()),
            "." => {}
            _ => segments.push(segment),
        }
    }
    let slash = if last_is_dots && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// Whether some readers of a decoded path would find `.` or `..` in a segment of it: beside a slash that is encoded (`..%2f`), or before
/// parameters (`..;a`).
fn hides_dots(decoded: &str) -> bool {
    let is_hidden = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%5c", "/").replace("%2f", "/").replace("%3b", ";");
        let mut parts = segment.split('/').map(|part| part.split(';').next().unwrap_or(part));
        parts.any(is_dots)
    };
    decoded.contains(['%', ';']) && decoded.split('/').any(|segment| segment.contains(['%', ';']) && is_hidden(segment))
}

/// Whether a reader of the path may take a part of it for a way out of another.
pub(super) fn steps_up(path: &str) -> bool {
    decoded(path).is_none_or(|path| hides_dots(&path) || path.split('/').any(|segment| segment == ".."))
}

#[cfg(test)]
mod tests {
    use super::{PathAndQuery, plain_path, steps_up};

    fn plain(path: &str) -> String {
        plain_path(&path.parse().unwrap()).unwrap().as_str().to_owned()
    }

    #[test]
    fn dots_in_a_path_are_gone_before_it_is_routed() {
        let rows = [
            ("/a/b", "/a/b"),
            ("/a/../b?c=/../d", "/b?c=/../d"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../etc", "/etc"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e", "/"),
            ("/a//../b", "/a/b"),
            ("/%61/%2E%2E/%62%2f%7E%5a?%61", "/b%2f~Z?%61"),
            ("/a/...", "/a/..."),
            ("/a/.b", "/a/.b"),
        ];
        for (path, wanted) in rows {
            assert_eq!(plain(path), wanted, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_in_the_one_way_stays_as_it_is(path in "/([a./%2EeZ1f-]|%[0-9a-fA-F]{2}){0,12}") {
            let path: PathAndQuery = path.parse().unwrap();
            if let Ok(once) = plain_path(&path.into()) {
                assert_eq!(plain_path(&once.clone().into()).unwrap(), once);
                assert!(!once.path().split('/').any(|segment| matches!(segment, "." | "..")), "{once}");
            }
        }
    }

    #[test]
    fn a_path_with_an_encoding_that_is_none_is_refused() {
        for path in ["/%", "/%6", "/%+1", "/a%zz", "/%%361dmin", "/a\\b"] {
            assert!(plain_path(&path.parse().unwrap()).is_err(), "{path}");
        }
    }

    #[test]
    fn without_dots_nothing_changes() {
        let path: PathAndQuery = "/a//b/%2Fc/?x".try_into().unwrap();
        assert_eq!(plain(path.as_str()), "/a//b/%2Fc/?x");
    }

    #[test]
    fn dots_that_only_some_would_see_are_refused() {
        for path in [
            "/a/..%2fb",
            "/a/..%2Fb",
            "/a/..%5cb",
            "/a/..%5Cb",
            "/a/%2e%2E%2fb",
            "/a%2f..%2fb",
            "/a%2f..",
            "/a%5c../b",
            "/a/.%2fb",
            "/a%2F.",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a/..%3bx/b",
            "/a/..%3B/b",
            "/a/.;/b",
            "/a/%2e%2e;/b",
            "/a%2f..;/b",
            "/..;",
        ] {
            assert!(plain_path(&path.parse().unwrap()).is_err(), "{path}");
            assert!(!path.contains("..") || steps_up(path), "{path}");
        }
        for path in [
            "/a%2fb",
            "/a%5Cb",
            "/a;x=../b",
            "/a;../b",
            "/...%2fb",
            "/.a%2fb",
            "/a..%2fb",
            "/a/b;v=1.1",
            "/;/a",
            "/a%3b",
        ] {
            assert_eq!(plain(path), path);
            assert!(!steps_up(path), "{path}");
        }
    }
}
