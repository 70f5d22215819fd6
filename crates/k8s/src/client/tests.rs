// SPDX-License-Identifier: Apache-2.0
use super::{Client, ClientConfig, Error, Limits};
use hyper::{Request, Response};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::client::Body;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

fn kubeconfig(server: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
         clusters:\n- name: k\n  cluster: {{server: {server:?}}}\nusers:\n- name: u\n  user: {{}}\n"
    )
    .unwrap();
    file
}

/// A server that answers every request with an empty list.
async fn answering() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let body = r#"{"apiVersion":"v1","kind":"NamespaceList","metadata":{"resourceVersion":"1"},"items":[]}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

/// An address at which nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_away() {
    let file = kubeconfig("https://127.0.0.1:1");
    let config = ClientConfig {
        kubeconfig: Some(file.path().to_owned()),
        api_servers: vec![dead().await, dead().await, answering().await],
        ..ClientConfig::default()
    };
    let client = Client::connect(&config).await.unwrap();
    let list = client.all::<Namespace>().list(&Default::default()).await.unwrap();
    assert!(list.items.is_empty());
}

#[tokio::test]
async fn when_all_servers_are_away_the_request_fails_instead_of_going_round() {
    let file = kubeconfig("https://127.0.0.1:1");
    let config = ClientConfig {
        kubeconfig: Some(file.path().to_owned()),
        api_servers: vec![dead().await, dead().await],
        ..ClientConfig::default()
    };
    let client = Client::connect(&config).await.unwrap();
    client.all::<Namespace>().list(&Default::default()).await.unwrap_err();
}

