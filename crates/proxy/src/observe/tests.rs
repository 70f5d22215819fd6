// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use http::HeaderMap;

fn exchange(url: usize) -> Box<Exchange> {
    Box::new(Exchange { url: "x".repeat(url), ..Exchange::default() })
}

fn map(headers: &[(&'static str, &[u8])]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap())).collect()
}

#[test]
fn secrets_do_not_leave_the_process() {
    let shown = headers(&map(&[
        ("authorization", b"Bearer abc"),
        ("proxy-authorization", b"Basic abc"),
        ("cookie", b"session=abc"),
        ("x-api-key", b"abc"),
        ("x-csrf-token", b"abc"),
        ("x-amz-security-token", b"abc"),
        ("x-auth-key", b"abc"),
        ("x-access-key", b"abc"),
        ("x-passwd", b"abc"),
        ("x-session-id", b"abc"),
        ("x-goog-iap-jwt-assertion", b"abc"),
        ("accept", b"text/html"),
    ]));
    assert_eq!(shown.len(), 12);
    for (name, value) in shown {
        assert_eq!(value, if name == "accept" { "text/html" } else { REDACTED }, "{name}");
    }
}

#[test]
fn what_clients_write_has_a_length_and_is_text() {
    assert_eq!(cut("ab", 2), "ab");
    assert_eq!(cut("abcde", 4), "a…");
    // Not in the middle of a character.
    assert_eq!(cut("éééé", 7), "éé…");
    assert_eq!(cut("ééééé", 6), "é…");
    let long = vec![b'v'; 10_000];
    let shown = headers(&map(&[("a", b"\xff\xfe"), ("b", &long)]));
    assert_eq!(shown[0].1, "\u{fffd}\u{fffd}");
    assert!(shown[1].1.len() <= HEADER_VALUE && shown[1].1.ends_with("v…"));
    let many: HeaderMap =
        (0..500).map(|n| (format!("x-{n}").parse().unwrap(), HeaderValue::from_static("0123456789"))).collect();
    let bytes: usize = headers(&many).iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= HEADERS && bytes > HEADERS - 32, "{bytes}");
    let request = Request::builder().uri(format!("http://h/{}", "p".repeat(60_000))).body(()).unwrap();
    assert!(url("http", &request).len() <= URL);
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_counted_exactly() {
    let counted = Counter::default();
    let (observer, mut queue) = Observer::new(counted.clone());
    for _ in 0..WAITING + 5 {
        observer.end(exchange(0));
    }
    assert_eq!(counted.get(), 5);
    let (mut told, mut lost) = (0, 0);
    while told < WAITING {
        let next = observer.next(&mut queue).await;
        assert!(next.exchanges.len() <= BATCH);
        (told, lost) = (told + next.exchanges.len(), lost + next.lost);
    }
    assert_eq!((told, lost, observer.bytes.load(Relaxed)), (WAITING, 5, 0));
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_and_has_room_again_once_it_is_read() {
    let counted = Counter::default();
    let (observer, mut queue) = Observer::new(counted.clone());
    let fit = WAITING_BYTES / exchange(1 << 20).size();
    for _ in 0..fit + 3 {
        observer.end(exchange(1 << 20));
    }
    assert_eq!(counted.get(), 3);
    let next = observer.next(&mut queue).await;
    assert_eq!((next.exchanges.len(), next.lost), (fit, 3));
    observer.end(exchange(1 << 20));
    assert_eq!(counted.get(), 3);
    observer.forget(&mut queue);
    assert_eq!((observer.bytes.load(Relaxed), observer.take_lost()), (0, 0));
}
