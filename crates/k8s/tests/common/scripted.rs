// SPDX-License-Identifier: Apache-2.0
//! An API server that answers by a script, and that may leave a request without an answer.

use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Nothing at all.
    Silence,
    /// The head, and then nothing.
    Head,
    /// The head and a part of the body, and then nothing.
    Part(String),
    /// A status and the whole body.
    Whole(u16, String),
}

/// Limits that a test can wait for.
pub(crate) const LIMITS: k8s::Limits = k8s::Limits {
    queue: Duration::from_secs(10),
    connect: Duration::from_millis(500),
    answer: Duration::from_millis(300),
    pause: Duration::from_millis(300),
    whole: Duration::from_secs(10),
    watch_pause: Duration::from_millis(300),
    silence: Duration::from_millis(300),
    probe: Duration::from_millis(300),
};

/// The body of a list without objects.
pub(crate) fn empty_list() -> String {
    r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"1"},"items":[]}"#.to_owned()
}

/// Serves what the script says for each request line ("GET /path HTTP/1.1"). Gives the port.
pub(crate) async fn serve(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move { connection(stream, &*script).await });
        }
    });
    port
}

async fn connection(mut stream: TcpStream, script: &(impl Fn(&str) -> Answer + Send + Sync)) {
    let mut buffer = vec![0; 65536];
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let answer = script(request.lines().next().unwrap_or_default());
        let head = |status: u16, length: usize| {
            format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
        };
        let text = match answer {
            Answer::Silence => String::new(),
            Answer::Head => head(200, 1000),
            Answer::Part(body) => head(200, body.len() + 1000) + &body,
            Answer::Whole(status, body) => head(status, body.len()) + &body,
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// How to connect to a port of the loopback address without TLS.
pub(crate) fn config(port: u16, folder: &tempfile::TempDir) -> k8s::ClientConfig {
    let file = folder.path().join(format!("{port}.kubeconfig"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&file, text).unwrap();
    k8s::ClientConfig { kubeconfig: Some(file), limits: LIMITS, ..k8s::ClientConfig::default() }
}