#[tokio::test]
async fn the_kubeconfigs_server_is_used_when_no_list_is_given() {
    let file = kubeconfig(&answering().await);
    let config = ClientConfig { kubeconfig: Some(file.path().to_owned()), ..ClientConfig::default() };
    let client = Client::connect(&config).await.unwrap();
    client.all::<Namespace>().list(&Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_missing_kubeconfig_is_named_in_the_error() {
    let config = ClientConfig { kubeconfig: Some("/nonexistent/kubeconfig".into()), ..ClientConfig::default() };
    let error = Client::connect(&config).await.unwrap_err();
    assert!(matches!(&error, Error::Kubeconfig { path, .. } if path == "/nonexistent/kubeconfig"), "{error}");
}

#[tokio::test]
async fn a_server_address_that_is_no_url_is_named_in_the_error() {
    let file = kubeconfig("https://127.0.0.1:1");
    let config = ClientConfig {
        kubeconfig: Some(file.path().to_owned()),
        api_servers: vec!["10.0.0.1:6443".into(), "not a url".into()],
        ..ClientConfig::default()
    };
    let error = Client::connect(&config).await.unwrap_err();
    assert_eq!(error.to_string(), "k8s-api-server-urls: \"not a url\" is not a URL");
}

/// When each of so many requests reaches the server that are made at once by clones of a client.
async fn arrivals(config: &ClientConfig, requests: usize) -> Vec<Duration> {
    let (begun, arrived) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let noted = arrived.clone();
    let server = tower::service_fn(move |_: Request<Body>| {
        noted.lock().push(begun.elapsed());
        async { Ok::<_, Infallible>(Response::new(Body::from(br#"{"metadata":{"name":"x"}}"#.to_vec()))) }
    });
    let client = Client::over(kube::Client::new(server, "default"), config);
    let ask = |client: Client| async move { client.all::<Namespace>().get("x").await.map(drop) };
    futures::future::try_join_all((0..requests).map(|_| ask(client.clone()))).await.unwrap();
    let arrived = arrived.lock();
    // Timers have milliseconds.
    arrived
        .iter()
        .map(|at| Duration::from_millis(u64::try_from((*at + Duration::from_millis(1)).as_millis() / 10 * 10).unwrap()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn all_clones_of_a_client_share_its_rate_and_its_burst() {
    let config = ClientConfig { qps: Some(10.0), burst: Some(3), ..ClientConfig::default() };
    let at = arrivals(&config, 13).await;
    let wanted: Vec<_> = (0..13_u64).map(|nth| Duration::from_millis(100 * nth.saturating_sub(2))).collect();
    assert_eq!(at, wanted);
}

#[tokio::test(start_paused = true)]
async fn without_a_rate_there_is_no_limit() {
    for qps in [None, Some(0.0)] {
        let config = ClientConfig { qps, burst: Some(1), ..ClientConfig::default() };
        assert_eq!(arrivals(&config, 50).await, vec![Duration::ZERO; 50]);
    }
}

/// A body of which a part comes now and then, without an end.
struct Drip(tokio::time::Interval);

impl hyper::body::Body for Drip {
    type Data = hyper::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
        self.0.poll_tick(cx).map(|_| Some(Ok(hyper::body::Frame::data(" ".into()))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_comes_in_parts_without_an_end_ends() {
    let pause = Limits::default().pause - Duration::from_secs(1);
    let server = tower::service_fn(move |_: Request<Body>| async move {
        Ok::<_, Infallible>(Response::new(Drip(tokio::time::interval(pause))))
    });
    let client = Client::over(kube::Client::new(server, "default"), &ClientConfig::default());
    let begun = Instant::now();
    let error = client.all::<Namespace>().get("x").await.unwrap_err();
    assert!(super::chain(&error).contains("has not ended within 300s"), "{}", super::chain(&error));
    assert_eq!(begun.elapsed().as_secs(), Limits::default().whole.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_turn_for_a_limited_time() {
    let config = ClientConfig { qps: Some(0.001), burst: Some(1), ..ClientConfig::default() };
    let server = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::from(br#"{"metadata":{"name":"x"}}"#.to_vec())))
    });
    let client = Client::over(kube::Client::new(server, "default"), &config);
    client.all::<Namespace>().get("x").await.unwrap();
    let begun = Instant::now();
    let error = client.all::<Namespace>().get("x").await.unwrap_err();
    assert!(super::chain(&error).contains("too many requests before it"), "{}", super::chain(&error));
    assert_eq!(begun.elapsed().as_secs(), Limits::default().queue.as_secs());
}

#[tokio::test(start_paused = true)]
async fn writes_that_nobody_answers_are_known_by_their_kind() {
    let server = tower::service_fn(|request: Request<Body>| async move {
        if *request.method() != hyper::Method::GET {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(Body::from(br#"{"metadata":{"name":"x"}}"#.to_vec())))
    });
    let client = Client::over(kube::Client::new(server, "default"), &ClientConfig::default());
    for _ in 0..3 {
        client.all::<Namespace>().create(&PostParams::default(), &Namespace::default()).await.unwrap_err();
        client.all::<Namespace>().get("x").await.unwrap();
    }
    let failing = client.failing_writes(Duration::from_secs(180));
    assert!(failing.len() == 1 && failing[0].resource == "namespaces", "{failing:?}");
    assert_eq!(client.clone().failing_writes(Duration::from_secs(600)), []);
}

/// A server that takes requests and answers none of them. It counts them.
async fn silent() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (format!("http://{address}"), count)
}

#[tokio::test]
async fn what_may_have_been_done_is_not_asked_of_the_next_server() {
    let ((first, asked_first), (second, asked_second)) = (silent().await, silent().await);
    let file = kubeconfig("https://127.0.0.1:1");
    let config = ClientConfig {
        kubeconfig: Some(file.path().to_owned()),
        api_servers: vec![first, second, answering().await],
        limits: Limits { answer: Duration::from_millis(300), ..Limits::default() },
        ..ClientConfig::default()
    };
    let client = Client::connect(&config).await.unwrap();
    let namespaces = client.all::<Namespace>();
    namespaces.create(&PostParams::default(), &Namespace::default()).await.unwrap_err();
    assert_eq!((asked_first.load(Ordering::SeqCst), asked_second.load(Ordering::SeqCst)), (1, 0));
    // Looking does no harm. It begins with the next one.
    namespaces.list(&Default::default()).await.unwrap();
    assert_eq!((asked_first.load(Ordering::SeqCst), asked_second.load(Ordering::SeqCst)), (1, 1));
}
