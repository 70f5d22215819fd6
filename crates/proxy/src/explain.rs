// SPDX-License-Identifier: Apache-2.0
//! The socket at which the node's administrator asks where a request would go, and what is in force.

mod lists;
mod search;

use crate::admin::Admin;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use l7::explain::Question;
use serde::Serialize;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::ready;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// How long a caller has, and so how long the next one waits.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

impl Admin {
    /// Answers one caller after the other. A process that follows takes the socket's name over.
    pub(crate) async fn explain(self, path: PathBuf) {
        let listener = loop {
            match listen(&path) {
                Ok(listener) => break listener,
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot serve the explain socket"),
            }
            sleep(RETRY).await;
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(timeout(PATIENCE, self.tell(stream)).await),
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    async fn tell(&self, stream: UnixStream) -> hyper::Result<()> {
        let service = service_fn(|request| ready(Ok::<_, Infallible>(self.explained(&request))));
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await
    }

    fn explained(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.serving.load(Relaxed) {
            return answer(StatusCode::SERVICE_UNAVAILABLE, &"waiting for a configuration");
        }
        let serving = self.shared.serving.load();
        match request.uri().path() {
            "/v1/explain" => {
                let question = Question::from_query(request.uri().query().unwrap_or_default());
                match search::explain(&serving, &question) {
                    Ok(explanation) => answer(StatusCode::OK, &explanation),
                    Err(fault) => answer(StatusCode::BAD_REQUEST, &fault),
                }
            }
            "/v1/listeners" => answer(StatusCode::OK, &lists::listeners(&serving)),
            "/v1/routes" => answer(StatusCode::OK, &lists::routes(&serving)),
            "/v1/clusters" => answer(StatusCode::OK, &lists::clusters(&serving)),
            _ => answer(StatusCode::NOT_FOUND, &"there is no such list"),
        }
    }
}

fn answer(status: StatusCode, what: &impl Serialize) -> Response<Full<Bytes>> {
    let (status, text) = match serde_json::to_vec(what) {
        Ok(text) => (status, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A socket of that name for nobody but its owner, from the moment on at which it has the name.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}
