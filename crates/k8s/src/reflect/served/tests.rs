// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::gateway::TlsRouteSpec;
use hyper::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// An API server that serves TLSRoutes in some versions, each with the routes that it has.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Serving>>);

#[derive(Default)]
struct Serving {
    versions: Vec<&'static str>,
    routes: Vec<&'static str>,
    broken: bool,
}

impl Server {
    fn set(&self, change: impl FnOnce(&mut Serving)) {
        change(&mut self.0.lock());
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request.uri()).await }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    async fn answer(&self, uri: &hyper::Uri) -> Result<Response<Body>, std::io::Error> {
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            std::future::pending::<()>().await;
        }
        let serving = self.0.lock();
        let version = serving.versions.iter().find(|version| uri.path().contains(&format!("/{version}")));
        let (status, body) = match version {
            _ if serving.broken => (500, failure(500)),
            None => (404, failure(404)),
            Some(_) if uri.path().ends_with("tlsroutes") => (200, list(&serving.routes)),
            Some(_) => (200, resources()),
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        Ok(Response::builder().status(status).body(body).unwrap())
    }
}

fn failure(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "", "message": "", "code": code})
}

fn resources() -> Value {
    let route = json!({"name": "tlsroutes", "singularName": "", "namespaced": true, "kind": "TLSRoute", "verbs": []});
    json!({"kind": "APIResourceList", "groupVersion": "x", "resources": [route]})
}

fn list(names: &[&str]) -> Value {
    let items: Vec<_> = names.iter().map(|name| json!({"metadata": {"name": name, "resourceVersion": "1"}})).collect();
    json!({"kind": "TLSRouteList", "apiVersion": "x", "metadata": {"resourceVersion": "1"}, "items": items})
}

#[derive(Clone, Debug, PartialEq)]
struct Name(String);

impl statedb::Row for Name {
    type Key = String;
    fn key(&self) -> String {
        self.0.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_follows_what_is_served_and_a_server_that_fails_takes_nothing_away() {
    let server = Server::default();
    let (writer, reader) = statedb::table::<Name>("names");
    let ingest = |route: &Object<TlsRouteSpec>| route.metadata.name.clone().map(Name);
    let task = tokio::spawn(reflect_served(server.client(), writer, ingest, Watches::default()));
    let after_a_while = || async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        let rows = reader.snapshot();
        (rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>(), rows.initialized())
    };
    let rows = |names: &[&str]| (names.iter().map(ToString::to_string).collect::<Vec<_>>(), true);

    assert_eq!(after_a_while().await, rows(&[]), "what is not served is known to be empty");
    server.set(|serving| (serving.versions, serving.routes) = (vec!["v1alpha2"], vec!["a"]));
    assert_eq!(after_a_while().await, rows(&["a"]));
    server.set(|serving| serving.broken = true);
    assert_eq!(after_a_while().await, rows(&["a"]));
    server.set(|serving| {
        (serving.broken, serving.versions, serving.routes) = (false, vec!["v1"], vec!["a", "b"]);
    });
    assert_eq!(after_a_while().await, rows(&["a", "b"]), "the version was replaced by another");
    server.set(|serving| serving.versions = vec![]);
    assert_eq!(after_a_while().await, rows(&[]), "the definition was deleted, and its objects with it");
    task.abort();
}
