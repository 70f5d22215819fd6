// SPDX-License-Identifier: Apache-2.0
//! Configuration, by flags or by the environment variables that the published chart sets.

use clap::{ArgAction, CommandFactory, Parser};
use hubble::client::{Server, Tls};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After this silence the relay is asked whether it is there, and has as long to reply.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Flows of a cluster, in a browser.
#[derive(Clone, Debug, Parser)]
#[command(name = "hubble-ui", version)]
pub struct Config {
    /// Where browsers are served.
    #[arg(long = "listen-address", env = "HUBBLE_UI_LISTEN", default_value = "[::]:8081")]
    pub listen: SocketAddr,
    /// hubble-relay, as host:port.
    #[arg(long = "server", env = "FLOWS_API_ADDR", default_value = "hubble-relay:80")]
    pub server: String,
    /// Further names that browsers may call this server by; addresses and localhost always are
    #[arg(long = "allowed-hosts", env = "HUBBLE_UI_HOSTS", value_delimiter = ',', value_name = "NAME,...")]
    pub hosts: Vec<String>,
    /// Ask the relay by TLS.
    #[arg(long, env = "TLS_TO_RELAY_ENABLED", action = ArgAction::Set, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub tls: bool,
    /// The name that the relay's certificate must have.
    #[arg(long, env = "TLS_RELAY_SERVER_NAME", default_value = "ui.hubble-relay.cilium.io")]
    pub tls_server_name: String,
    /// Authorities that the relay must have its certificate from; those of the system if there are none.
    #[arg(long, env = "TLS_RELAY_CA_CERT_FILES", value_delimiter = ',', value_name = "FILE,...")]
    pub tls_ca_cert_files: Vec<PathBuf>,
    /// Certificate to show to the relay.
    #[arg(long, env = "TLS_RELAY_CLIENT_CERT_FILE", requires = "tls_client_key_file")]
    pub tls_client_cert_file: Option<PathBuf>,
    /// Private key of that certificate.
    #[arg(long, env = "TLS_RELAY_CLIENT_KEY_FILE", requires = "tls_client_cert_file")]
    pub tls_client_key_file: Option<PathBuf>,
    /// Log details.
    #[arg(long, env = "HUBBLE_UI_DEBUG", action = ArgAction::SetTrue)]
    pub debug: bool,
}

/// The command line of `hubble-ui`.
#[must_use]
pub fn command() -> clap::Command {
    Config::command()
}

/// A file that TLS needs is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub(crate) struct ReadError {
    path: PathBuf,
    source: std::io::Error,
}

impl Config {
    /// From the command line (program name first), and the environment.
    ///
    /// # Errors
    ///
    /// A flag is unknown or malformed.
    pub fn load(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// How to reach the relay, with the certificates as they are now: they may be renewed at any time.
    pub(crate) async fn relay(&self) -> Result<Server, ReadError> {
        let tls = if self.tls { Some(self.certificates().await?) } else { None };
        Ok(Server { address: self.server.clone(), tls, keepalive: Some(KEEPALIVE), ..Server::default() })
    }

    async fn certificates(&self) -> Result<Tls, ReadError> {
        let mut authorities = Vec::new();
        for path in &self.tls_ca_cert_files {
            authorities.extend(read(path).await?);
            authorities.push(b'\n');
        }
        let identity = match (&self.tls_client_cert_file, &self.tls_client_key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate).await?, read(key).await?)),
            _ => None,
        };
        let server_name = Some(self.tls_server_name.clone()).filter(|name| !name.is_empty());
        Ok(Tls { authorities, server_name, identity, allow_insecure: false })
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    tokio::fs::read(path).await.map_err(|source| ReadError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_file_of_tls_there_is_no_connection_in_plain_text() {
        super::command().debug_assert();
        let words = ["hubble-ui", "--tls", "--tls-ca-cert-files=/nowhere/ca.crt"];
        let config = Config::load(words.map(OsString::from)).unwrap();
        let error = config.relay().await.unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nowhere/ca.crt: "), "{error}");
        let words = ["hubble-ui", "--tls=true", "--tls-client-cert-file=/a"];
        assert!(Config::load(words.map(OsString::from)).is_err(), "a certificate without its key");
        let plain = Config::load(["hubble-ui"].map(OsString::from)).unwrap();
        assert!(plain.relay().await.unwrap().tls.is_none());
    }

    #[tokio::test]
    async fn each_connection_reads_the_certificates_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let arguments = ["hubble-ui".into(), "--tls".into(), format!("--tls-ca-cert-files={}", file.display())];
        let config = Config::load(arguments.map(OsString::from)).unwrap();
        for text in ["one", "two"] {
            std::fs::write(&file, text).unwrap();
            let tls = config.relay().await.unwrap().tls.unwrap();
            assert_eq!(tls.authorities, format!("{text}\n").into_bytes());
            assert_eq!(tls.server_name.as_deref(), Some("ui.hubble-relay.cilium.io"));
        }
    }
}
