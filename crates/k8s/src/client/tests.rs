// SPDX-License-Identifier: Apache-2.0
use super::{Client, ClientConfig, Error};
use k8s_openapi::api::core::v1::Namespace;
use std::io::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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
