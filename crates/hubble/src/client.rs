// SPDX-License-Identifier: Apache-2.0
//! Connecting to a Hubble server.

use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Where the agent of this machine serves.
pub const SOCKET: &str = "/var/run/cilium/hubble.sock";

/// How to reach a server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// `unix:///path`, `host:port`, or `tls://host:port`.
    pub address: String,
    /// How to trust it; none for plain text.
    pub tls: Option<Tls>,
    /// How long to wait for the connection.
    pub timeout: Option<Duration>,
}

/// Certificates of a client, as PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Authorities to trust.
    pub authorities: Vec<u8>,
    /// The name that the server's certificate must have, when it is not the host's.
    pub server_name: Option<String>,
    /// Certificate and key of the client.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// The server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {address}: {reason}")]
pub struct ConnectError {
    address: String,
    reason: String,
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When the address is malformed, or nobody answers there in time.
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        let fail = |source: tonic::transport::Error| {
            // The transport's own text is just "transport error".
            let reason = std::error::Error::source(&source).map_or_else(|| source.to_string(), root_cause);
            ConnectError { address: self.address.clone(), reason }
        };
        self.endpoint().map_err(fail)?.connect().await.map_err(fail)
    }

    fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        let (plain, tls_wanted) = match self.address.strip_prefix("tls://") {
            Some(rest) => (rest, true),
            None => (self.address.trim_start_matches("dns:").trim_start_matches("//"), self.tls.is_some()),
        };
        let uri = if plain.starts_with("unix:") {
            plain.to_owned()
        } else {
            format!("{}://{plain}", if tls_wanted { "https" } else { "http" })
        };
        let endpoint = Endpoint::from_shared(uri)?.connect_timeout(self.timeout.unwrap_or(Duration::from_secs(5)));
        if !tls_wanted {
            return Ok(endpoint);
        }
        let tls = self.tls.clone().unwrap_or_default();
        let mut config = ClientTlsConfig::new();
        if !tls.authorities.is_empty() {
            config = config.ca_certificate(Certificate::from_pem(tls.authorities));
        }
        if let Some(name) = tls.server_name {
            config = config.domain_name(name);
        }
        if let Some((certificate, key)) = tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint.tls_config(config)
    }
}

fn root_cause(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
