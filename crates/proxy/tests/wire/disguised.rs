// SPDX-License-Identifier: Apache-2.0
//! Headers and trailers that backends would take for what the proxy says.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, read_until, status, value};
use crate::http2::open;
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use l7::{BackendProtocol, Filters, HeaderChanges, PathMatch, RouteAction, RouteMatch, ValueMatch};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_header_has_no_other_name_for_programs_that_fold_names() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut rule = route("all", "/", RouteAction::Forward(forward("c")));
    let set = vec![("x-user".to_owned(), "nobody".to_owned())];
    let request = HeaderChanges { set, remove: vec!["x-role".to_owned()], ..HeaderChanges::default() };
    rule.filters = Filters { request, ..Filters::default() }.into();
    objects[1] = rule.into();
    let _world = World::of(objects).await;
    let lies = "X_Forwarded_For: 6.6.6.6\r\nX_Forwarded-Proto: https\r\nX_Request_Id: 1\r\nX.Forwarded.Host: evil\r\n\
                X_Envoy_External_Address: 6.6.6.6\r\nContent_Length: 100\r\nTransfer_Encoding: chunked\r\n\
                X_User: admin\r\nX_Role: admin\r\nX_Tenant: a\r\n";
    let answer = get(address, "h", "/", lies).await;
    let odd: Vec<&str> = answer.lines().filter(|line| line.starts_with("got-") && line.contains(['_', '.'])).collect();
    assert_eq!(odd, ["got-x_tenant: a", "got-x-forwarded-for: 127.0.0.1", "got-x-envoy-external-address: 127.0.0.1"]);
    assert_eq!(value(&answer, "got-x-user"), Some("nobody"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_proxies_know_comes_from_those_that_are_trusted() {
    let backend = Backend::echo("a").await;
    let words = "proxy: http://evil\r\nx-envoy-original-path: /admin\r\nx-envoy-internal: true\r\n\
                 x-envoy-external-address: 6.6.6.6\r\nx-forwarded-client-cert: By=admin\r\nx-real-ip: 6.6.6.6\r\n\
                 x-forwarded-user: admin\r\nx-original-url: /admin\r\nx-rewrite-url: /admin\r\nx-forwarded-scheme: https\r\n\
                 x_real_ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nx-tenant: a\r\n";
    // A proxy that is trusted says for whom it asks; who does not is none.
    let chain = format!("{words}x-forwarded-for: 192.0.2.1\r\n");
    for (trusted_hops, words, trusted) in [(0, words, false), (0, &chain, false), (1, words, false), (1, &chain, true)]
    {
        let address = free();
        let mut objects = simple(address, backend.address);
        objects[0] = listener(address, l7::Serve::Http(l7::HttpServer { trusted_hops, ..site() })).into();
        let _world = World::of(objects).await;
        let answer = get(address, "h", "/", words).await;
        for (name, told) in [
            ("x-envoy-original-path", "/admin"),
            ("x-envoy-internal", "true"),
            ("x-real-ip", "6.6.6.6"),
            ("x-forwarded-user", "admin"),
            ("x-forwarded-scheme", "https"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("forwarded", "for=6.6.6.6"),
        ] {
            assert_eq!(value(&answer, &format!("got-{name}")), trusted.then_some(told), "{name}: {answer}");
        }
        for never in ["x-forwarded-client-cert", "x_real_ip"] {
            assert_eq!(value(&answer, &format!("got-{never}")), None, "{answer}");
        }
        let outside = if trusted { "192.0.2.1" } else { "127.0.0.1" };
        assert_eq!(value(&answer, "got-x-envoy-external-address"), Some(outside), "{answer}");
        assert_eq!((value(&answer, "got-proxy"), value(&answer, "got-x-tenant")), (None, Some("a")), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_go_by_what_is_told_of_clients_and_not_by_what_they_say() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    for (name, value, status) in
        [("x-envoy-internal", "true", 401), ("x-forwarded-proto", "https", 402), ("x-forwarded-proto", "http", 403)]
    {
        let path = PathMatch::Prefix(format!("/{status}"));
        let asked = vec![(name.to_owned(), ValueMatch::Exact(value.to_owned()))];
        let matches = [RouteMatch { headers: asked, ..RouteMatch::on(path) }];
        let action = RouteAction::Respond(status);
        objects.push(l7::Route::plain(status.to_string(), l7::Attachment::any("t"), matches, action).into());
    }
    let _world = World::of(objects).await;
    let lies = "x-envoy-internal: true\r\nx-forwarded-proto: https\r\n";
    for (path, wanted) in [("/401", 200), ("/402", 200), ("/403", 403)] {
        assert_eq!(status(&get(address, "h", path, lies).await), wanted, "{path}");
    }
}

/// Trailers with these names.
fn trailers(names: &[&'static str]) -> HeaderMap {
    names.iter().map(|name| (http::HeaderName::from_static(name), "1".parse().unwrap())).collect()
}

fn names(trailers: Option<&HeaderMap>) -> Vec<String> {
    let mut names: Vec<String> = trailers.iter().flat_map(|all| all.keys()).map(|name| name.to_string()).collect();
    names.sort_unstable();
    names
}

/// A backend in HTTP/2 that tells which trailers it gets, and answers with these.
async fn with_trailers(answer: &'static [&'static str]) -> (Backend, mpsc::UnboundedReceiver<Vec<String>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |stream, _| {
        let tell = tell.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while body.data().await.is_some() {}
                    tell.send(names(body.trailers().await.unwrap().as_ref())).unwrap();
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    send.send_data(Bytes::from_static(b"body"), false).unwrap();
                    send.send_trailers(trailers(answer)).unwrap();
                });
            }
        }
    })
    .await;
    (backend, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_http2_carry_no_field_of_a_head_either_way() {
    const HEAD: [&str; 6] =
        ["authorization", "content-length", "cookie", "host", "x-forwarded-for", "x_forwarded_proto"];
    const OWN: [&str; 4] = ["grpc-message", "grpc-status", "grpc-status-details-bin", "x-sum"];
    for (answer, back) in [
        (&["grpc-status", "grpc-status-details-bin", "set-cookie", "content-type", "x-forwarded-for"][..], 2),
        (&["set-cookie", "content-length"], 0),
    ] {
        let (address, (backend, mut told)) = (free(), with_trailers(answer).await);
        let mut objects = simple(address, backend.address);
        objects[2] = l7::Cluster { protocol: BackendProtocol::Http2, ..cluster("c") }.into();
        let _world = World::of(objects).await;
        for (sent, wanted) in [([&HEAD[..], &OWN].concat(), OWN.to_vec()), (HEAD.to_vec(), Vec::new())] {
            let mut sender = open(address).await.ready().await.unwrap();
            let request = Request::post("http://h/").body(()).unwrap();
            let (response, mut send) = sender.send_request(request, false).unwrap();
            send.send_data(Bytes::from_static(b"body"), false).unwrap();
            send.send_trailers(trailers(&sent)).unwrap();
            let response = timeout(DEADLINE, response).await.unwrap().unwrap();
            assert_eq!(timeout(DEADLINE, told.recv()).await.unwrap().unwrap(), wanted, "of {sent:?}");
            let mut body = response.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "body");
            while body.data().await.is_some() {}
            let got = names(timeout(DEADLINE, body.trailers()).await.unwrap().unwrap().as_ref());
            assert_eq!(got, answer[..back], "of {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_http1_carry_no_field_of_a_head_either_way() {
    const NAMES: &str = "trailer: x-sum, cookie, x-forwarded-for, connection, authorization, if-match\r\n";
    const TRAILERS: &str = "x-sum: 1\r\ncookie: a=1\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\nauthorization: x\r\nif-match: 1\r\n";
    let address = free();
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            let mut asked = read_until(&mut stream, "\r\n0\r\n").await;
            if !asked.ends_with("\r\n\r\n") {
                asked += &read_until(&mut stream, "\r\n\r\n").await;
            }
            tell.send(asked.rsplit_once("\r\n0\r\n").unwrap().1.to_owned()).unwrap();
            let answer =
                format!("HTTP/1.1 200 OK\r\n{NAMES}transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{TRAILERS}\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let _world = World::of(simple(address, backend.address)).await;
    let mut client = connect(address).await;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: close, te\r\n{NAMES}transfer-encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n{TRAILERS}\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = read_all(&mut client).await;
    assert_eq!(timeout(DEADLINE, told.recv()).await.unwrap().unwrap(), "x-sum: 1\r\n\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{answer}");
}
