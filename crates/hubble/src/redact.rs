// SPDX-License-Identifier: Apache-2.0
//! What of a request is left out of its flows, before anybody or any disk has them. Secrets in headers are no part of what the proxy tells.

use crate::proto::flow::HttpHeader;
use l7::REDACTED;

/// Headers whose values are URLs, or what follows the host in one, in lower case.
const URLS: [&str; 7] = [
    "destination",
    "referer",
    "x-envoy-original-path",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// What to leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Redaction {
    pub(crate) query: bool,
    /// Passwords in URLs.
    pub(crate) user_info: bool,
    /// Names of headers, in lower case, whose values are shown; all if there are none.
    pub(crate) allow: Vec<String>,
    /// Those whose values are not.
    pub(crate) deny: Vec<String>,
}

impl Redaction {
    pub(crate) fn header(&self, key: String, value: String) -> HttpHeader {
        let is = |name: &String| name.eq_ignore_ascii_case(&key);
        let shown = !self.deny.iter().any(is) && (self.allow.is_empty() || self.allow.iter().any(is));
        let value = if !shown {
            REDACTED.to_owned()
        } else if URLS.iter().any(|name| key.eq_ignore_ascii_case(name)) {
            self.url(value)
        } else {
            value
        };
        HttpHeader { key, value }
    }

    pub(crate) fn url(&self, mut url: String) -> String {
        if self.query
            && let Some(at) = url.find(['?', '#'])
        {
            url.truncate(at);
        }
        if self.user_info
            && let Some(range) = password(&url)
        {
            url.replace_range(range, REDACTED);
        }
        url
    }
}

/// Where the password of a URL is (RFC 3986, 3.2.1). If it is cut off before its host has ended, what is there may be one.
fn password(url: &str) -> Option<std::ops::Range<usize>> {
    let begin = url.find("://")? + "://".len();
    let authority = url.get(begin..)?;
    let authority = authority.get(..authority.find(['/', '?', '#']).unwrap_or(authority.len()))?;
    let end = if authority.ends_with('…') { authority.len() } else { authority.rfind('@')? };
    let user_info = authority.get(..end)?;
    let password = user_info.find(':')? + 1;
    Some(begin + password..begin + user_info.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(redaction: &Redaction, url: &str) -> String {
        redaction.url(url.to_owned())
    }

    #[test]
    fn a_password_is_replaced_and_its_user_is_not() {
        let redaction = Redaction { user_info: true, ..Redaction::default() };
        let cases = [
            ("http://ann:secret@shop/p?q", "http://ann:HUBBLE_REDACTED@shop/p?q"),
            ("http://ann:a:b@c@shop:80/", "http://ann:HUBBLE_REDACTED@shop:80/"),
            ("http://ann@shop/", "http://ann@shop/"),
            ("http://shop/a:b@c", "http://shop/a:b@c"),
            ("http://shop?a:b@c", "http://shop?a:b@c"),
            ("http://[fd00::1]:80/", "http://[fd00::1]:80/"),
            ("http://:@shop", "http://:HUBBLE_REDACTED@shop"),
            ("", ""),
            ("http://ann:sec…", "http://ann:HUBBLE_REDACTED"),
            ("http://ann:se@c…", "http://ann:HUBBLE_REDACTED"),
            ("http://shop/…", "http://shop/…"),
            ("http://ü:ß@ö", "http://ü:HUBBLE_REDACTED@ö"),
        ];
        for (given, shown) in cases {
            assert_eq!(url(&redaction, given), shown);
            assert_eq!(url(&Redaction::default(), given), given);
        }
    }

    #[test]
    fn a_query_is_removed_with_all_that_follows_it() {
        let redaction = Redaction { query: true, ..Redaction::default() };
        assert_eq!(url(&redaction, "http://shop/p?token=1&x=2#y"), "http://shop/p");
        assert_eq!(url(&redaction, "http://shop/p"), "http://shop/p");
    }

    #[test]
    fn a_url_in_a_header_is_treated_like_that_of_the_request() {
        let redaction = Redaction { query: true, user_info: true, ..Redaction::default() };
        let value = |key: &str, value: &str| redaction.header(key.to_owned(), value.to_owned()).value;
        assert_eq!(value("Referer", "http://ann:hush@shop/p?token=1#x"), "http://ann:HUBBLE_REDACTED@shop/p");
        assert_eq!(value("x-original-uri", "/p?token=1"), "/p");
        assert_eq!(value("accept", "what?ever"), "what?ever");
    }

    #[test]
    fn headers_are_shown_if_they_are_allowed_and_not_denied() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let shows = |redaction: &Redaction, key: &str| redaction.header(key.into(), "v".into()).value == "v";
        let denied = Redaction { deny: names(&["X-Id"]), ..Redaction::default() };
        assert!(!shows(&denied, "x-id") && shows(&denied, "accept"));
        let allowed = Redaction { allow: names(&["accept", "X-Id"]), deny: names(&["x-id"]), ..Redaction::default() };
        assert!(shows(&allowed, "accept") && !shows(&allowed, "x-id") && !shows(&allowed, "host"));
        assert_eq!(allowed.header("host".into(), "v".into()).value, "HUBBLE_REDACTED");
    }
}
