// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

mod otlp;
#[cfg(test)]
mod tests;

use otlp::Collector;

use crate::export::FlowLog;
use crate::history::Limits;
use crate::metrics::Plugins;
use crate::redact::Redaction;
use crate::server::{TlsFile, TlsFiles};
use model::config::{Accepts, Form, Key, Reader, Value, keys, shared};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const HUBBLE: &str = ".Values.hubble.enabled";
const METRICS: &str = "and .Values.hubble.enabled .Values.hubble.metrics.enabled";
const METRICS_LISTED: &str = "and .Values.hubble.enabled .Values.hubble.metrics.dynamic.enabled";
const METRICS_SERVED: &str =
    "and .Values.hubble.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled)";
const EXPORT: &str = "and .Values.hubble.enabled .Values.hubble.export.static.enabled";
const FLOW_LOGS: &str = "and .Values.hubble.enabled .Values.hubble.export.dynamic.enabled";
const DROP_EVENTS: &str = "and .Values.hubble.enabled .Values.hubble.dropEventEmitter.enabled";
const HISTORY: &str = "and .Values.hubble.enabled .Values.hubble.history.enabled";
const REDACT: &str = "and .Values.hubble.enabled .Values.hubble.redact.enabled";
const TLS: &str = "and .Values.hubble.enabled .Values.hubble.tls.enabled";

/// `hubble-tls-cert-file`
const TLS_CERT: Key<Option<String>> =
    Key::new("hubble-tls-cert-file", "Certificate for hubble-listen-address; needed there unless TLS is disabled")
        .always("/var/lib/cilium/tls/hubble/server.crt")
        .when(TLS);
/// `hubble-tls-key-file`
const TLS_KEY: Key<Option<String>> = Key::new("hubble-tls-key-file", "Private key of that certificate")
    .always("/var/lib/cilium/tls/hubble/server.key")
    .when(TLS);
/// `hubble-tls-client-ca-files`
const TLS_CLIENT_CA: Key<Vec<String>> = Key::new(
    "hubble-tls-client-ca-files",
    "Authorities whose clients are let in; without any, clients need no certificate",
)
.always("/var/lib/cilium/tls/hubble/client-ca.crt")
.when(TLS);

const METRICS_TLS: &str = "and .Values.hubble.enabled .Values.hubble.metrics.tls.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled)";
const METRICS_MTLS: &str = "and .Values.hubble.enabled .Values.hubble.metrics.tls.enabled .Values.hubble.metrics.tls.server.mtls.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled)";

/// `hubble-metrics-server-tls-cert-file`
const METRICS_CERT: Key<Option<String>> =
    Key::new("hubble-metrics-server-tls-cert-file", "Certificate for hubble-metrics-server; needed there with TLS")
        .always("/var/lib/cilium/tls/hubble-metrics/server.crt")
        .when(METRICS_TLS);
/// `hubble-metrics-server-tls-key-file`
const METRICS_KEY: Key<Option<String>> =
    Key::new("hubble-metrics-server-tls-key-file", "Private key of that certificate")
        .always("/var/lib/cilium/tls/hubble-metrics/server.key")
        .when(METRICS_TLS);
/// `hubble-metrics-server-tls-client-ca-files`
const METRICS_CLIENT_CA: Key<Vec<String>> = Key::new(
    "hubble-metrics-server-tls-client-ca-files",
    "Authorities whose clients may read metrics of flows; without any, clients need no certificate",
)
.always("/var/lib/cilium/tls/hubble-metrics/client-ca.crt")
.when(METRICS_MTLS);

