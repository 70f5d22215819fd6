// SPDX-License-Identifier: Apache-2.0
//! What every daemon sets up first: logging, and stopping on signals.

use crate::Connections;
use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::config::{LogLevel, LogOption, Value};
use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries that would log failed requests a second time.
const INFO: &str = "info,kube=warn,kube_client=off";
const DEBUG: &str = "debug,h2=info,hyper=info,hyper_util=info,tower=info,kube=info,kube_client=off,rustls=info";

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Delay between attempts to listen.
const PACE: Duration = Duration::from_secs(5);
/// For the head of a request, and how long that may be.
const HEAD: Duration = Duration::from_secs(10);
const BUFFER: usize = 16 * 1024;

/// Writes logs to standard error. `RUST_LOG` chooses what is written; without it the options do, and without these `debug`.
pub fn init_logs(debug: bool, options: &[LogOption]) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(debug, options).into());
    let json = options.iter().rev().find_map(|option| match option {
        LogOption::Json(json) => Some(*json),
        LogOption::Level(_) => None,
    });
    // Whoever has set it up already keeps it.
    let _ = dispatch(filter, json == Some(true), io::stderr().is_terminal(), io::stderr).try_init();
}

/// What is written.
fn filter(debug: bool, options: &[LogOption]) -> &'static str {
    let level = options.iter().rev().find_map(|option| match option {
        LogOption::Level(level) => Some(*level),
        LogOption::Json(_) => None,
    });
    match level.unwrap_or(if debug { LogLevel::Debug } else { LogLevel::Info }) {
        LogLevel::Debug => DEBUG,
        LogLevel::Info => INFO,
        LogLevel::Warn => "warn,kube_client=off",
        LogLevel::Error => "error,kube_client=off",
    }
}

/// What writes lines of text or of JSON.
fn dispatch<W>(filter: EnvFilter, json: bool, colours: bool, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if json { logs.json().flatten_event(true).finish().into() } else { logs.with_ansi(colours).finish().into() }
}

/// An option as a command line has it.
///
/// # Errors
///
/// There is no such option.
pub fn log_option(text: &str) -> Result<LogOption, String> {
    LogOption::parse(text).ok_or_else(|| format!("it is not {}", LogOption::form().want))
}

/// Cancels the token on SIGTERM and SIGINT.
///
/// # Errors
///
/// Signal handlers cannot be installed.
pub fn stop_on_signal(token: CancellationToken) -> io::Result<()> {
    let [mut terminate, mut interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down");
        token.cancel();
    });
    Ok(())
}

/// Serves metrics at `/metrics` for ever, rendered on each request; retries while the port is taken.
pub async fn serve_metrics(address: SocketAddr, render: impl Fn() -> String + Clone + Send + Sync + 'static) {
    serve_at(address, metrics_page(render)).await;
}

