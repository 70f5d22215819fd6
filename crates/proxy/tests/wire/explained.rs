// SPDX-License-Identifier: Apache-2.0
//! What the administrator is told of where requests go.

use crate::backend::Backend;
use crate::objects::{forward, route, simple};
use crate::world::{DEADLINE, World, free};
use l7::explain::{ClusterState, Explanation, ListenerState, Question, RouteState};
use l7::{Attachment, PathMatch, Precedence, RouteAction, RouteMatch, ValueMatch};
use serde::de::DeserializeOwned;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Status and body of what the socket says.
async fn said(folder: &Path, path: &str) -> (u16, String) {
    let socket = folder.join(l7::explain::ADMIN);
    let talk = async {
        // It is there a moment after the process is.
        let mut stream = loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(DEADLINE, talk).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn list<T: DeserializeOwned>(world: &World, path: &str) -> T {
    let (status, body) = said(world.folder.path(), path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn explain(world: &World, question: &Question) -> Explanation {
    list(world, &format!("/v1/explain?{}", question.to_query())).await
}

fn ask(path: &str) -> Question {
    Question { host: "Shop.Example:80".into(), path: path.into(), method: "GET".into(), ..Question::default() }
}

/// A listener with a route for everything, one for `/api` with a header, one for `/api` of a wildcard host, and a redirect.
async fn world(backend: &Backend) -> World {
    let mut objects = simple(free(), backend.address);
    let mut api = route("api", "/api", RouteAction::Forward(forward("c")));
    let precedence = Precedence { specificity: [1, 0, 0, 0, 0], ..Precedence::default() };
    let path = RouteMatch::on(PathMatch::Prefix("/api".into()));
    api.matches = [RouteMatch {
        precedence,
        method: Some("GET".into()),
        headers: vec![("x-version".into(), ValueMatch::Exact("2".into()))],
        ..path
    }]
    .into();
    let gone = l7::Redirect { scheme: None, host: Some("new.example".into()), path: None, port: None, status: 301 };
    let old = route("old", "/old", RouteAction::Redirect(Box::new(gone)));
    let mut exact = route("exact", "/api", RouteAction::Respond(500));
    exact.attachments = [Attachment { hosts: vec!["shop.example".parse().unwrap()], ..Attachment::any("t") }].into();
    Arc::make_mut(&mut exact.matches)[0].path = PathMatch::Exact("/only".into());
    objects.extend([api.into(), old.into(), exact.into()]);
    World::of(objects).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_its_route_and_others_have_a_reason() {
    let backend = Backend::echo("a").await;
    let world = world(&backend).await;
    let because = |explanation: &Explanation, route: &str| {
        let others = &explanation.listeners[0].others;
        others.iter().find(|other| other.route == route).map(|other| other.because.clone()).unwrap_or_default()
    };
    let explanation = explain(&world, &ask("/x/../api/a?b")).await;
    let taken = explanation.listeners[0].taken_by.clone().unwrap();
    assert_eq!((taken.route.as_str(), taken.path.as_str(), taken.action.as_str()), ("all", "/*", "forward"));
    assert_eq!(taken.backends[0].backend, "c");
    let endpoint = &taken.backends[0].endpoints[0];
    assert_eq!(
        (endpoint.address.clone(), endpoint.chosen, endpoint.healthy),
        (backend.address.to_string(), true, true)
    );
    assert_eq!(because(&explanation, "api"), "its header x-version is not \"2\"");
    assert_eq!(because(&explanation, "old"), "the path is another");

    let with_header = Question { headers: vec![("X-Version".into(), "2".into())], ..ask("/api") };
    let explanation = explain(&world, &with_header).await;
    assert_eq!(explanation.listeners[0].taken_by.clone().unwrap().route, "api");
    assert_eq!(because(&explanation, "all"), "api precedes it");

    let explanation = explain(&world, &ask("/old")).await;
    assert_eq!(explanation.listeners[0].taken_by.clone().unwrap().action, "redirect (301)");
    let explanation = explain(&world, &ask("/only")).await;
    assert_eq!(explanation.listeners[0].taken_by.clone().unwrap().action, "answer 500");
    assert_eq!(because(&explanation, "all"), "exact is for the host more specifically");
    let explanation = explain(&world, &Question { tls: true, ..ask("/") }).await;
    assert_eq!(explanation.listeners[0].refused.as_deref(), Some("it speaks no TLS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_is_listed_for_the_owner_alone() {
    let backend = Backend::echo("a").await;
    let world = world(&backend).await;
    let listeners: Vec<ListenerState> = list(&world, "/v1/listeners").await;
    assert_eq!(listeners.iter().map(|one| one.protocol.as_str()).collect::<Vec<_>>(), ["HTTP"]);
    let routes: Vec<RouteState> = list(&world, "/v1/routes").await;
    let named: Vec<_> = routes.iter().map(|one| (one.name.as_str(), one.action.as_str())).collect();
    let wanted = [("all", "forward to c"), ("api", "forward to c"), ("exact", "answer 500"), ("old", "redirect (301)")];
    assert_eq!(named, wanted);
    let clusters: Vec<ClusterState> = list(&world, "/v1/clusters").await;
    assert_eq!(clusters[0].endpoints[0].address, backend.address.to_string());
    let socket = world.folder.path().join(l7::explain::ADMIN);
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_none_is_refused_by_name() {
    let backend = Backend::echo("a").await;
    let world = world(&backend).await;
    for (question, wanted) in [
        (Question { host: "a@b".into(), ..ask("/") }, "the host is malformed"),
        (ask("/%zz"), "the path is malformed"),
        (Question { method: "G T".into(), ..ask("/") }, "is no method"),
        (Question { headers: vec![("a b".into(), String::new())], ..ask("/") }, "is no name of a header"),
    ] {
        let (status, body) = said(world.folder.path(), &format!("/v1/explain?{}", question.to_query())).await;
        assert!(status == 400 && body.contains(wanted), "{status} {body}");
    }
    assert_eq!(said(world.folder.path(), "/v1/nothing").await.0, 404);
}
