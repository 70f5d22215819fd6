// SPDX-License-Identifier: Apache-2.0
//! Time-outs, retries, mirrors, persistence, CORS, limits.

use crate::backend::Backend;
use crate::client::{connect, get, read_until, status, text, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use http_body_util::Full;
use l7::{Cors, Filters, HttpForward, Origin, Persistence, Retry, RetryBudget, RouteAction};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn retry(attempts: u32) -> Retry {
    Retry { attempts, statuses: vec![503], backoff: Duration::from_millis(1), budget: RetryBudget::default() }
}

/// A backend that answers 503 to the first requests.
async fn failing(first: usize) -> Backend {
    let asked = Arc::new(AtomicUsize::new(0));
    Backend::answering(move |request| {
        let asked = Arc::clone(&asked);
        async move {
            use http_body_util::BodyExt;
            let failed = asked.fetch_add(1, SeqCst) < first;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = http::Response::new(Full::from(body));
            *response.status_mut() = http::StatusCode::from_u16(if failed { 503 } else { 200 }).unwrap();
            response
        }
    })
    .await
}

fn with(address: SocketAddr, backend: &Backend, forward: HttpForward) -> Vec<l7::Object> {
    let mut objects = simple(address, backend.address);
    objects[1] = route("r", "/", RouteAction::Forward(forward)).into();
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_does_not_answer_is_504_and_the_listener_goes_on() {
    let silent = Backend::silent().await;
    let timeout = Some(Duration::from_millis(200));
    for forward in [HttpForward { timeout, ..forward("c") }, HttpForward { attempt_timeout: timeout, ..forward("c") }] {
        let address = free();
        let world = World::of(with(address, &silent, forward)).await;
        assert_eq!(status(&get(address, "h", "/", "").await), 504);
        world
            .metric_is(&format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"timeout\"}} 1"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_the_rule_are_tried_again_with_the_body_as_often_as_it_says() {
    let (address, backend) = (free(), failing(2).await);
    let _world =
        World::of(with(address, &backend, HttpForward { retry: Some(Box::new(retry(2))), ..forward("c") })).await;
    let request = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody";
    let answer = text(address, request).await;
    assert!(status(&answer) == 200 && answer.ends_with("body"), "{answer}");
    assert_eq!(backend.requests(), 3);

    let (address, backend) = (free(), failing(3).await);
    let _world =
        World::of(with(address, &backend, HttpForward { retry: Some(Box::new(retry(2))), ..forward("c") })).await;
    assert_eq!(status(&text(address, request).await), 503);
    assert_eq!(backend.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_budget_there_is_one_attempt() {
    let (address, backend) = (free(), failing(usize::MAX).await);
    let mut rule = retry(5);
    rule.budget = RetryBudget { percent: 0, least: 3, ..RetryBudget::default() };
    let _world = World::of(with(address, &backend, HttpForward { retry: Some(Box::new(rule)), ..forward("c") })).await;
    for _ in 0..4 {
        assert_eq!(status(&get(address, "h", "/", "").await), 503);
    }
    assert_eq!(backend.requests(), 4 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_reached_is_left_for_another() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    objects[3] = endpoints("c", &[free(), backend.address, free()]).into();
    let _world = World::of(objects).await;
    for _ in 0..20 {
        let answer =
            text(address, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx").await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_its_backend_has_closed_costs_no_request() {
    let address = free();
    // It serves one request per connection, and says so only by closing.
    let backend = Backend::raw(|mut stream, _| async move {
        use tokio::io::AsyncReadExt;
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let _world = World::of(simple(address, backend.address)).await;
    let mut client = connect(address).await;
    for turn in 0..200 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\nok").await;
        assert_eq!(status(&answer), 200, "request {turn}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_back_to_its_backend() {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    for held_by in [
        Persistence::Cookie { name: "held".into(), lifetime: Some(Duration::from_secs(60)) },
        Persistence::Header("x-held".into()),
    ] {
        let address = free();
        let backends = vec![to("a", 1), to("b", 1)];
        let forward = HttpForward { backends, persistence: Some(Box::new(held_by.clone())), ..HttpForward::default() };
        let all = |a: &[SocketAddr]| -> Vec<l7::Object> {
            vec![
                http(address).into(),
                route("r", "/", RouteAction::Forward(forward.clone())).into(),
                cluster("a").into(),
                cluster("b").into(),
                endpoints("a", a).into(),
                endpoints("b", &[b.address]).into(),
            ]
        };
        let mut world = World::of(all(&[a.address])).await;
        let (mut first, mut held) = (String::new(), String::new());
        // Until it is `a` that was met.
        while value(&first, "backend") != Some("a") {
            first = get(address, "h", "/", "").await;
            held = match &held_by {
                Persistence::Cookie { .. } => {
                    let cookie = value(&first, "set-cookie").unwrap();
                    assert!(cookie.contains("Max-Age=60") && cookie.contains("HttpOnly"), "{cookie}");
                    format!("cookie: other=1; {}\r\n", cookie.split(';').next().unwrap())
                }
                Persistence::Header(name) => format!("{name}: {}\r\n", value(&first, name).unwrap()),
            };
            assert!(!held.contains("127.0.0.1"), "no address is told");
        }
        for _ in 0..20 {
            let again = get(address, "h", "/", &held).await;
            assert_eq!((value(&again, "backend"), value(&again, "set-cookie")), (Some("a"), None));
        }
        // Its endpoint is gone: another serves, and what was given is replaced.
        world.publish(all(&[])).await;
        let mut moved = get(address, "h", "/", &held).await;
        while status(&moved) == 503 {
            moved = get(address, "h", "/", &held).await;
        }
        assert_eq!(value(&moved, "backend"), Some("b"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_which_origins_may() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut rule = route("r", "/", RouteAction::Forward(forward("c")));
    let cors = Some(Cors {
        origins: vec![Origin::Of("https://shop.example".into()), Origin::Of("https://*.good.example".into())],
        methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["*".into()],
        expose_headers: vec!["x-backend".into()],
        credentials: true,
        max_age: Some(Duration::from_secs(600)),
    });
    rule.filters = Filters { cors, ..Filters::default() }.into();
    objects[1] = rule.into();
    let _world = World::of(objects).await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nhost: h\r\norigin: {origin}\r\naccess-control-request-method: PUT\r\n\
             access-control-request-headers: x-one\r\nconnection: close\r\n\r\n"
        )
    };
    for good in ["https://shop.example", "https://a.b.good.example"] {
        let answer = text(address, &preflight(good)).await;
        assert_eq!(value(&answer, "access-control-allow-origin"), Some(good), "{answer}");
        assert_eq!(value(&answer, "access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(value(&answer, "access-control-allow-headers"), Some("x-one"));
        assert_eq!(value(&answer, "access-control-allow-credentials"), Some("true"));
        assert_eq!(value(&answer, "access-control-max-age"), Some("600"));
        assert_eq!(value(&answer, "access-control-expose-headers"), Some("x-backend"));
        let answer = get(address, "h", "/", &format!("origin: {good}\r\n")).await;
        assert_eq!(value(&answer, "access-control-allow-origin"), Some(good));
        assert_eq!(value(&answer, "access-control-expose-headers"), Some("x-backend"));
    }
    assert_eq!(backend.requests(), 2, "preflight requests are answered here");
    for bad in
        ["https://evil.example", "http://shop.example", "https://good.example", "https://x@y.good.example", "null"]
    {
        let answer = text(address, &preflight(bad)).await;
        assert_eq!(value(&answer, "access-control-allow-origin"), None, "{bad}");
        assert_eq!(value(&answer, "access-control-allow-methods"), None, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_have_their_status_and_are_counted() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut listener = http(address);
    listener.limits.body_bytes = Some(10);
    listener.limits.headers = 20;
    listener.limits.header_bytes = 8192;
    listener.limits.requests_per_connection = Some(2);
    objects[0] = listener.into();
    let world = World::of(objects).await;
    let post = |framing: &str| format!("POST / HTTP/1.1\r\nhost: h\r\n{framing}");
    let chunked = post("transfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n");
    let many = (0..30).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    for (request, wanted, reason) in [
        (post("content-length: 11\r\n\r\n12345678901"), 413, Some("body-too-large")),
        (chunked, 413, None),
        (post("content-length: 10\r\nconnection: close\r\n\r\n1234567890"), 200, None),
        (format!("GET / HTTP/1.1\r\nhost: h\r\n{many}\r\n"), 431, Some("headers-too-large")),
        (format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "y".repeat(9000)), 431, None),
    ] {
        let mut client = connect(address).await;
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await;
        assert_eq!(status(&answer), wanted, "{request}: {answer}");
        if let Some(reason) = reason {
            world
                .metric_is(&format!(
                    "cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"{reason}\"}} 1"
                ))
                .await;
        }
    }
    let answers = text(address, &"GET / HTTP/1.1\r\nhost: h\r\n\r\n".repeat(5)).await;
    assert_eq!(answers.matches("asked:").count(), 2, "a connection ends with its last request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_gets_no_more_than_it_may() {
    let (address, silent) = (free(), Backend::silent().await);
    let mut objects = simple(address, silent.address);
    let mut limited = cluster("c");
    limited.limits.requests = 1;
    objects[2] = limited.into();
    let world = World::of(objects).await;
    let mut waiting = connect(address).await;
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    tokio::time::timeout(DEADLINE, async {
        while silent.connections.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(status(&get(address, "h", "/", "").await), 503);
    world.metric_is("cilium_proxy_clusters_overloaded_total 1").await;
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_a_line_of_the_access_log() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    get(address, "shop", "/p?q=secret", "x-request-id: id-1\r\n").await;
    let path = world.folder.path().join("access.log");
    let line = tokio::time::timeout(DEADLINE, async {
        loop {
            let log = std::fs::read_to_string(&path).unwrap();
            if let Some((line, _)) = log.split_once('\n') {
                break line.to_owned();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (key, wanted) in [
        ("method", "GET".into()),
        ("host", "shop".into()),
        ("path", "/p".into()),
        ("protocol", "HTTP/1.1".into()),
        ("request_id", "id-1".into()),
        ("status", 200.into()),
        ("route", "all".into()),
        ("cluster", "c".into()),
        ("endpoint", backend.address.to_string().into()),
        ("endpoint_identity", 7.into()),
        ("attempts", serde_json::Value::from(1)),
    ] {
        assert_eq!(line[key], wanted, "{key} in {line}");
    }
    assert_eq!(line.get("reason"), None, "{line}");
}
