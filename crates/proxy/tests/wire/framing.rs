// SPDX-License-Identifier: Apache-2.0
//! Messages that two readers would end at different places, from clients and from backends.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, read_until, status, text, value};
use crate::http2::open;
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use http::Request;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A POST with these lines and what follows them, and whether its connection ends with the answer.
async fn post(address: SocketAddr, lines: &str) -> String {
    let mut client = connect(address).await;
    client.write_all(format!("POST / HTTP/1.1\r\n{lines}").as_bytes()).await.unwrap();
    read_all(&mut client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_two_readers_would_see_differently_is_refused_and_its_connection_ends() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    for (lines, wanted) in [
        ("host: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", 400),
        ("host: h\r\ncontent-length: 1, 2\r\n\r\nxx", 400),
        ("host: h\r\ncontent-length: +1\r\n\r\nx", 400),
        ("host: h\r\ncontent-length: -1\r\n\r\n", 400),
        ("host: h\r\ncontent-length: 1x\r\n\r\n", 400),
        ("host: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("host: h\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("host: h\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n", 501),
        ("host: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("host: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        ("host: h\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("host: h\r\n folded: 1\r\n\r\n", 400),
        ("host: h\r\nx: 1\r\n folded\r\n\r\n", 400),
        ("host: h\r\nx : 1\r\n\r\n", 400),
        ("host: h\r\ncontent-length : 1\r\n\r\nx", 400),
        ("host: h\r\nx: a\rcontent-length: 1\r\n\r\nx", 400),
        ("host: h\r\nx: a\r\r\n\r\n", 400),
        ("host: h\r\nx\0y: 1\r\n\r\n", 400),
        ("host: h\r\nx: a\0b\r\n\r\n", 400),
        ("host: h\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        ("host: h\r\ntransfer-encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n", 400),
    ] {
        let answer = post(address, lines).await;
        assert_eq!(status(&answer), wanted, "{lines:?}: {answer}");
    }
    for lines in ["host: h\r\nhost: i\r\n\r\n", "x: 1\r\n\r\n", "host: h/../i\r\n\r\n", "host: a@h\r\n\r\n"] {
        let answer = post(address, &format!("connection: close\r\n{lines}")).await;
        assert_eq!(status(&answer), 400, "{lines:?}: {answer}");
    }
    // A body that cannot be read may have brought its head to the backend before that is known.
    assert!(backend.requests() <= 2, "{}", backend.requests());
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_be_read_in_one_way_is_framed_anew() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    // Both framings: the coding counts, the length is gone, and nothing follows on the connection (RFC 9112, 6.3).
    for both in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 6",
    ] {
        let answer =
            post(address, &format!("host: h\r\n{both}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"))
                .await;
        assert_eq!((status(&answer), value(&answer, "got-content-length")), (200, None), "{answer}");
        assert!(!answer.contains("/smuggled"), "{answer}");
    }
    // A line ends with a line feed, whatever is before it (RFC 9112, 2.2): the backend sees where.
    let answer = text(address, "GET / HTTP/1.1\r\nhost: h\r\nx: a\ny: b\r\nconnection: close\r\n\r\n").await;
    assert_eq!((value(&answer, "got-x"), value(&answer, "got-y")), (Some("a"), Some("b")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_in_http2_are_refused_and_two_that_are_equal_are_one() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, requests| {
        let tell = tell.clone();
        async move {
            tell.send(read_until(&mut stream, "\r\n\r\n").await).unwrap();
            requests.fetch_add(1, SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    })
    .await;
    let address = free();
    let _world = World::of(simple(address, backend.address)).await;
    for (method, lengths) in [("GET", ["1", "2"]), ("POST", ["1", "2"]), ("POST", ["1", "1"]), ("GET", ["1", "1"])] {
        let mut sender = open(address).await.ready().await.unwrap();
        let mut request = Request::builder().method(method).uri("http://h/");
        for length in lengths {
            request = request.header("content-length", length);
        }
        let (response, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        let _ = body.send_data("x".into(), true);
        // The stream may be reset at once.
        let answered = timeout(DEADLINE, response).await.unwrap();
        if lengths[0] != lengths[1] {
            assert!(answered.map_or_else(|error| error.is_reset(), |response| response.status() == 400), "{method}");
            continue;
        }
        assert_eq!(answered.unwrap().status(), 200);
        let head = timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
        assert_eq!(
            (head.matches("content-length").count(), head.contains("content-length: 1\r\n")),
            (1, true),
            "{head}"
        );
    }
    assert_eq!(backend.requests(), 2);
}

/// A backend that answers every request of a connection with these bytes, and tells when its client has left.
async fn answering(bytes: &'static [u8]) -> (Backend, mpsc::UnboundedReceiver<()>) {
    let (left, told) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, requests| {
        let left = left.clone();
        async move {
            while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                requests.fetch_add(1, SeqCst);
                if stream.write_all(bytes).await.is_err() {
                    break;
                }
            }
            let _ = left.send(());
        }
    })
    .await;
    (backend, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_two_readers_would_see_differently_is_502_and_its_connection_ends() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ] {
        let (address, (backend, mut left)) = (free(), answering(bytes).await);
        let world = World::of(simple(address, backend.address)).await;
        let shown = String::from_utf8_lossy(bytes);
        let mut client = connect(address).await;
        for turn in 1..=2 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
            let answer = read_until(&mut client, "one way").await;
            assert_eq!((status(&answer), backend.requests()), (502, turn), "{shown}: {answer}");
            timeout(DEADLINE, left.recv()).await.expect("the connection ends");
        }
        let line = format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"garbled\"}} 2");
        world.metric_is(&line).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_its_length_twice_says_it_once() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
    ] {
        let (address, (backend, _left)) = (free(), answering(bytes).await);
        let _world = World::of(simple(address, backend.address)).await;
        let answer = get(address, "h", "/", "").await;
        let lengths: Vec<&str> = answer.lines().filter(|line| line.starts_with("content-length")).collect();
        assert_eq!((status(&answer), lengths), (200, vec!["content-length: 5"]), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_nothing_is_nobodys() {
    let evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let without_body =
        b"HTTP/1.1 204 No Content\r\ncontent-length: 43\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for bytes in [&evil[..], without_body] {
        let (address, (backend, _left)) = (free(), answering(bytes).await);
        let _world = World::of(simple(address, backend.address)).await;
        let mut client = connect(address).await;
        for _ in 0..20 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
            let answer = read_until(&mut client, "\r\n\r\n").await;
            assert!(status(&answer) != 502 && !answer.contains("evil"), "{answer}");
        }
    }
}