keys! {
    /// Where flows are kept and served.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// Observe flows.
        #[key("enable-hubble", default = "false", value = "hubble.enabled", initial = "true")]
        pub enabled: bool,
        /// How many flows are kept: one less than a power of two, 65535 at most.
        #[key(
            "hubble-event-buffer-capacity",
            default = "4095",
            value = "hubble.eventBufferCapacity",
            schema = r#"{"type": ["string", "integer", "number"]}"#,
            when = HUBBLE,
        )]
        pub capacity: Capacity,
        /// MiB that these take at most with their names; of flows with many labels fewer are kept.
        #[key("hubble-event-buffer-max-size-mb", default = "32", value = "hubble.eventBufferMaxSizeMb", when = HUBBLE)]
        pub capacity_size: u32,
        /// Folder in which flows are kept on disk, for days and over restarts; they are not if empty.
        #[key("hubble-history-path", always = "/var/lib/cilium/hubble", when = HISTORY)]
        pub history_path: Option<PathBuf>,
        /// MiB that it takes at most; the oldest flows go first.
        #[key("hubble-history-max-size-mb", default = "64", value = "hubble.history.maxSizeMb", when = HISTORY)]
        pub history_size: u32,
        /// How long flows are kept there.
        #[key("hubble-history-max-age", default = "168h", value = "hubble.history.maxAge", when = HISTORY)]
        pub history_age: Duration,
        /// Where flows are served to other nodes and to relays, such as :4244; nowhere if empty.
        #[key(
            "hubble-listen-address",
            optional = "hubble.listenAddress",
            initial = "\":4244\"",
            schema = r#"{"type": "string"}"#,
            when = HUBBLE,
        )]
        pub listen: Option<SocketAddr>,
        /// Unix socket on which flows are served to this node.
        #[key("hubble-socket-path", default = "/var/run/cilium/hubble.sock", value = "hubble.socketPath", when = HUBBLE)]
        pub socket: PathBuf,
        /// Serve hubble-listen-address without TLS.
        #[key("hubble-disable-tls", default = "false", template = "{{ not .Values.hubble.tls.enabled | quote }}", when = HUBBLE)]
        pub disable_tls: bool,
        #[key(TLS_CERT)]
        pub tls_certificate: Option<String>,
        #[key(TLS_KEY)]
        pub tls_key: Option<String>,
        #[key(TLS_CLIENT_CA)]
        pub tls_client_authorities: Vec<String>,
        /// Metrics of flows with their options: dns, drop, flow, flows-to-world, http, httpV2, icmp, policy, port-distribution, tcp.
        #[key(
            "hubble-metrics",
            template = "{{ join \" \" .Values.hubble.metrics.enabled | quote }}",
            when = METRICS,
        )]
        pub metrics: Plugins,
        /// Where metrics of flows are served, such as :9965.
        #[key(
            "hubble-metrics-server",
            template = "{{ printf \":%s\" (include \"cilium.text\" .Values.hubble.metrics.port) | quote }}",
            when = METRICS_SERVED,
        )]
        pub metrics_listen: Option<SocketAddr>,
        /// Serve hubble-metrics-server with TLS, and never without.
        #[key("hubble-metrics-server-enable-tls", default = "false", value = "hubble.metrics.tls.enabled", when = METRICS_SERVED)]
        pub metrics_encrypted: bool,
        /// Name traces in metrics of flows to clients that ask for OpenMetrics, as examples, if an option of httpV2 says so.
        #[key("enable-hubble-open-metrics", default = "false", value = "hubble.metrics.enableOpenMetrics", when = METRICS_SERVED)]
        pub open_metrics: bool,
        #[key(METRICS_CERT)]
        pub metrics_certificate: Option<String>,
        #[key(METRICS_KEY)]
        pub metrics_key: Option<String>,
        #[key(METRICS_CLIENT_CA)]
        pub metrics_client_authorities: Vec<String>,
        /// File that lists further metrics of flows, and that may change at any time.
        #[key("hubble-dynamic-metrics-config-path", always = "/dynamic-metrics-config/dynamic-metrics.yaml", when = METRICS_LISTED)]
        pub metrics_listed: Option<PathBuf>,
        /// File that flows are written to, one JSON object a line; none if empty.
        #[key("hubble-export-file-path", value = "hubble.export.static.filePath", initial = "\"/var/run/cilium/hubble/events.log\"", when = EXPORT)]
        pub export_file: Option<PathBuf>,
        /// MiB that it has at most; then it is put aside.
        #[key("hubble-export-file-max-size-mb", default = "10", value = "hubble.export.static.fileMaxSizeMb", when = EXPORT)]
        pub export_size: u32,
        /// How many files that were put aside are kept.
        #[key("hubble-export-file-max-backups", default = "5", value = "hubble.export.static.fileMaxBackups", when = EXPORT)]
        pub export_backups: u32,
        /// Compress these, with gzip.
        #[key("hubble-export-file-compress", default = "false", value = "hubble.export.static.fileCompress", when = EXPORT)]
        pub export_compress: bool,
        /// Fields of a flow that are written; all if empty.
        #[key("hubble-export-fieldmask", value = "hubble.export.static.fieldMask", initial = "[]", when = EXPORT)]
        pub export_mask: Vec<String>,
        /// Flows that are alike in these fields are one, with its numbers by direction; each is itself if empty.
        #[key("hubble-export-fieldaggregate", value = "hubble.export.static.fieldAggregate", initial = "[]", when = EXPORT)]
        pub export_aggregate: Vec<String>,
        /// How long flows are counted before they are written as one.
        #[key("hubble-export-aggregation-interval", default = "0s", value = "hubble.export.static.aggregationInterval", when = EXPORT)]
        pub export_interval: Duration,
        /// Which flows are written, as JSON of filters with white space between.
        #[key(
            "hubble-export-allowlist",
            template = "{{ join \" \" .Values.hubble.export.static.allowList | quote }}",
            when = EXPORT,
        )]
        pub export_allow: JsonList,
        /// Which flows are not.
        #[key(
            "hubble-export-denylist",
            template = "{{ join \" \" .Values.hubble.export.static.denyList | quote }}",
            when = EXPORT,
        )]
        pub export_deny: JsonList,
        /// File that says which flows are written where, and that may change at any time.
        #[key("hubble-flowlogs-config-path", always = "/flowlog-config/flowlogs.yaml", when = FLOW_LOGS)]
        pub flow_logs: Option<PathBuf>,
        pub otlp: Collector,
        /// Shortest time between two reports of lost events to one client.
        #[key("hubble-lost-event-send-interval", default = "1s")]
        pub lost_interval: Duration,
        /// Tell pods of their dropped packets by Events of Kubernetes.
        #[key("hubble-drop-events", default = "false", value = "hubble.dropEventEmitter.enabled", when = HUBBLE)]
        pub drop_events: bool,
        /// How long the same is not told again.
        #[key("hubble-drop-events-interval", default = "2m", value = "hubble.dropEventEmitter.interval", when = DROP_EVENTS)]
        pub drop_events_interval: Duration,
        /// For which reasons, by the names of Hubble's API.
        #[key(
            "hubble-drop-events-reasons",
            default = "auth_required policy_denied",
            value = "hubble.dropEventEmitter.reasons",
            initial = "[auth_required, policy_denied]",
            when = DROP_EVENTS,
        )]
        pub drop_events_reasons: Vec<String>,
        /// Leave out of flows of requests what the keys below say.
        #[key("hubble-redact-enabled", default = "false", value = "hubble.redact.enabled", when = HUBBLE)]
        pub redact: bool,
        /// Leave out the query of URLs.
        #[key("hubble-redact-http-urlquery", default = "false", value = "hubble.redact.http.urlQuery", when = REDACT)]
        pub redact_query: bool,
        /// Leave out passwords in URLs; this counts without hubble-redact-enabled, too.
        #[key("hubble-redact-http-userinfo", default = "true", value = "hubble.redact.http.userInfo", when = HUBBLE)]
        pub redact_user_info: bool,
        /// Names of the headers whose values are shown; all but those that hold secrets if empty.
        #[key("hubble-redact-http-headers-allow", value = "hubble.redact.http.headers.allow", initial = "[]", when = REDACT)]
        pub redact_headers_allow: Vec<String>,
        /// Names of headers whose values are not shown.
        #[key("hubble-redact-http-headers-deny", value = "hubble.redact.http.headers.deny", initial = "[]", when = REDACT)]
        pub redact_headers_deny: Vec<String>,
        /// Name the policies behind each verdict.
        #[key(
            "hubble-network-policy-correlation-enabled",
            default = "true",
            value = "hubble.networkPolicyCorrelation.enabled",
            when = HUBBLE,
        )]
        pub correlate_policies: bool,
        /// Tell relays the IPv6 address of a node that has both.
        #[key("hubble-prefer-ipv6", default = "false", value = "hubble.preferIpv6", when = HUBBLE)]
        pub prefer_ipv6: bool,
        #[key(shared::CLUSTER_NAME)]
        pub cluster: String,
    }
    check Self::refuse_misfits;
}

