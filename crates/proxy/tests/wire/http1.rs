// SPDX-License-Identifier: Apache-2.0
//! Requests in HTTP/1.1.

use crate::backend::Backend;
use crate::client::{connect, get, read_until, status, text, value};
use crate::objects::*;
use crate::world::{World, free};
use http_body_util::Full;
use l7::{Filters, HeaderChanges, HttpForward, PathChange, Rare, Redirect, Rewrite, RouteAction, Target};
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_its_backend_and_the_answer_its_client() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let body = "x".repeat(100_000);
    let request = format!(
        "POST /p?q=1 HTTP/1.1\r\nhost: Shop.Example:80\r\nx-one: 1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = text(address, &request).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(value(&answer, "asked"), Some("POST /p?q=1 HTTP/1.1"));
    assert_eq!(value(&answer, "got-host"), Some("Shop.Example:80"));
    assert_eq!(value(&answer, "got-x-one"), Some("1"));
    assert_eq!(value(&answer, "length"), Some("100000"));
    assert_eq!(value(&answer, "x-backend"), Some("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_to_the_backend_serves_many_requests() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let mut client = connect(address).await;
    for _ in 0..50 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_until(&mut client, "length: 0").await), 200);
    }
    assert_eq!((backend.requests(), backend.connections.load(SeqCst)), (50, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_at_once_are_answered_in_turn() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let answers =
        text(address, "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .await;
    let first = answers.find("asked: GET /1").unwrap();
    assert!(answers.find("asked: GET /2").unwrap() > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_learn_of_the_client_and_not_what_it_invents() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let lies = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nforwarded: for=6.6.6.6\r\n\
                x-envoy-external-address: 6.6.6.6\r\nx-request-id: mine\r\n";
    let answer = get(address, "h", "/", lies).await;
    assert_eq!(value(&answer, "got-x-forwarded-for"), Some("6.6.6.6, 127.0.0.1"));
    assert_eq!(value(&answer, "got-x-envoy-external-address"), Some("127.0.0.1"));
    assert_eq!(value(&answer, "got-x-forwarded-proto"), Some("http"));
    assert_eq!(value(&answer, "got-x-forwarded-host"), Some("h"));
    assert_eq!(value(&answer, "got-x-forwarded-port"), Some(&*address.port().to_string()));
    assert_eq!(value(&answer, "got-forwarded"), None);
    assert_eq!(value(&answer, "got-x-request-id"), Some("mine"));
    let other = get(address, "h", "/", "").await;
    assert_eq!(value(&other, "got-x-request-id").unwrap().len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_that_are_trusted_are_believed() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut site = site();
    site.trusted_hops = 2;
    objects[0] = listener(address, l7::Serve::Http(site)).into();
    let _world = World::of(objects).await;
    let more = "x-forwarded-for: 9.9.9.9, 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\nx-forwarded-proto: https\r\n";
    let answer = get(address, "h", "/", more).await;
    assert_eq!(value(&answer, "got-x-envoy-external-address"), Some("1.1.1.1"));
    assert_eq!(value(&answer, "got-x-forwarded-for"), Some("9.9.9.9, 1.1.1.1, 2.2.2.2, 127.0.0.1"));
    assert_eq!(value(&answer, "got-x-forwarded-proto"), Some("https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_get_requests_by_weight() {
    let (address, many, few, none) =
        (free(), Backend::echo("many").await, Backend::echo("few").await, Backend::echo("none").await);
    let backends = vec![to("many", 90), to("few", 10), to("none", 0)];
    let objects = vec![
        http(address).into(),
        route("r", "/", RouteAction::Forward(HttpForward { backends, ..HttpForward::default() })).into(),
        cluster("many").into(),
        cluster("few").into(),
        cluster("none").into(),
        endpoints("many", &[many.address]).into(),
        endpoints("few", &[few.address]).into(),
        endpoints("none", &[none.address]).into(),
    ];
    let _world = World::of(objects).await;
    let mut client = connect(address).await;
    for _ in 0..1000 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        read_until(&mut client, "length: 0").await;
    }
    // Six standard deviations around 100.
    assert!((43..=157).contains(&few.requests()), "{}", few.requests());
    assert_eq!((many.requests() + few.requests(), none.requests()), (1000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_has_its_status_and_its_reason() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let refused = |status| l7::Backend { target: Target::Status(status), ..to("", 1) };
    let forward_to = |backends| RouteAction::Forward(HttpForward { backends, ..HttpForward::default() });
    let mut broken = cluster("broken");
    broken.refuse = Some(502);
    let objects = vec![
        http(address).into(),
        route("ok", "/ok", RouteAction::Forward(forward("c"))).into(),
        route("invalid", "/invalid", forward_to(vec![refused(500)])).into(),
        route("weightless", "/weightless", forward_to(vec![to("c", 0)])).into(),
        route("nowhere", "/nowhere", RouteAction::Forward(forward("nowhere"))).into(),
        route("empty", "/empty", RouteAction::Forward(forward("empty"))).into(),
        route("dead", "/dead", RouteAction::Forward(forward("dead"))).into(),
        route("broken", "/broken", RouteAction::Forward(forward("broken"))).into(),
        route("fixed", "/fixed", RouteAction::Respond(403)).into(),
        cluster("c").into(),
        endpoints("c", &[backend.address]).into(),
        cluster("empty").into(),
        cluster("dead").into(),
        endpoints("dead", &[free()]).into(),
        broken.into(),
        endpoints("broken", &[backend.address]).into(),
    ];
    let _world = World::of(objects).await;
    for (path, wanted) in [
        ("/ok", 200),
        ("/none", 404),
        ("/invalid", 500),
        ("/weightless", 500),
        ("/nowhere", 500),
        ("/empty", 503),
        ("/dead", 503),
        ("/broken", 502),
        ("/fixed", 403),
    ] {
        let answer = get(address, "h", path, "").await;
        assert_eq!(status(&answer), wanted, "{path}: {answer}");
    }
    let grpc = get(address, "h", "/empty", "content-type: application/grpc\r\n").await;
    assert_eq!((status(&grpc), value(&grpc, "grpc-status")), (200, Some("14")));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_say_what_gateway_api_wants() {
    let address = free();
    let port = address.port();
    let redirect =
        |name: &str, redirect: Redirect| route(name, &format!("/{name}"), RouteAction::Redirect(Box::new(redirect)));
    let base = Redirect { status: 302, ..Redirect::default() };
    let objects = vec![
        http(address).into(),
        redirect("host", Redirect { host: Some("other.example".into()), ..base.clone() }).into(),
        redirect("https", Redirect { scheme: Some("https".into()), status: 301, ..base.clone() }).into(),
        redirect("port", Redirect { port: Some(8080), ..base.clone() }).into(),
        redirect("prefix", Redirect { path: Some(PathChange::Prefix("/new".into())), status: 308, ..base.clone() })
            .into(),
        redirect("full", Redirect { path: Some(PathChange::Full("/all".into())), ..base.clone() }).into(),
    ];
    let _world = World::of(objects).await;
    for (path, code, wanted) in [
        ("/host/x?y=1", 302, format!("http://other.example:{port}/host/x?y=1")),
        ("/https", 301, "https://h/https".into()),
        ("/port", 302, "http://h:8080/port".into()),
        ("/prefix/x", 308, format!("http://h:{port}/new/x")),
        ("/full/x?y", 302, format!("http://h:{port}/all?y")),
    ] {
        let answer = get(address, "h", path, "").await;
        assert_eq!((status(&answer), value(&answer, "location")), (code, Some(&*wanted)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_backends_are_told_of_the_port_that_clients_know() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut known = http(address);
    known.port = Some(80);
    objects[0] = known.into();
    let redirect = Redirect { path: Some(PathChange::Full("/new".into())), status: 302, ..Redirect::default() };
    objects.push(route("moved", "/moved", RouteAction::Redirect(Box::new(redirect))).into());
    let _world = World::of(objects).await;
    for (host, wanted) in [("h", "http://h/new"), ("h:8080", "http://h/new"), ("[::1]:8080", "http://[::1]/new")] {
        assert_eq!(value(&get(address, host, "/moved", "").await, "location"), Some(wanted));
    }
    assert_eq!(value(&get(address, "h", "/", "").await, "got-x-forwarded-port"), Some("80"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_paths_in_place_of_a_prefix_that_of_the_backend_counts() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut forwarded = forward("c");
    let prefix = |text: &str| -> Rare<Filters> {
        let rewrite = Rewrite { path: Some(PathChange::Prefix(text.into())), host: None };
        Filters { rewrite, ..Filters::default() }.into()
    };
    forwarded.backends[0].filters = prefix("/x");
    let mut both = route("both", "/a", RouteAction::Forward(forwarded));
    both.filters = prefix("/longer");
    objects.push(both.into());
    let _world = World::of(objects).await;
    assert_eq!(value(&get(address, "h", "/a/b?c", "").await, "asked"), Some("GET /x/b?c HTTP/1.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_host_and_path_are_changed_on_both_sides() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let changes = |side: &str| HeaderChanges {
        remove: vec!["x-gone".into(), "x-backend".into()],
        set: vec![pair("x-set", side)],
        add: vec![pair("x-add", side)],
    };
    let mut rule = route("r", "/old", RouteAction::Forward(forward("c")));
    let rewrite = Rewrite { host: Some("inner.example".into()), path: Some(PathChange::Prefix("/new".into())) };
    let (request, response) = (changes("request"), changes("response"));
    rule.filters = Filters { request, response, rewrite, cors: None }.into();
    objects[1] = rule.into();
    let _world = World::of(objects).await;
    let more = "x-gone: 1\r\nx-set: client\r\nx-add: client\r\n";
    let answer = get(address, "h", "/old/x?q", more).await;
    assert_eq!(value(&answer, "asked"), Some("GET /new/x?q HTTP/1.1"));
    assert_eq!(value(&answer, "got-host"), Some("inner.example"));
    assert_eq!((value(&answer, "got-x-gone"), value(&answer, "got-x-set")), (None, Some("request")));
    assert!(answer.contains("got-x-add: client\ngot-x-add: request"), "{answer}");
    assert_eq!((value(&answer, "x-set"), value(&answer, "x-add")), (Some("response"), Some("response")));
    assert_eq!(value(&answer, "x-backend"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_keeps_its_length() {
    let address = free();
    let backend = Backend::answering(|_| async { http::Response::new(Full::from("x".repeat(1234))) }).await;
    let _world = World::of(simple(address, backend.address)).await;
    let answer = text(address, "HEAD / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert_eq!((status(&answer), value(&answer, "content-length")), (200, Some("1234")));
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_passes_both_ways_and_is_not_kept() {
    const SIZE: usize = 64 << 20;
    let address = free();
    let backend = Backend::answering(|request| async move {
        use http_body_util::BodyExt;
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        http::Response::new(Full::from(vec![b'y'; length]))
    })
    .await;
    let _world = World::of(simple(address, backend.address)).await;
    let (mut reader, mut writer) = connect(address).await.into_split();
    let write = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..SIZE >> 16 {
            writer.write_all(&[b'x'; 1 << 16]).await.unwrap();
        }
        writer
    });
    let answer = crate::client::read_all(&mut reader).await;
    assert_eq!(value(&answer, "content-length"), Some(&*SIZE.to_string()));
    assert_eq!(answer.len() - answer.find("\r\n\r\n").unwrap() - 4, SIZE);
    write.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_says_404_until_its_route_is_there_and_again_when_it_is_gone() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let all = simple(address, backend.address);
    let mut world = World::of(vec![all[0].clone()]).await;
    let mut client = connect(address).await;
    for (objects, wanted) in [(None, 404), (Some(all.clone()), 200), (Some(vec![all[0].clone()]), 404)] {
        if let Some(objects) = objects {
            world.publish(objects).await;
        }
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let end = if wanted == 200 { "length: 0" } else { "for this request" };
        assert_eq!(status(&read_until(&mut client, end).await), wanted);
    }
    world.publish(Vec::new()).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the socket is closed");
}
