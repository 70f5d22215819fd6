// SPDX-License-Identifier: Apache-2.0
//! A real kube-apiserver with its etcd on the loopback address, for one test. Up in about three seconds, gone with the test.

use k8s::kube::core::Request;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// For how long anything may take that ought to happen at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Who may come: token, name, id, groups.
const TOKENS: &str = "\
admin,admin,admin,system:masters
operator,system:serviceaccount:kube-system:cilium-operator,operator,system:serviceaccounts
";

pub(crate) struct ApiServer {
    folder: tempfile::TempDir,
    etcd_port: u16,
    port: u16,
    api: Option<Process>,
    // Dropped after the API server, which could not end without it.
    _etcd: Process,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ApiServer {
    /// Starts both and waits until the API server is ready.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port) = (ports::free(), ports::free());
        let etcd = spawn(
            folder.path(),
            "etcd",
            &[
                format!("--data-dir={}", folder.path().join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
                "--log-level=warn".to_owned(),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("accounts.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("accounts.pub"), key.public_key_pem()).unwrap();
        std::fs::write(folder.path().join("tokens.csv"), TOKENS).unwrap();
        let mut server = Self { folder, etcd_port, port: ports::free(), api: None, _etcd: etcd };
        server.resume().await;
        server
    }

    /// Starts the API server, on the port that it has had and with the data that are there.
    pub(crate) async fn resume(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=192.0.2.1".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--cert-dir={}", path("certificates")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("accounts.pub")),
            format!("--service-account-signing-key-file={}", path("accounts.key")),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        self.api = Some(spawn(self.folder.path(), "kube-apiserver", &arguments));
        let client = self.client().await;
        let log = self.folder.path().join("kube-apiserver.log");
        eventually("the API server is ready", || async {
            let request = Request::new("").get("readyz", &Default::default()).unwrap();
            let ready = client.kube().request_text(request).await;
            ready.map(drop).map_err(|error| format!("{error}; its log ends with:\n{}", log_end(&log)))
        })
        .await;
    }

    /// Kills the API server; the data stay.
    pub(crate) fn stop(&mut self) {
        self.api = None;
    }

    pub(crate) async fn client(&self) -> k8s::Client {
        self.client_through(self.port).await
    }

    /// A client for it through another port.
    pub(crate) async fn client_through(&self, port: u16) -> k8s::Client {
        k8s::Client::connect(&self.config(port, "admin")).await.unwrap()
    }

    /// How to connect to it through a port, with the token of somebody in `TOKENS`.
    pub(crate) fn config(&self, port: u16, token: &str) -> k8s::ClientConfig {
        let file = self.folder.path().join(format!("{port}-{token}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n"
        );
        std::fs::write(&file, text).unwrap();
        k8s::ClientConfig { kubeconfig: Some(file), ..k8s::ClientConfig::default() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Makes etcd forget all versions but the present ones.
    pub(crate) async fn compact(&self) {
        let range = self.etcd("/v3/kv/range", r#"{"key":"AA=="}"#).await;
        let revision = range.split("\"revision\":\"").nth(1).and_then(|t| t.split('"').next()).unwrap_or_default();
        let answer = self.etcd("/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "compaction at {revision:?}: {answer}");
    }

    async fn etcd(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.etcd_port)).await.unwrap();
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn spawn(folder: &Path, name: &str, arguments: &[String]) -> Process {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/kube/bin").join(name);
    assert!(program.exists(), "{} is missing: build it with `make kube`", program.display());
    let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process(command.spawn().unwrap())
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Waits until something holds; fails with what it said last.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < until, "not true within {DEADLINE:?}: {what}: {last}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}
