// SPDX-License-Identifier: Apache-2.0
//! Which server, and how to trust it.

use super::print::clean;
use super::times::duration;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use hubble::client::{SOCKET, Server, Tls};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(crate) struct Connection {
    /// Address of the server: unix:///path, host:port or tls://host:port [default: the agent's socket if it is there, else localhost:4245]
    #[arg(long, env = "HUBBLE_SERVER", global = true)]
    server: Option<String>,
    /// How long to wait for the connection.
    #[arg(long, env = "HUBBLE_TIMEOUT", global = true, default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// Use TLS, as with an address that begins with tls://.
    #[arg(long, env = "HUBBLE_TLS", global = true)]
    tls: bool,
    /// Take any certificate of the server, so that whoever is on the way can read along.
    #[arg(long, env = "HUBBLE_TLS_ALLOW_INSECURE", global = true)]
    tls_allow_insecure: bool,
    /// Files with certificates of authorities to trust [default: those of the system]
    #[arg(long, env = "HUBBLE_TLS_CA_CERT_FILES", global = true, value_delimiter = ',')]
    tls_ca_cert_files: Vec<PathBuf>,
    /// Name that the server's certificate must have.
    #[arg(long, env = "HUBBLE_TLS_SERVER_NAME", global = true)]
    tls_server_name: Option<String>,
    /// File with our certificate.
    #[arg(long, env = "HUBBLE_TLS_CLIENT_CERT_FILE", global = true)]
    tls_client_cert_file: Option<PathBuf>,
    /// File with the key of our certificate.
    #[arg(long, env = "HUBBLE_TLS_CLIENT_KEY_FILE", global = true)]
    tls_client_key_file: Option<PathBuf>,
}

impl Connection {
    /// The address that is used.
    pub(super) fn address(&self) -> String {
        let local =
            || if Path::new(SOCKET).exists() { format!("unix://{SOCKET}") } else { "localhost:4245".to_owned() };
        self.server.clone().unwrap_or_else(local)
    }

    /// The same by a port of this machine.
    pub(super) fn by_port(self, port: u16) -> Self {
        Self { server: Some(format!("localhost:{port}")), ..self }
    }

    pub(super) async fn connect(&self) -> Result<Channel> {
        let address = self.address();
        let tls = if self.tls || address.starts_with("tls://") { Some(self.tls()?) } else { None };
        Ok(Server { address, tls, timeout: Some(self.timeout), keepalive: None }.connect().await?)
    }

    /// What the server said instead of an answer.
    pub(super) fn refusal(&self, status: &Status) -> anyhow::Error {
        anyhow!("{}: {}", self.address(), clean(status.message()))
    }

    /// Passes what comes to `take`, until the server has said all, or somebody presses ^C.
    pub(super) async fn each<T>(
        &self,
        answer: Result<Response<Streaming<T>>, Status>,
        mut take: impl FnMut(&T) -> Result<()>,
    ) -> Result<()> {
        let said = |status: Status| self.refusal(&status);
        let mut stream = answer.map_err(said)?.into_inner();
        loop {
            tokio::select! {
                message = stream.message() => match message.map_err(said)? {
                    Some(message) => take(&message)?,
                    None => return Ok(()),
                },
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    fn tls(&self) -> Result<Tls> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let authorities = self.tls_ca_cert_files.iter().map(read).collect::<Result<Vec<_>>>()?.join(&b'\n');
        let identity = match (&self.tls_client_cert_file, &self.tls_client_key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => bail!("tls-client-cert-file and tls-client-key-file are needed together"),
        };
        Ok(Tls {
            authorities,
            server_name: self.tls_server_name.clone(),
            identity,
            allow_insecure: self.tls_allow_insecure,
        })
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "want a duration such as 5s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        connection: Connection,
    }

    fn parse(flags: &[&str]) -> Result<Connection, clap::Error> {
        Command::try_parse_from([&["hubble"], flags].concat()).map(|command| command.connection)
    }

    #[test]
    fn the_published_flags_say_whom_to_trust_and_who_we_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            path.display().to_string()
        };
        let authorities = format!("{},{}", file("one"), file("two"));
        let connection = parse(&[
            "--server=tls://n2:4244",
            "--tls-ca-cert-files",
            &authorities,
            "--tls-client-cert-file",
            &file("certificate"),
            "--tls-client-key-file",
            &file("key"),
            "--tls-server-name=n2.default.hubble-grpc.cilium.io",
            "--tls-allow-insecure",
        ])
        .unwrap();
        let tls = connection.tls().unwrap();
        assert_eq!(tls.authorities, b"one\ntwo");
        assert_eq!(tls.identity, Some((b"certificate".to_vec(), b"key".to_vec())));
        assert_eq!(tls.server_name.as_deref(), Some("n2.default.hubble-grpc.cilium.io"));
        assert!(tls.allow_insecure && !connection.tls);
        let plain = parse(&["--tls"]).unwrap();
        assert!(plain.tls && !plain.tls_allow_insecure && plain.tls_ca_cert_files.is_empty());
    }

    #[test]
    fn a_server_that_refuses_cannot_write_to_the_terminal() {
        let connection = parse(&["--server=localhost:4245"]).unwrap();
        let error = connection.refusal(&tonic::Status::internal("no\u{1b}[2J")).to_string();
        assert_eq!(error, "localhost:4245: no\u{fffd}[2J");
    }

    #[test]
    fn a_certificate_without_its_key_and_a_file_that_is_not_there_are_errors() {
        for half in ["--tls-client-cert-file=c", "--tls-client-key-file=k"] {
            assert!(parse(&[half]).unwrap().tls().map(drop).unwrap_err().to_string().contains("together"));
        }
        let missing = parse(&["--tls-ca-cert-files=/no/such/file"]).unwrap().tls().map(drop).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    }
}
