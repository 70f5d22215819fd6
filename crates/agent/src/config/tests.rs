// SPDX-License-Identifier: Apache-2.0
//! Configuration as the chart writes it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn keys(pairs: &[(&str, &str)]) -> Keys {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn all_bad_values_are_reported_at_once_each_with_its_key() {
    let error = Config::parse(keys(&[
        ("enable-ipv4", "yes"),
        ("agent-health-port", "many"),
        ("cni-exclusive", "perhaps"),
        ("kube-proxy-replacement", "strict"),
    ]))
    .unwrap_err()
    .to_string();
    for key in ["enable-ipv4", "agent-health-port", "cni-exclusive", "kube-proxy-replacement"] {
        assert!(error.contains(&format!("configuration key {key}:")), "{key} in {error}");
    }
}

#[test]
fn a_key_that_nobody_knows_is_named() {
    let config = Config::parse(keys(&[("no-such-key", "1"), ("debug", "true")])).unwrap();
    assert_eq!(config.unknown, ["no-such-key"]);
    assert!(config.debug);
}

#[test]
fn native_routing_takes_the_tunnel_out_of_the_programs() {
    assert_eq!(Config::parse(Keys::new()).unwrap().programs.tunnel, 1);
    let native =
        Config::parse(keys(&[("routing-mode", "native"), ("ipv4-native-routing-cidr", "10.0.0.0/8")])).unwrap();
    assert_eq!(native.programs.tunnel, 0);
}
