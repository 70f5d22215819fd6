// SPDX-License-Identifier: Apache-2.0
//! Keys in, configuration out.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use model::config::{ConfigError, Group};

fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
    Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

#[test]
fn the_charts_keys_are_understood() {
    let config = parse(&[
        ("enable-hubble", "true"),
        ("hubble-event-buffer-capacity", "511"),
        ("hubble-listen-address", ":4244"),
        ("hubble-disable-tls", "true"),
        ("hubble-lost-event-send-interval", "1m1.5s"),
        ("cluster-name", "blue"),
    ])
    .unwrap();
    assert!(config.enabled);
    assert_eq!(config.capacity, Capacity(511));
    assert_eq!(config.listen, Some("[::]:4244".parse().unwrap()));
    assert_eq!(config.lost_interval, Duration::from_millis(61_500));
    assert_eq!(config.cluster, "blue");
}

#[test]
fn the_documented_defaults_are_what_no_keys_mean() {
    let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
    assert_eq!(Config::parse(&documented), parse(&[]));
    assert_eq!(parse(&[]).unwrap(), Config::default());
}

#[test]
fn every_bad_value_is_named_with_its_key() {
    let errors = parse(&[
        ("hubble-event-buffer-capacity", "4096"),
        ("hubble-listen-address", "4244"),
        ("hubble-socket-path", "hubble.sock"),
        ("hubble-prefer-ipv6", "yes"),
        ("hubble-lost-event-send-interval", "5"),
    ])
    .unwrap_err();
    let mut keys: Vec<_> = errors.iter().map(|e| e.key).collect();
    keys.sort_unstable();
    let wanted = [
        "hubble-event-buffer-capacity",
        "hubble-listen-address",
        "hubble-lost-event-send-interval",
        "hubble-prefer-ipv6",
        "hubble-socket-path",
    ];
    assert_eq!(keys, wanted);
}

#[test]
fn serving_the_network_without_certificates_must_be_said_aloud() {
    let errors = parse(&[("hubble-listen-address", ":4244")]).unwrap_err();
    assert_eq!(errors.iter().map(|e| e.key).collect::<Vec<_>>(), [TLS_CERT.name, TLS_KEY.name]);
    assert!(parse(&[("hubble-listen-address", ":4244"), ("hubble-disable-tls", "true")]).unwrap().tls().is_none());
}

#[test]
fn metrics_that_are_to_be_encrypted_need_certificates() {
    let wanted = [("hubble-metrics-server", ":9965"), ("hubble-metrics-server-enable-tls", "true")];
    let errors = parse(&wanted).unwrap_err();
    assert_eq!(errors.iter().map(|e| e.key).collect::<Vec<_>>(), [METRICS_CERT.name, METRICS_KEY.name]);
    let files = [(METRICS_CERT.name, "/tls.crt"), (METRICS_KEY.name, "/tls.key"), (METRICS_CLIENT_CA.name, "/ca.crt")];
    let tls = parse(&[&wanted[..], &files].concat()).unwrap().metrics_tls().unwrap();
    assert_eq!(tls.client_authorities.len(), 1);
    assert!(parse(&files).unwrap().metrics_tls().is_none());
}

#[test]
fn a_collector_is_a_url_of_a_host_and_a_port() {
    for (url, want) in [
        ("http://192.0.2.1:4317", Some("http://192.0.2.1:4317")),
        ("https://[fd00::1]:4317/", Some("https://[fd00::1]:4317")),
        ("http://otel.observability.svc:4317", Some("http://otel.observability.svc:4317")),
        ("otel:4317", None),
        ("grpc://otel:4317", None),
        ("http://otel", None),
        ("http://:4317", None),
        ("http://otel:70000", None),
        ("http://user@otel:4317", None),
        ("http://otel:4317/v1/logs", None),
        ("http://[otel]:4317", None),
    ] {
        let parsed = parse(&[("hubble-export-otlp-endpoint", url)]);
        let address = parsed.as_ref().ok().map(|config| config.collector().unwrap().address.to_string());
        assert_eq!(address.as_deref(), want, "{url}");
        if let Err(errors) = parsed {
            assert_eq!(errors.iter().map(|e| e.key).collect::<Vec<_>>(), ["hubble-export-otlp-endpoint"]);
        }
    }
    assert!(parse(&[("hubble-export-otlp-endpoint", "")]).unwrap().collector().is_none());
}

#[test]
fn what_is_shown_to_a_collector_is_a_certificate_with_its_key_over_tls() {
    let [cert, key] = [(OTLP_CERT.name, "/tls.crt"), (OTLP_KEY.name, "/tls.key")];
    let [plain, encrypted] = ["http://otel:4317", "https://otel:4317"].map(|url| ("hubble-export-otlp-endpoint", url));
    let refused = |keys: &[(&str, &str)]| -> Vec<&str> {
        parse(keys).err().unwrap_or_default().iter().map(|error| error.key).collect()
    };
    assert_eq!(refused(&[plain, cert, key]), [OTLP_CERT.name, OTLP_KEY.name]);
    assert_eq!(refused(&[encrypted, cert]), [OTLP_KEY.name]);
    assert_eq!(refused(&[encrypted, key]), [OTLP_CERT.name]);
    assert_eq!(refused(&[cert]), [""; 0]);
    let target = parse(&[encrypted, cert, key, ("hubble-export-otlp-protocol", "http/protobuf")]).unwrap();
    let target = target.collector().unwrap();
    assert_eq!((target.protocol, target.identity.is_some()), (Protocol::Http, true));
    assert_eq!(refused(&[("hubble-export-otlp-protocol", "http/json")]), ["hubble-export-otlp-protocol"]);
}
