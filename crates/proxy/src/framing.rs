// SPDX-License-Identifier: Apache-2.0
//! Where a message ends. One that two readers would end at different places is not passed on (RFC 9112, 6.3).

use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Response, StatusCode};

/// There is more than one way to read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// Has a message say its length once, however often it has said it.
pub(crate) fn say_length_once(headers: &mut HeaderMap) -> Result<(), Ambiguous> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(first), second) = (values.next(), values.next()) else { return Ok(()) };
    if second.is_none() && length(first.as_bytes()).is_some() {
        return Ok(());
    }
    let mut said = None;
    for one in headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let one = length(one.trim_ascii()).ok_or(Ambiguous)?;
        if said.replace(one).is_some_and(|before| before != one) {
            return Err(Ambiguous);
        }
    }
    headers.insert(CONTENT_LENGTH, said.ok_or(Ambiguous)?.into());
    Ok(())
}

/// Digits alone: what other parsers make of a sign is their own affair.
fn length(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// Refuses an answer that says its length in two ways, or whose coding is not known here.
pub(crate) fn check_answer<B>(response: &mut Response<B>) -> Result<(), Ambiguous> {
    let status = response.status();
    let headers = response.headers_mut();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let known = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if !known || headers.contains_key(CONTENT_LENGTH) {
            return Err(Ambiguous);
        }
    }
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // They have no body (RFC 9110, 8.6).
        headers.remove(CONTENT_LENGTH);
    }
    say_length_once(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderName, HeaderValue};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_length_is_said_once_or_the_message_is_refused() {
        for (said, wanted) in [
            (&[][..], Ok(None)),
            (&["5"], Ok(Some("5"))),
            (&["005"], Ok(Some("005"))),
            (&["5", "5"], Ok(Some("5"))),
            (&["5, 5"], Ok(Some("5"))),
            (&["5,5", " 5 "], Ok(Some("5"))),
            (&["5", "6"], Err(Ambiguous)),
            (&["5, 6"], Err(Ambiguous)),
            (&["5,"], Err(Ambiguous)),
            (&[""], Err(Ambiguous)),
            (&["+5"], Err(Ambiguous)),
            (&["-5"], Err(Ambiguous)),
            (&["0x5"], Err(Ambiguous)),
            (&["5 5"], Err(Ambiguous)),
            (&["99999999999999999999"], Err(Ambiguous)),
        ] {
            let lines: Vec<_> = said.iter().map(|value| ("content-length", *value)).collect();
            let mut headers = headers(&lines);
            let outcome = say_length_once(&mut headers).map(|()| {
                assert!(headers.get_all(CONTENT_LENGTH).iter().count() <= 1, "{said:?}");
                headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned())
            });
            assert_eq!(outcome, wanted.map(|length| length.map(str::to_owned)), "{said:?}");
        }
    }

    #[test]
    fn an_answer_has_one_framing() {
        for (status, lines, wanted) in [
            (200, &[("transfer-encoding", "chunked")][..], Ok(())),
            (200, &[("transfer-encoding", "Chunked")], Ok(())),
            (200, &[("content-length", "5")], Ok(())),
            (200, &[("transfer-encoding", "chunked"), ("content-length", "5")], Err(Ambiguous)),
            (200, &[("transfer-encoding", "gzip, chunked")], Err(Ambiguous)),
            (200, &[("transfer-encoding", "identity")], Err(Ambiguous)),
            (200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(Ambiguous)),
            (200, &[("content-length", "5"), ("content-length", "6")], Err(Ambiguous)),
            (304, &[("content-length", "5"), ("content-length", "6")], Err(Ambiguous)),
            (204, &[("transfer-encoding", "chunked"), ("content-length", "5")], Err(Ambiguous)),
        ] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.headers_mut() = headers(lines);
            assert_eq!(check_answer(&mut response), wanted, "{status} {lines:?}");
        }
    }

    #[test]
    fn what_has_no_body_has_no_length_unless_it_is_that_of_another_answer() {
        for (status, wanted) in [(101, false), (204, false), (304, true)] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.headers_mut() = headers(&[("content-length", "5")]);
            assert_eq!(check_answer(&mut response), Ok(()));
            assert_eq!(response.headers().contains_key(CONTENT_LENGTH), wanted, "{status}");
        }
    }
}
