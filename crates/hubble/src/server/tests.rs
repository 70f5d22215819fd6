// SPDX-License-Identifier: Apache-2.0
//! Sockets and certificates.

mod malformed;
mod metrics;
mod silent;

use super::{Times, tls};
use crate::client::{Server, Tls};
use crate::proto::observer::ServerStatusRequest;
use crate::proto::observer::observer_client::ObserverClient;
use crate::server::{TlsFile, TlsFiles};
use crate::{Config, Inputs, Outputs, fixture};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use statedb::Tasks;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const NAME: &str = "n1.default.hubble-grpc.cilium.io";
const DEADLINE: Duration = Duration::from_secs(20);
const FILES: [&str; 3] = ["server.crt", "server.key", "client-ca.crt"];

/// Signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for all nodes, as the chart makes it, and its key.
    fn sign(&self) -> (String, String) {
        self.sign_for(time::Duration::days(365))
    }

    /// One that ends so long from now.
    fn sign_for(&self, life: time::Duration) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["*.default.hubble-grpc.cilium.io".to_owned()]).unwrap();
        params.not_after = time::OffsetDateTime::now_utc() + life;
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// The whole of Hubble, with files in a folder.
struct Node {
    dir: tempfile::TempDir,
    listen: SocketAddr,
    outputs: Outputs,
    _tasks: Tasks,
}

impl Node {
    fn start(authority: Option<&Authority>) -> Self {
        Self::with(authority, true, Times::default())
    }

    fn with(authority: Option<&Authority>, tls: bool, times: Times) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, ports::free()));
        if let Some(authority) = authority {
            install(dir.path(), authority);
        }
        let [certificate, key, authorities] = FILES;
        let path = |name| dir.path().join(name).to_str().unwrap().to_owned();
        let config = Config {
            enabled: true,
            listen: Some(listen),
            socket: dir.path().join("hubble.sock"),
            disable_tls: !tls,
            tls_certificate: Some(path(certificate)),
            tls_key: Some(path(key)),
            tls_client_authorities: vec![path(authorities)],
            ..Config::default()
        };
        let tasks = Tasks::new(CancellationToken::new());
        let inputs = Inputs { node_name: "n1".to_owned(), tables: fixture::tables().tables };
        let times = Times { pace: Duration::from_millis(20), ..times };
        let outputs = crate::start_at(config, inputs, &tasks, times);
        Self { dir, listen, outputs, _tasks: tasks }
    }

    /// How a client reaches the socket.
    fn local(&self) -> Server {
        let address = format!("unix://{}", self.dir.path().join("hubble.sock").display());
        Server { address, ..Server::default() }
    }

    /// How a client reaches the network without TLS.
    fn plain(&self) -> Server {
        Server { address: self.listen.to_string(), ..Server::default() }
    }

    /// How a client goes about it that trusts one authority and has a certificate of, perhaps, another one.
    fn server(&self, trusted: &Authority, own: Option<&Authority>) -> Server {
        let identity = own.map(Authority::sign).map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes()));
        Server {
            address: format!("tls://{}", self.listen),
            tls: Some(Tls {
                authorities: trusted.pem.clone().into_bytes(),
                server_name: Some(NAME.to_owned()),
                identity,
                allow_insecure: false,
            }),
            ..Server::default()
        }
    }

    /// Waits for a problem that names all of this.
    async fn problem(&self, parts: &[&str]) {
        until("a problem", async || {
            let problems = self.outputs.status.problems();
            problems.iter().any(|problem| parts.iter().all(|part| problem.contains(part)))
        })
        .await;
    }
}

fn files(dir: &Path) -> TlsFiles {
    let options = ["hubble-tls-cert-file", "hubble-tls-key-file", "hubble-tls-client-ca-files"];
    let mut all = FILES.iter().zip(options).map(|(name, option)| TlsFile { option, path: dir.join(name) });
    let [certificate, key, authorities] = std::array::from_fn(|_| all.next().unwrap());
    TlsFiles { certificate, key, client_authorities: vec![authorities] }
}

fn install(dir: &Path, authority: &Authority) {
    let (certificate, key) = authority.sign();
    for (name, text) in FILES.iter().zip([&certificate, &key, &authority.pem]) {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = timeout(DEADLINE, async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    });
    assert!(wait.await.is_ok(), "{what}: did not come about");
}

/// Whether a request is answered.
async fn answers(server: &Server) -> bool {
    match timeout(DEADLINE, server.connect()).await.unwrap() {
        Ok(channel) => asks(channel).await,
        Err(_) => false,
    }
}

async fn asks(channel: Channel) -> bool {
    let answer = timeout(DEADLINE, ObserverClient::new(channel).server_status(ServerStatusRequest {})).await;
    answer.unwrap().is_ok()
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_served() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let node = Node::start(Some(&ours));
    let known = node.server(&ours, Some(&ours));
    until("an answer", async || answers(&known).await).await;
    let refused = node.server(&ours, None).connect().await.unwrap_err().to_string();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    assert!(!answers(&node.server(&ours, Some(&theirs))).await, "with one of another authority");
    assert!(!answers(&node.plain()).await, "in plain text");
}

#[tokio::test]
async fn a_client_believes_only_the_server_that_it_means_unless_told_otherwise() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let node = Node::start(Some(&ours));
    let mut client = node.server(&ours, Some(&ours));
    until("an answer", async || answers(&client).await).await;
    client.tls.as_mut().unwrap().server_name = Some("n1.other.hubble-grpc.cilium.io".to_owned());
    assert!(!answers(&client).await, "by another name");
    client.tls.as_mut().unwrap().server_name = None;
    assert!(!answers(&client).await, "by its address, which the certificate does not name");
    let mut client = node.server(&theirs, Some(&ours));
    assert!(!answers(&client).await, "of another authority");
    client.tls.as_mut().unwrap().allow_insecure = true;
    assert!(answers(&client).await, "any server at all");
    client.tls.as_mut().unwrap().identity = None;
    assert!(!answers(&client).await, "and still the server wants a certificate");
}

