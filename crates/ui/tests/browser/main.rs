// SPDX-License-Identifier: Apache-2.0
//! The page in a real browser, before the real server, which is told flows over gRPC by a relay that does as it is told. The steps are in
//! `ui/browser/scripted.mjs`; here is what they are shown.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod relay;

use axum::Router;
use axum::extract::Path as Segment;
use axum::http::StatusCode;
use axum::routing::post;
use relay::{FakeRelay, Scene};
use statedb::Tasks;
use std::ffi::OsString;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Serves `POST /SCENE`, by which the browser's script tells the relay what to do.
async fn control(relay: FakeRelay) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let play = move |Segment(name): Segment<String>| async move {
        let Some(scene) = Scene::named(&name) else { return StatusCode::NOT_FOUND };
        relay.play(scene);
        StatusCode::NO_CONTENT
    };
    let router = Router::new().route("/{scene}", post(play));
    (address, AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_filters_and_explains_flows_and_stays_swift() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui");
    let relay = FakeRelay::start().await;
    let server = format!("--server={}", relay.address);
    let words = ["hubble-ui", "--listen-address=127.0.0.1:0", &server].map(OsString::from);
    let tasks = Tasks::new(CancellationToken::new());
    let address = ui::start(ui::Config::load(words).unwrap(), &tasks).await.unwrap();
    let (control, _serving) = control(relay).await;
    let mut script = Command::new("node");
    script.arg(ui.join("browser/scripted.mjs")).env("UI", format!("http://{address}")).env("CONTROL", control);
    let output = script.kill_on_drop(true).output().await.expect("node: see scripts/bootstrap");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{said}");
    assert!(output.status.success(), "{said}");
}
