// SPDX-License-Identifier: Apache-2.0
//! Keys in, configuration out.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::otlp::Protocol;
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

const ENDPOINT: &str = "hubble-export-otlp-endpoint";
const LOGS: &str = "hubble-export-otlp-logs-endpoint";
const HTTP: (&str, &str) = ("hubble-export-otlp-protocol", "http/protobuf");

fn refused(keys: &[(&str, &str)]) -> Vec<&'static str> {
    parse(keys).err().unwrap_or_default().iter().map(|error| error.key).collect()
}

/// Where requests go.
fn asked(keys: &[(&str, &str)]) -> String {
    parse(keys).unwrap().otlp.target().unwrap().address.to_string()
}

#[test]
fn a_collector_is_a_url_with_or_without_a_port() {
    for (url, want) in [
        ("http://192.0.2.1:4317", Some("http://192.0.2.1:4317")),
        ("https://[fd00::1]:4317/", Some("https://[fd00::1]:4317")),
        ("http://otel.observability.svc:4317", Some("http://otel.observability.svc:4317")),
        ("https://otel", Some("https://otel")),
        ("https://[fd00::1]", Some("https://[fd00::1]")),
        ("otel:4317", None),
        ("grpc://otel:4317", None),
        ("http://:4317", None),
        ("http://otel:", None),
        ("http://otel:70000", None),
        ("http://otel:1:2", None),
        ("http://user@otel:4317", None),
        ("http://otel:4317?tenant=blue", None),
        ("http://otel:4317/in?tenant=blue", None),
        ("http://otel:4317/a b", None),
        ("http://[otel]:4317", None),
        ("http://[fd00::1]4317", None),
        ("http://[fd00::1", None),
    ] {
        assert_eq!(refused(&[(ENDPOINT, url)]), want.map_or(vec![ENDPOINT], |_| vec![]), "{url}");
        assert_eq!(refused(&[(LOGS, url)]), want.map_or(vec![LOGS], |_| vec![]), "{url}");
        if let Some(want) = want {
            assert_eq!((asked(&[(ENDPOINT, url)]), asked(&[(LOGS, url)])), (want.to_owned(), want.to_owned()));
        }
    }
    assert!(parse(&[(ENDPOINT, ""), (LOGS, "")]).unwrap().otlp.target().is_none());
}

#[test]
fn logs_have_a_place_below_a_collectors_base_and_an_address_of_their_own_is_taken_as_it_is() {
    for (base, want) in [
        ("http://otel:4318", "http://otel:4318/v1/logs"),
        ("http://otel:4318/", "http://otel:4318/v1/logs"),
        ("https://otel.example.org/otlp", "https://otel.example.org/otlp/v1/logs"),
        ("https://otel.example.org/a/otlp/", "https://otel.example.org/a/otlp/v1/logs"),
    ] {
        assert_eq!(asked(&[HTTP, (ENDPOINT, base)]), want);
    }
    for (own, want) in [
        ("http://otel:4318", "http://otel:4318"),
        ("http://otel:4318/in/", "http://otel:4318/in/"),
        ("https://otel.example.org/otlp", "https://otel.example.org/otlp"),
    ] {
        assert_eq!(asked(&[HTTP, (LOGS, own)]), want);
        assert_eq!(asked(&[HTTP, (LOGS, own), (ENDPOINT, "http://elsewhere:1/base")]), want);
    }
    // What counts is what is refused.
    for key in [ENDPOINT, LOGS] {
        assert_eq!(refused(&[(key, "http://otel:4317/otlp")]), [key], "gRPC has no paths");
    }
    assert_eq!(refused(&[(ENDPOINT, "http://otel:4318/otlp"), (LOGS, "http://otel:4317")]), [""; 0]);
}

#[test]
fn what_is_shown_to_a_collector_is_a_certificate_with_its_key_over_tls() {
    let [cert, key] = [(otlp::CERT.name, "/tls.crt"), (otlp::KEY.name, "/tls.key")];
    for name in [ENDPOINT, LOGS] {
        let [plain, encrypted] = ["http://otel:4317", "https://otel:4317"].map(|url| (name, url));
        assert_eq!(refused(&[plain, cert, key]), [cert.0, key.0]);
        assert_eq!(refused(&[encrypted, cert]), [key.0]);
        assert_eq!(refused(&[encrypted, key]), [cert.0]);
        let target = parse(&[encrypted, cert, key, HTTP]).unwrap().otlp.target().unwrap();
        assert_eq!((target.protocol, target.identity.is_some()), (Protocol::Http, true));
    }
    assert_eq!(refused(&[cert]), [""; 0]);
    assert_eq!(refused(&[("hubble-export-otlp-protocol", "http/json")]), ["hubble-export-otlp-protocol"]);
}