#[tokio::test]
async fn the_network_is_served_as_soon_as_there_are_certificates_and_the_socket_before() {
    let ours = Authority::new();
    let node = Node::start(None);
    let missing = node.dir.path().join("server.crt");
    node.problem(&["hubble-tls-cert-file", missing.to_str().unwrap()]).await;
    tokio::net::TcpStream::connect(node.listen).await.unwrap_err();
    until("the socket answers", async || answers(&node.local()).await).await;
    std::fs::write(node.dir.path().join("server.crt"), ours.sign().0).unwrap();
    node.problem(&["hubble-tls-key-file", "server.key"]).await;
    install(node.dir.path(), &ours);
    let known = node.server(&ours, Some(&ours));
    until("an answer", async || answers(&known).await).await;
    until("no problem", async || node.outputs.status.problems().is_empty()).await;
}

#[tokio::test]
async fn renewed_certificates_are_used_for_new_connections_and_old_ones_live_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let node = Node::start(Some(&old));
    let before = node.server(&old, Some(&old));
    until("an answer", async || answers(&before).await).await;
    let open = before.connect().await.unwrap();
    assert!(asks(open.clone()).await);
    install(node.dir.path(), &new);
    let after = node.server(&new, Some(&new));
    until("an answer with the new authority", async || answers(&after).await).await;
    assert!(!answers(&before).await, "the old authority is trusted no more");
    assert!(!answers(&node.server(&new, Some(&old))).await, "not even in a client's certificate");
    assert!(asks(open).await, "the connection of before");
    until("no problem", async || node.outputs.status.problems().is_empty()).await;
}

#[tokio::test]
async fn broken_files_are_a_problem_and_leave_what_is_served() {
    let ours = Authority::new();
    let node = Node::start(Some(&ours));
    let client = node.server(&ours, Some(&ours));
    until("an answer", async || answers(&client).await).await;
    for (file, option) in FILES.iter().zip(["cert-file", "key-file", "client-ca-files"]) {
        let path = node.dir.path().join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, "no PEM at all").unwrap();
        node.problem(&[&format!("hubble-tls-{option}"), path.to_str().unwrap(), "stay in use"]).await;
        assert!(answers(&client).await, "with a broken {file}");
        std::fs::remove_file(&path).unwrap();
        node.problem(&["cannot read", path.to_str().unwrap()]).await;
        assert!(answers(&client).await, "without {file}");
        std::fs::write(&path, whole).unwrap();
        until("no problem", async || node.outputs.status.problems().is_empty()).await;
    }
}

#[tokio::test]
async fn files_that_do_not_go_together_are_named_and_nothing_of_them_is_printed() {
    let ours = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), &ours);
    let other = ours.sign().1;
    std::fs::write(dir.path().join("server.key"), &other).unwrap();
    let files = files(dir.path());
    let error = tls::read(&files).await.unwrap().config(&files, b"h2").unwrap_err();
    let text = format!("{error} {error:?}");
    for part in ["hubble-tls-cert-file", "hubble-tls-key-file", "server.crt", "server.key"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(other.lines().all(|line| !text.contains(line)), "{text}");
}

#[tokio::test]
async fn clients_learn_from_the_server_what_it_serves_and_that_it_is_well() {
    let node = Node::start(None);
    let socket = node.local();
    until("the socket answers", async || answers(&socket).await).await;
    let channel = socket.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for name in ["", "hubble.server.Observer", "observer.Observer", "peer.Peer"] {
        let answer = health.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{name}");
    }
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("observer.Observer".to_owned()),
    ];
    let requests = tokio_stream::iter(requests.map(ask));
    let answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().message_response.unwrap()).collect().await;
    let MessageResponse::ListServicesResponse(list) = &answers[0] else { panic!("{answers:?}") };
    let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc.health.v1.Health", "observer.Observer", "peer.Peer"]);
    assert!(matches!(&answers[1], MessageResponse::FileDescriptorResponse(_)), "{answers:?}");
}

#[tokio::test]
async fn a_certificate_that_ends_within_a_month_is_told_of_until_it_is_renewed() {
    let authority = Authority::new();
    let node = Node::start(Some(&authority));
    let replace = |life| {
        let (certificate, key) = authority.sign_for(life);
        // The key first: until both are there they do not go together, and what was read before stays.
        std::fs::write(node.dir.path().join("server.key"), key).unwrap();
        std::fs::write(node.dir.path().join("server.crt"), certificate).unwrap();
    };
    replace(time::Duration::days(29));
    let end = (time::OffsetDateTime::now_utc() + time::Duration::days(29)).date().to_string();
    node.problem(&["certificate: hubble-tls-cert-file", "server.crt", &end]).await;
    replace(time::Duration::days(31));
    until("no problem", async || node.outputs.status.problems().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_without_file_descriptors_does_not_spin() {
    let failures = futures::stream::repeat_with(|| Err::<(), _>(std::io::Error::from_raw_os_error(24)));
    let seen = super::paced(failures);
    let seen = futures::StreamExt::take_until(seen, tokio::time::sleep(Duration::from_secs(10)));
    let seen = futures::StreamExt::count(seen).await;
    assert!((50..=100).contains(&seen), "{seen} in ten seconds");
}
