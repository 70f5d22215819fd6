// SPDX-License-Identifier: Apache-2.0
//! Texts of routes as the proxy can use them. Whoever makes routes asks here too, so that their authors are told of what cannot be.

use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use regex::{Regex, RegexBuilder};
use std::fmt::Display;

/// What an expression may take of memory once it is compiled, in bytes, and what each worker may make of it while it is matched: that grows
/// with what clients send.
const LARGEST_REGEX: usize = 256 << 10;
/// Length of what comes in place of a part of a path, in bytes.
const LONGEST_SUBSTITUTION: usize = 1024;
/// Headers that say how a message is framed or which connection it is for: no route may change them.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn told<T>(result: Result<T, impl Display>, text: &str) -> Result<T, String> {
    result.map_err(|error| format!("{text:?}: {error}"))
}

/// An expression that must match all of a text.
///
/// # Errors
///
/// It is none, or takes too much.
pub fn expression(text: &str) -> Result<Regex, String> {
    // On its own first, so that one that closes the group is refused.
    compiled(text, text)?;
    compiled(&format!("^(?:{text})$"), text)
}

/// `pattern`, which is of `text`.
fn compiled(pattern: &str, text: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(LARGEST_REGEX).dfa_size_limit(LARGEST_REGEX).build().map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(_) => format!("the expression {text:?} is too large"),
            _ => format!("{text:?} is no regular expression"),
        }
    })
}

/// An expression that is looked for in a text.
///
/// # Errors
///
/// It is none, or takes too much.
pub fn pattern(text: &str) -> Result<Regex, String> {
    compiled(text, text)
}

/// What comes in place of what an expression with so many groups has found: `\0` is all of it, `\1` to `\9` are its groups.
///
/// # Errors
///
/// It refers to a group that there is not, a backslash is before something else, or it is longer than a path may become.
pub fn substitution(text: &str, groups: usize) -> Result<Vec<Piece>, String> {
    if text.len() > LONGEST_SUBSTITUTION {
        return Err(format!("a substitution has at most {LONGEST_SUBSTITUTION} bytes"));
    }
    let (mut pieces, mut plain, mut letters) = (Vec::new(), String::new(), text.chars());
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next().map(|next| (next, next.to_digit(10))) {
            Some(('\\', _)) => plain.push('\\'),
            Some((_, Some(group))) if (group as usize) < groups => {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Group(group as usize));
            }
            _ => {
                return Err(format!(
                    "{text:?}: a backslash is before a digit of a group that there is, or before another"
                ));
            }
        }
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

/// A part of a substitution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is there as it is.
    Text(String),
    /// What this group of the expression has found; of group 0, all of it.
    Group(usize),
}

/// The name of a header.
///
/// # Errors
///
/// It is none.
pub fn header_name(text: &str) -> Result<HeaderName, String> {
    told(text.parse(), text)
}

/// The name of a header that a route changes.
///
/// # Errors
///
/// It is none, or the header frames the message.
pub fn changed_header(text: &str) -> Result<HeaderName, String> {
    let name = header_name(text)?;
    if FRAMING.contains(&name.as_str()) { Err(format!("{name} is not for routes to change")) } else { Ok(name) }
}

/// The value of a header.
///
/// # Errors
///
/// It has control characters other than tabs.
pub fn header_value(text: &str) -> Result<HeaderValue, String> {
    told(HeaderValue::from_str(text), text)
}

/// A host with or without a port.
///
/// # Errors
///
/// It is none.
pub fn authority(text: &str) -> Result<HeaderValue, String> {
    told(text.parse::<Authority>(), text)?;
    header_value(text)
}

/// A path in place of another, with the slash that it begins with.
///
/// # Errors
///
/// It is none, or has a query.
pub fn path(text: &str) -> Result<String, String> {
    let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    told(path.parse::<PathAndQuery>(), text)?;
    if path.contains(['?', '#']) { Err(format!("{text:?} has a query")) } else { Ok(path) }
}

/// The name of a cookie.
///
/// # Errors
///
/// It is none: with separators in it, it would break the cookies of others.
pub fn cookie_name(text: &str) -> Result<(), String> {
    let is_token = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"\\".contains(&b));
    if is_token { Ok(()) } else { Err(format!("{text:?} is no name of a cookie")) }
}

/// The origin of a script: its scheme, and its host with or without a port.
///
/// # Errors
///
/// It has no scheme.
pub fn origin(text: &str) -> Result<(&str, &str), String> {
    text.split_once("://").ok_or_else(|| format!("{text:?} has no scheme"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_all_of_a_text_and_stays_within_its_group_and_its_size() {
        let whole = expression("a|b").unwrap();
        assert_eq!(["a", "b", "ab", "xa", "bx"].map(|text| whole.is_match(text)), [true, true, false, false, false]);
        for text in ["(", "a)|(?:b", "\\w{1000}"] {
            assert!(expression(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_substitution_refers_to_groups_that_there_are() {
        let (text, group) = (|text: &str| Piece::Text(text.into()), Piece::Group);
        assert_eq!(substitution("/a\\1b\\\\0\\0", 2), Ok(vec![text("/a"), group(1), text("b\\0"), group(0), text("")]));
        for wrong in ["\\2", "\\", "\\x", &"a".repeat(1025)] {
            assert!(substitution(wrong, 2).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_would_break_a_message_is_refused() {
        for name in ["Host", "Content-Length", "TRANSFER-ENCODING", "upgrade", "a b", ""] {
            assert!(changed_header(name).is_err(), "{name}");
        }
        assert!(changed_header("X-One").is_ok() && header_name("host").is_ok());
        for value in ["a\nb", "a\r", "a\0", "\u{7f}"] {
            assert!(header_value(value).is_err(), "{value:?}");
        }
        for name in ["", "a b", "a=b", "a;b", "a,b", "ä"] {
            assert!(cookie_name(name).is_err(), "{name}");
        }
        for text in ["/a?b", "/a#b", "/a b", "a\nb"] {
            assert!(path(text).is_err(), "{text:?}");
        }
        assert_eq!((path("a").as_deref(), path("/").as_deref()), (Ok("/a"), Ok("/")));
        assert!(authority("h:80").is_ok() && authority("a b").is_err() && authority("").is_err());
        assert!(origin("https://h").is_ok() && origin("h").is_err());
    }
}
