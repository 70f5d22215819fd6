// SPDX-License-Identifier: Apache-2.0
//! Configuration as the chart writes it.

use super::*;

fn keys(pairs: &[(&str, &str)]) -> Keys {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn all_bad_values_are_reported_at_once_each_with_its_key() {
    let error = Config::parse(&keys(&[
        ("enable-ipv4", "yes"),
        ("agent-health-port", "many"),
        ("cni-exclusive", "perhaps"),
        ("kube-proxy-replacement", "strict"),
    ]))
    .unwrap_err()
    .to_string();
    for key in ["enable-ipv4", "agent-health-port", "cni-exclusive", "kube-proxy-replacement"] {
        let times = error.matches(&format!("configuration key {key}:")).count();
        assert_eq!(times, 1, "{key}, which several features may read, in {error}");
    }
}

#[test]
fn the_documented_defaults_are_what_no_keys_mean() {
    let all = super::keys();
    let documented = all.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
    let mut parsed = Config::parse(&documented).unwrap();
    parsed.endpoint.given.0.clear();
    assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::parse(&Keys::new()).unwrap()));
}

#[test]
fn packets_without_news_are_reported_once_in_a_while_or_each_of_them() {
    let interval = |keys: &[(&str, &str)]| Config::parse(&self::keys(keys)).unwrap().programs().event_interval;
    assert_eq!(interval(&[]), 5);
    assert_eq!(interval(&[("monitor-aggregation", "maximum"), ("monitor-aggregation-interval", "10ms")]), 1);
    assert_eq!(interval(&[("monitor-aggregation", "none"), ("monitor-aggregation-interval", "7s")]), 0);
    let error = Config::parse(&keys(&[("monitor-aggregation", "some")])).unwrap_err().to_string();
    assert!(error.contains("monitor-aggregation"), "{error}");
}

#[test]
fn translations_of_sockets_are_reported_if_somebody_listens() {
    let traced = |keys: &[(&str, &str)]| Config::parse(&self::keys(keys)).unwrap().programs().trace_sockets;
    assert_eq!(traced(&[("enable-hubble", "true")]), 1);
    assert_eq!(traced(&[("enable-hubble", "true"), ("trace-sock", "false")]), 0);
    assert_eq!(traced(&[("trace-sock", "true")]), 0);
}

#[test]
fn a_key_has_one_description_whoever_reads_it() {
    let mut seen: BTreeMap<&str, AnyKey> = BTreeMap::new();
    for key in Config::keys().into_iter().chain(operator::Config::keys()) {
        assert_eq!(*seen.entry(key.name).or_insert_with(|| key.clone()), key);
    }
}

#[test]
fn every_key_is_a_flag_that_wins_over_the_folder() {
    command().debug_assert();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cluster-name"), "blue").unwrap();
    std::fs::write(folder.path().join("enable-ipv6"), "false").unwrap();
    let config_dir = format!("--config-dir={}", folder.path().display());
    let words = ["cilium-agent", &config_dir, "--enable-ipv6", "--agent-health-port", "1234"];
    let config = Config::load(&arguments(words.map(Into::into))).unwrap();
    assert_eq!((&*config.policy.cluster_name, config.node.ipv6, config.health_port), ("blue", true, 1234));
    for key in super::keys() {
        let flag = format!("--{}={}", key.name, if key.is_switch() { "true" } else { "x" });
        let given = arguments(["cilium-agent", &flag].map(Into::into)).keys;
        assert_eq!(given.keys().collect::<Vec<_>>(), [key.name]);
    }
}

#[test]
fn a_key_that_nobody_knows_is_named() {
    let config = Config::parse(&keys(&[("no-such-key", "1"), ("debug", "true")])).unwrap();
    assert_eq!(config.unknown(), ["no-such-key"]);
    assert!(config.debug);
}

#[test]
fn keys_of_the_operator_and_of_the_plugins_commands_are_theirs() {
    let config = Config::parse(&keys(&[("operator-k8s-client-qps", "many"), ("cni-uninstall", "true")])).unwrap();
    assert_eq!(config.unknown(), [""; 0]);
}

#[test]
fn native_routing_takes_the_tunnel_out_of_the_programs() {
    assert_eq!(Config::parse(&Keys::new()).unwrap().programs().tunnel, 1);
    let native =
        Config::parse(&keys(&[("routing-mode", "native"), ("ipv4-native-routing-cidr", "10.0.0.0/8")])).unwrap();
    assert_eq!((native.programs().tunnel, native.programs().direct_tunnel), (0, 0));
}

#[test]
fn programs_encapsulate_themselves_unless_that_is_switched_off_and_know_the_port() {
    let tunnel = |keys: &[(&str, &str)]| {
        let programs = Config::parse(&self::keys(keys)).unwrap().programs();
        (programs.direct_tunnel, programs.tunnel_port)
    };
    assert_eq!(tunnel(&[]), (1, 8472));
    assert_eq!(tunnel(&[("tunnel-port", "4789")]), (1, 4789));
    assert_eq!(tunnel(&[("tunnel-direct", "false")]), (0, 8472));
    assert!(Config::parse(&keys(&[("tunnel-direct", "no")])).is_err());
}