/// JSON values with white space between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonList(pub(crate) Vec<serde_json::Value>);

impl Value for JsonList {
    fn form() -> Form {
        Form::new("JSON objects with white space between", Accepts::Pattern(r"^\s*(\{[\s\S]*\})?\s*$"))
    }

    fn parse(text: &str) -> Option<Self> {
        let values = serde_json::Deserializer::from_str(text).into_iter();
        let values: Vec<serde_json::Value> = values.collect::<Result<_, _>>().ok()?;
        values.iter().all(serde_json::Value::is_object).then_some(Self(values))
    }
}

/// How many events the ring holds: one less than a power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity(pub u16);

impl Value for Capacity {
    fn form() -> Form {
        const SIZES: &str = "^[+]?0*(1|3|7|15|31|63|127|255|511|1023|2047|4095|8191|16383|32767|65535)$";
        Form::new("one less than a power of two, from 1 to 65535", Accepts::Pattern(SIZES))
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse::<u16>().ok().filter(|&n| n > 0 && (u32::from(n) + 1).is_power_of_two()).map(Self)
    }
}

impl Config {
    /// The certificates for [`listen`](Self::listen); none if nothing is served there, or without TLS.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        if !self.wants_tls() {
            return None;
        }
        Some(TlsFiles {
            certificate: file(TLS_CERT.name, self.tls_certificate.as_ref()?),
            key: file(TLS_KEY.name, self.tls_key.as_ref()?),
            client_authorities: self.tls_client_authorities.iter().map(|path| file(TLS_CLIENT_CA.name, path)).collect(),
        })
    }

    /// The certificates for [`metrics_listen`](Self::metrics_listen); none if these are served without TLS.
    pub(crate) fn metrics_tls(&self) -> Option<TlsFiles> {
        if !self.metrics_encrypted {
            return None;
        }
        let authorities = self.metrics_client_authorities.iter().map(|path| file(METRICS_CLIENT_CA.name, path));
        Some(TlsFiles {
            certificate: file(METRICS_CERT.name, self.metrics_certificate.as_ref()?),
            key: file(METRICS_KEY.name, self.metrics_key.as_ref()?),
            client_authorities: authorities.collect(),
        })
    }

    /// The flows that go to a file all the time, if any do.
    pub(crate) fn flow_log(&self) -> Option<FlowLog> {
        Some(FlowLog {
            name: "hubble-export-file-path".to_owned(),
            file_path: self.export_file.clone()?,
            field_mask: self.export_mask.clone(),
            field_aggregate: self.export_aggregate.clone(),
            aggregation_interval: self.export_interval,
            include_filters: self.export_allow.0.clone(),
            exclude_filters: self.export_deny.0.clone(),
            file_max_size_mb: self.export_size.into(),
            file_max_backups: usize::try_from(self.export_backups).unwrap_or(usize::MAX),
            file_compress: self.export_compress,
            end: None,
        })
    }

    /// Bytes that the ring takes at most.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.capacity_size).unwrap_or(usize::MAX).saturating_mul(1 << 20)
    }

    /// What is kept on disk, if anything is.
    pub(crate) fn history(&self) -> Option<Limits> {
        let path = self.history_path.clone()?;
        Some(Limits { path, size: u64::from(self.history_size) << 20, age: self.history_age })
    }

    /// What is left out of flows of requests.
    pub(crate) fn redaction(&self) -> Redaction {
        let names = |names: &Vec<String>| if self.redact { names.clone() } else { Vec::new() };
        Redaction {
            query: self.redact && self.redact_query,
            user_info: self.redact_user_info,
            allow: names(&self.redact_headers_allow),
            deny: names(&self.redact_headers_deny),
        }
    }

    fn wants_tls(&self) -> bool {
        self.listen.is_some() && !self.disable_tls
    }

    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        const WANT: &str = "a file: it is needed unless hubble-disable-tls is \"true\"";
        const WITH: &str = "a file: it is needed with hubble-metrics-server-enable-tls: \"true\"";
        for (key, file) in [(TLS_CERT.name, &self.tls_certificate), (TLS_KEY.name, &self.tls_key)] {
            if self.wants_tls() && file.is_none() {
                read.refuse(key, "", WANT);
            }
        }
        for (key, file) in [(METRICS_CERT.name, &self.metrics_certificate), (METRICS_KEY.name, &self.metrics_key)] {
            if self.metrics_encrypted && self.metrics_listen.is_some() && file.is_none() {
                read.refuse(key, "", WITH);
            }
        }
    }
}

fn file(option: &'static str, path: &String) -> TlsFile {
    TlsFile { option, path: path.into() }
}
