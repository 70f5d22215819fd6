// SPDX-License-Identifier: Apache-2.0
//! The keys of the export to a collector of OpenTelemetry.

use super::JsonList;
use crate::otlp::{Address, Protocol, Target};
use model::config::{Key, Reader, keys};
use std::path::PathBuf;

macro_rules! when {
    ($($and:literal)?) => {
        concat!(
            "and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint)"
            $(, " .Values.hubble.export.otlp.", $and)?
        )
    };
}

const HERE: &str = when!();
const TLS: &str = when!("tls.caSecret");
const CLIENT: &str = when!("tls.clientSecret");
const HEADERS: &str = when!("headersSecret");

/// `hubble-export-otlp-endpoint`
pub(super) const ENDPOINT: Key<Option<Address>> = Key::new(
    "hubble-export-otlp-endpoint",
    "Collector of OpenTelemetry that flows are sent to as logs, such as http://192.0.2.1:4317; over HTTP, to /v1/logs below it. None if empty",
)
.optional("hubble.export.otlp.endpoint")
.when(HERE);
/// `hubble-export-otlp-logs-endpoint`
pub(super) const LOGS: Key<Option<Address>> = Key::new(
    "hubble-export-otlp-logs-endpoint",
    "The collector, instead of hubble-export-otlp-endpoint, by the URL that requests are sent to, to which nothing is added",
)
.optional("hubble.export.otlp.logsEndpoint")
.when(HERE);
/// `hubble-export-otlp-cert-file`
pub(super) const CERT: Key<Option<PathBuf>> =
    Key::new("hubble-export-otlp-cert-file", "Certificate that is shown to the collector, with https")
        .always("/var/lib/cilium/tls/hubble-otlp-client/tls.crt")
        .when(CLIENT);
/// `hubble-export-otlp-key-file`
pub(super) const KEY: Key<Option<PathBuf>> = Key::new("hubble-export-otlp-key-file", "Private key of that certificate")
    .always("/var/lib/cilium/tls/hubble-otlp-client/tls.key")
    .when(CLIENT);

keys! {
    /// Which flows go to which collector of OpenTelemetry, and how.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Collector {
        #[key(ENDPOINT)]
        pub endpoint: Option<Address>,
        #[key(LOGS)]
        pub logs_endpoint: Option<Address>,
        /// How they are sent there.
        #[key("hubble-export-otlp-protocol", default = "grpc", value = "hubble.export.otlp.protocol", when = HERE)]
        pub protocol: Protocol,
        /// Folder with a file for each header of these requests, named like the header, such as authorization.
        #[key("hubble-export-otlp-headers-path", always = "/var/lib/cilium/hubble-otlp-headers", when = HEADERS)]
        pub headers: Option<PathBuf>,
        #[key(CERT)]
        pub certificate: Option<PathBuf>,
        #[key(KEY)]
        pub key: Option<PathBuf>,
        /// File with the authorities to trust there, with https; the system's if empty.
        #[key("hubble-export-otlp-ca-file", always = "/var/lib/cilium/tls/hubble-otlp/ca.crt", when = TLS)]
        pub authorities: Option<PathBuf>,
        /// Which flows are sent there, as JSON of filters with white space between.
        #[key(
            "hubble-export-otlp-allowlist",
            template = "{{ join \" \" .Values.hubble.export.otlp.allowList | quote }}",
            when = HERE,
        )]
        pub allow: JsonList,
        /// Which flows are not.
        #[key(
            "hubble-export-otlp-denylist",
            template = "{{ join \" \" .Values.hubble.export.otlp.denyList | quote }}",
            when = HERE,
        )]
        pub deny: JsonList,
    }
    check Self::refuse_misfits;
}

impl Collector {
    /// The collector that flows are sent to, if there is one.
    pub(crate) fn target(&self) -> Option<Target> {
        let (_, address) = self.address()?;
        let is_base = self.logs_endpoint.is_none() && self.protocol == Protocol::Http;
        Some(Target {
            address: if is_base { address.logs() } else { address.clone() },
            protocol: self.protocol,
            authorities: self.authorities.clone(),
            identity: self.certificate.clone().zip(self.key.clone()),
            headers: self.headers.clone(),
            include: self.allow.0.clone(),
            exclude: self.deny.0.clone(),
        })
    }

    /// The address that counts, with its key.
    fn address(&self) -> Option<(&'static str, &Address)> {
        let logs = self.logs_endpoint.as_ref().map(|address| (LOGS.name, address));
        logs.or_else(|| self.endpoint.as_ref().map(|address| (ENDPOINT.name, address)))
    }

    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        const PATH: &str = "possible with hubble-export-otlp-protocol: grpc; a path needs http/protobuf";
        let Some((name, address)) = self.address() else { return };
        if self.protocol == Protocol::Grpc && address.has_path() {
            read.refuse(name, &address.to_string(), PATH);
        }
        let shown = [(CERT.name, &self.certificate), (KEY.name, &self.key)];
        if shown.iter().all(|(_, file)| file.is_none()) {
            return;
        }
        for (key, file) in shown {
            match file {
                None => read.refuse(key, "", "a file: a certificate and its key are needed together"),
                Some(file) if !address.is_encrypted() => {
                    read.refuse(key, &file.display().to_string(), format!("empty, as {name} is no https://"));
                }
                Some(_) => {}
            }
        }
    }
}
