// SPDX-License-Identifier: Apache-2.0
//! `curl`: fetches a URL, for containers without any other program. It knows the flags used to look at metrics and
//! health, and rejects the others rather than guess; there is no TLS.

use anyhow::{Context, Result, bail};
use clap::{Args, Command, FromArgMatches};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;

#[derive(Args, Debug)]
struct Curl {
    /// Show nothing but what was fetched.
    #[arg(long, short)]
    silent: bool,
    /// Say what went wrong all the same.
    #[arg(long, short = 'S')]
    show_error: bool,
    /// Fail when the server answers with an error.
    #[arg(long, short)]
    fail: bool,
    /// Show the headers of the answer too.
    #[arg(long, short)]
    include: bool,
    /// Headers to send, as NAME: VALUE.
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// File to write to instead of standard output.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Seconds after which to give up.
    #[arg(long, short, default_value = "30")]
    max_time: f64,
    /// http://host[:port]/path; the scheme may be left out.
    url: String,
}

/// What clap knows of it.
pub(crate) fn command() -> Command {
    Curl::augment_args(Command::new("curl").about("Fetch a URL"))
}

/// Runs the command.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let curl = Curl::from_arg_matches(&command().try_get_matches_from(args)?)?;
    let patience = Duration::try_from_secs_f64(curl.max_time).context("--max-time")?;
    let fetched = tokio::time::timeout(patience, fetch(&curl.url, &curl.headers)).await;
    let answer = fetched.with_context(|| format!("{}: no answer in time", curl.url))??;
    if curl.fail && (answer.status().is_client_error() || answer.status().is_server_error()) {
        bail!("{}: {}", curl.url, answer.status());
    }
    let mut out: Box<dyn Write> = match &curl.output {
        Some(path) => Box::new(std::fs::File::create(path).with_context(|| path.display().to_string())?),
        None => Box::new(std::io::stdout()),
    };
    if curl.include {
        write!(out, "{:?} {}\r\n", answer.version(), answer.status())?;
        for (name, value) in answer.headers() {
            write!(out, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()))?;
        }
        write!(out, "\r\n")?;
    }
    out.write_all(answer.body())?;
    Ok(out.flush()?)
}

/// The server's response, successful or not.
pub(crate) async fn fetch(url: &str, headers: &[String]) -> Result<Response<Bytes>> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = full.parse().with_context(|| url.to_owned())?;
    if uri.scheme_str() != Some("http") {
        bail!("{url}: only http is known");
    }
    let authority = uri.authority().with_context(|| format!("{url}: want http://host[:port]/path"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("connect to {host}:{port}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the request, which reports its errors.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(HOST, authority.as_str()).header("user-agent", "curl");
    for header in headers {
        let (name, value) = header.split_once(':').with_context(|| format!("-H {header:?}: want NAME: VALUE"))?;
        request = request.header(name.trim(), value.trim());
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await.with_context(|| url.to_owned())?;
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with this and returns the request.
    async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{}/metrics?a=b", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (url, served)
    }

    #[tokio::test]
    async fn a_url_is_fetched_with_or_without_its_scheme_into_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out").display().to_string();
        for scheme in ["", "http://"] {
            let (url, served) = server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nup\n").await;
            let url = format!("{scheme}{url}");
            let args = ["curl", "-s", "-H", "brief: true", "-o", &file, &url].map(OsString::from);
            run(args).await.unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "up\n");
            let request = served.await.unwrap();
            assert!(
                request.starts_with("GET /metrics?a=b HTTP/1.1\r\n") && request.contains("brief: true\r\n"),
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_an_error_fails_if_it_is_to() {
        for (flag, fails) in [("-s", false), ("-f", true)] {
            let (url, _served) = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
            let outcome = run(["curl", flag, &url].map(OsString::from)).await;
            assert_eq!(outcome.is_err(), fails, "{flag}: {outcome:?}");
        }
        for url in ["https://localhost/", "/metrics"] {
            let error = run(["curl", url].map(OsString::from)).await.unwrap_err();
            assert!(format!("{error:#}").contains(url), "{error:#}");
        }
    }
}
