// SPDX-License-Identifier: Apache-2.0
//! Connecting to a Hubble server.

mod tls;

pub(crate) use tls::Dialer;

use std::fmt;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The local agent's socket.
pub const SOCKET: &str = "/var/run/cilium/hubble.sock";

/// The name under which Hubble's servers and clients know the observer's health; it differs from the gRPC service's.
pub const HEALTH_SERVICE: &str = "hubble.server.Observer";

/// How to reach a server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// `unix:///path`, `host:port`, or `tls://host:port`.
    pub address: String,
    /// TLS options; none for plain text, unless the address says `tls://`.
    pub tls: Option<Tls>,
    /// How long to wait for the connection.
    pub timeout: Option<Duration>,
    /// How long the server may be silent before it is pinged, and how long it may take to reply; none for ever.
    pub keepalive: Option<Duration>,
}

/// Certificates of a client, as PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// CAs to trust; the system's if there are none.
    pub authorities: Vec<u8>,
    /// The name that the server's certificate must have, when it is not the host's.
    pub server_name: Option<String>,
    /// Certificate and key of the client.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Accept any server certificate: anyone in between can eavesdrop.
    pub allow_insecure: bool,
}

// One field is a private key, which must not end up in logs.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_name, allow_insecure, .. } = self;
        let mut shown = f.debug_struct("Tls");
        shown.field("server_name", server_name).field("allow_insecure", allow_insecure).finish_non_exhaustive()
    }
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
        let fail = |reason| ConnectError { address: self.address.clone(), reason };
        let lost = |source: tonic::transport::Error| {
            // The transport's own message is just "transport error".
            fail(std::error::Error::source(&source).map_or_else(|| source.to_string(), root_cause))
        };
        let Some((place, tls)) = self.tls_place().map_err(fail)? else {
            return self.endpoint(&self.plain_uri()).map_err(lost)?.connect().await.map_err(lost);
        };
        let connector = tls::connector(place, tls).map_err(fail)?;
        // The connector does TLS, so the transport must not.
        let endpoint = self.endpoint(&format!("http://{place}")).map_err(lost)?;
        endpoint.connect_with_connector(connector).await.map_err(lost)
    }

    /// Host and port, and the certificates, when TLS is wanted.
    fn tls_place(&self) -> Result<Option<(&str, Tls)>, String> {
        let (place, wanted) = match self.address.strip_prefix("tls://") {
            Some(place) => (place, true),
            None => (self.place(), self.tls.is_some()),
        };
        match (wanted, place.starts_with("unix:")) {
            (false, _) => Ok(None),
            (true, true) => Err("a unix socket is served without TLS".to_owned()),
            (true, false) => Ok(Some((place, self.tls.clone().unwrap_or_default()))),
        }
    }

    fn place(&self) -> &str {
        self.address.trim_start_matches("dns:").trim_start_matches("//")
    }

    fn plain_uri(&self) -> String {
        let place = self.place();
        if place.starts_with("unix:") { place.to_owned() } else { format!("http://{place}") }
    }

    fn endpoint(&self, uri: &str) -> Result<Endpoint, tonic::transport::Error> {
        let timeout = self.timeout.unwrap_or(Duration::from_secs(5));
        let endpoint = Endpoint::from_shared(uri.to_owned())?.connect_timeout(timeout);
        Ok(match self.keepalive {
            Some(time) => endpoint.http2_keep_alive_interval(time).keep_alive_timeout(time).keep_alive_while_idle(true),
            None => endpoint,
        })
    }
}

fn root_cause(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, tls: Option<Tls>) -> Server {
        Server { address: address.to_owned(), tls, ..Server::default() }
    }

    #[tokio::test]
    async fn what_is_to_be_encrypted_is_never_sent_in_plain_text() {
        let error = server("unix:///run/hubble.sock", Some(Tls::default())).connect().await.unwrap_err();
        assert!(error.to_string().contains("without TLS"), "{error}");
        for (address, tls, place) in [
            ("tls://n1:4244", None, Some("n1:4244")),
            ("n1:4244", Some(Tls::default()), Some("n1:4244")),
            ("dns://n1:4244", Some(Tls::default()), Some("n1:4244")),
            ("n1:4244", None, None),
        ] {
            let server = server(address, tls);
            assert_eq!(server.tls_place().unwrap().map(|(place, _)| place), place, "{address}");
        }
    }

    #[tokio::test]
    async fn a_bad_file_is_an_error_that_says_which() {
        for (tls, part) in [
            (Tls { authorities: b"no PEM".to_vec(), ..Tls::default() }, "authorities"),
            (Tls { identity: Some((b"no PEM".to_vec(), Vec::new())), ..Tls::default() }, "certificate"),
            (Tls { server_name: Some("not a name".to_owned()), ..Tls::default() }, "\"not a name\""),
        ] {
            let error = server("tls://127.0.0.1:1", Some(tls)).connect().await.unwrap_err().to_string();
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let tls = Tls { identity: Some((b"certificate".to_vec(), b"key".to_vec())), ..Tls::default() };
        let text = format!("{:?}", server("tls://n1:4244", Some(tls)));
        assert!(!text.contains("107") && !text.contains("identity"), "{text}");
    }
}
