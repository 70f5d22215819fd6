// SPDX-License-Identifier: Apache-2.0
//! Which server, and how to trust it.

use super::times::duration;
use anyhow::{Context, Result};
use clap::Args;
use hubble::client::{SOCKET, Server, Tls};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Channel;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(super) struct Connection {
    /// Address of the server: unix:///path, host:port or tls://host:port [default: the agent's socket if it is there, else localhost:4245]
    #[arg(long, env = "HUBBLE_SERVER", global = true)]
    server: Option<String>,
    /// How long to wait for the connection.
    #[arg(long, env = "HUBBLE_TIMEOUT", global = true, default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// Use TLS.
    #[arg(long, env = "HUBBLE_TLS", global = true)]
    tls: bool,
    /// Files with certificates of authorities to trust.
    #[arg(long, env = "HUBBLE_TLS_CA_CERT_FILES", global = true, value_delimiter = ',')]
    tls_ca_cert_files: Vec<PathBuf>,
    /// Name that the server's certificate must have.
    #[arg(long, env = "HUBBLE_TLS_SERVER_NAME", global = true)]
    tls_server_name: Option<String>,
    /// File with our certificate.
    #[arg(long, env = "HUBBLE_TLS_CLIENT_CERT_FILE", global = true, requires = "tls_client_key_file")]
    tls_client_cert_file: Option<PathBuf>,
    /// File with the key of our certificate.
    #[arg(long, env = "HUBBLE_TLS_CLIENT_KEY_FILE", global = true, requires = "tls_client_cert_file")]
    tls_client_key_file: Option<PathBuf>,
}

impl Connection {
    /// The address that is used.
    pub(super) fn address(&self) -> String {
        let local =
            || if Path::new(SOCKET).exists() { format!("unix://{SOCKET}") } else { "localhost:4245".to_owned() };
        self.server.clone().unwrap_or_else(local)
    }

    pub(super) async fn connect(&self) -> Result<Channel> {
        let address = self.address();
        let tls = if self.tls || address.starts_with("tls://") { Some(self.tls()?) } else { None };
        Ok(Server { address, tls, timeout: Some(self.timeout) }.connect().await?)
    }

    fn tls(&self) -> Result<Tls> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let authorities = self.tls_ca_cert_files.iter().map(read).collect::<Result<Vec<_>>>()?.join(&b'\n');
        let identity = match (&self.tls_client_cert_file, &self.tls_client_key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        Ok(Tls { authorities, server_name: self.tls_server_name.clone(), identity })
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "want a duration such as 5s".to_owned())
}