/// Serves pages with metrics for ever; retries while the port is taken.
pub async fn serve_at(address: SocketAddr, router: Router) {
    loop {
        match listen(address).await {
            Ok(listener) => match serve_pages(listener, router.clone()).await {},
            Err(error) => tracing::warn!(%address, %error, "metrics are not served"),
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Serves pages for probes and for Prometheus, for ever. Whoever reaches the port may connect as well: strangers that say nothing or
/// take nothing cost the process neither its descriptors nor its memory.
pub async fn serve_pages(listener: TcpListener, router: Router) -> Infallible {
    Connections::of_pages().accept(listener, |stream| serve_connection(stream, router.clone())).await
}

/// Metrics at `/metrics`, rendered on each request.
pub fn metrics_page(render: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    negotiated_page(move |_| render())
}

/// The same, by a function that is told whether the client names OpenMetrics among what it takes: others may not know all of it.
pub fn negotiated_page(render: impl Fn(bool) -> String + Clone + Send + Sync + 'static) -> Router {
    let answer = move |headers: HeaderMap| async move {
        let page = render(takes_openmetrics(&headers));
        ([(CONTENT_TYPE, OPENMETRICS)], page)
    };
    Router::new().route("/metrics", get(answer))
}

fn takes_openmetrics(headers: &HeaderMap) -> bool {
    let named = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let kinds = named.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.map(str::trim).any(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
}

/// Answers the requests of one connection. A client that takes too long to ask loses it.
pub async fn serve_connection(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    if let Err(error) = server.serve_connection(TokioIo::new(io), TowerToHyperService::new(router)).await {
        tracing::debug!(%error, "a connection has ended");
    }
}

/// Listens; on all addresses of both families, or only of IPv4 where there is no IPv6.
///
/// # Errors
///
/// The address is taken, or not of this machine.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Lines that are written where the test can see them.
    struct Lines(std::sync::mpsc::Sender<Vec<u8>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of a message of each level within a span.
    fn written(json: bool, level: &str) -> Vec<String> {
        let (sender, written) = std::sync::mpsc::channel();
        let logs = dispatch(level.into(), json, false, move || Lines(sender.clone()));
        tracing::dispatcher::with_default(&logs, || {
            let _span = tracing::error_span!("task", subsys = "policy").entered();
            tracing::warn!(pod = "shop/web", "not \"attached\"");
            tracing::info!("calm");
        });
        let bytes: Vec<u8> = written.try_iter().flatten().collect();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_text_or_each_a_json_object() {
        let json = written(true, "info");
        assert_eq!(json.len(), 2, "{json:?}");
        let first = json.first().unwrap();
        // This crate has no parser of JSON.
        for part in [
            r#""level":"WARN""#,
            r#""message":"not \"attached\"""#,
            r#""pod":"shop/web""#,
            r#""subsys":"policy""#,
            r#""timestamp":""#,
        ] {
            assert!(first.contains(part), "{part} in {first}");
        }
        assert!(first.starts_with('{') && first.ends_with('}'));
        let text = written(false, "warn");
        assert_eq!(text.len(), 1, "{text:?}");
        let line = text.first().unwrap();
        assert!(line.contains("WARN task{subsys=\"policy\"}: not \"attached\" pod=\"shop/web\""), "{line}");
    }

    #[test]
    fn the_last_level_wins_over_debug() {
        let (warn, error) = (LogOption::Level(LogLevel::Warn), LogOption::Level(LogLevel::Error));
        assert_eq!([filter(false, &[]), filter(true, &[])], [INFO, DEBUG]);
        assert!(filter(true, &[warn]).starts_with("warn"));
        assert!(filter(true, &[warn, error, LogOption::Json(true)]).starts_with("error"));
        assert_eq!(filter(false, &[LogOption::Level(LogLevel::Debug)]), DEBUG);
        assert_eq!(filter(true, &[LogOption::Level(LogLevel::Info)]), INFO);
        assert_eq!(log_option("format=json"), Ok(LogOption::Json(true)));
        assert!(log_option("format=xml").unwrap_err().contains("format=json"));
    }
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn strangers_that_say_nothing_keep_nobody_from_the_page() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let _serving = tokio::spawn(serve_pages(listener, metrics_page(|| "up 1\n".to_owned())));
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // The oldest make room.
        let mut byte = [0];
        let first = silent.first_mut().unwrap().read(&mut byte);
        assert!(matches!(timeout(DEADLINE, first).await.unwrap(), Ok(0) | Err(_)));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("up 1\n"), "{answer}");
    }

    #[test]
    fn openmetrics_is_taken_by_who_names_it() {
        let takes = |accept: &[&str]| {
            let named = accept.iter().map(|value| (ACCEPT, value.parse().unwrap()));
            takes_openmetrics(&named.collect())
        };
        assert!(takes(&["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"]));
        assert!(takes(&["text/plain", "text/html , Application/OpenMetrics-Text"]));
        for other in [&["*/*"][..], &["text/plain;version=0.0.4"], &[], &["application/openmetrics-text-2"]] {
            assert!(!takes(other), "{other:?}");
        }
    }
}
