// SPDX-License-Identifier: Apache-2.0
//! The pages, as they are embedded in the binary.

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// What a binary says that was built without the pages.
const WITHOUT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Hubble</title>\
    <h1>Hubble</h1><p>This binary was built without the pages of the user interface. Build them with \
    <code>npm --prefix ui ci &amp;&amp; npm --prefix ui run build</code>, and the binary again.</p></html>";

/// Names with a hash of the content in them, which never change.
const HASHED: &str = "assets/";

/// The page or file at a path.
pub(crate) fn serve(path: &str) -> Response {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    let found = EMBEDDED.iter().find(|(name, _)| *name == path);
    let (content, kind) = match found {
        Some((name, content)) => (*content, content_type(name)),
        None if path == "index.html" => (WITHOUT.as_bytes(), content_type(path)),
        None => return (StatusCode::NOT_FOUND, "there is no such page\n").into_response(),
    };
    let cache = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)], content).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
