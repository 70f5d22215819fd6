// SPDX-License-Identifier: Apache-2.0
//! An API server in memory that has one Lease, and that answers some of its clients and others not.

use axum::http::{Method, Request, Response};
use k8s::kube;
use k8s::kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    /// Whose requests are answered never.
    hanging: BTreeSet<String>,
    /// Whose lists are.
    without_lists: BTreeSet<String>,
    /// Whose writes are done, and the answer is lost.
    unanswered: BTreeSet<String>,
    holders: Vec<String>,
}

impl Server {
    /// A client of that name.
    pub(crate) fn client(&self, name: &str) -> k8s::Client {
        let (server, name) = (self.clone(), name.to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, name) = (server.clone(), name.clone());
            async move { Ok::<_, Infallible>(server.serve(&name, request).await) }
        });
        kube::Client::new(service, "default").into()
    }

    pub(crate) fn hang(&self, name: &str) {
        self.0.lock().hanging.insert(name.to_owned());
    }

    pub(crate) fn withhold_lists(&self, name: &str) {
        self.0.lock().without_lists.insert(name.to_owned());
    }

    pub(crate) fn lose_answers(&self, name: &str) {
        self.0.lock().unanswered.insert(name.to_owned());
    }

    /// Whether somebody has given the Lease back.
    pub(crate) fn released(&self) -> bool {
        self.0.lock().holders.iter().any(String::is_empty)
    }

    async fn serve(&self, client: &str, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let is_list = parts.method == Method::GET && parts.uri.path().ends_with("/leases");
        let silent = {
            let state = self.0.lock();
            state.hanging.contains(client) || is_list && state.without_lists.contains(client)
        };
        if silent || parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
            std::future::pending::<()>().await;
        }
        let body = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (code, answer) = if is_list { (200, list()) } else { self.0.lock().lease(&parts.method, body) };
        if parts.method != Method::GET && self.0.lock().unanswered.contains(client) {
            std::future::pending::<()>().await;
        }
        Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap()
    }
}

fn list() -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "metadata": {"resourceVersion": "1"}, "items": []})
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": reason, "code": code});
    (code, status)
}

impl State {
    fn lease(&mut self, method: &Method, mut body: Value) -> (u16, Value) {
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::GET, None) => return status(404, "NotFound"),
            (&Method::POST, Some(_)) => return status(409, "AlreadyExists"),
            (_, Some(lease)) if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                return status(409, "Conflict");
            }
            _ => {}
        }
        self.version += 1;
        body["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.holders.push(body["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned());
        self.lease = Some(body.clone());
        (200, body)
    }
}
