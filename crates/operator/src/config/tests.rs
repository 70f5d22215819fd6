// SPDX-License-Identifier: Apache-2.0
use super::{Arguments, Config, Keys, command};
use model::config::Group;
use std::collections::BTreeMap;
use std::time::Duration;

fn arguments(flags: &[&str], files: &[(&str, &str)]) -> (Arguments, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (key, value) in files {
        std::fs::write(folder.path().join(key), value).unwrap();
    }
    let config_dir = format!("--config-dir={}", folder.path().display());
    let all = ["cilium-operator", &config_dir].into_iter().chain(flags.iter().copied());
    (Arguments::parse(command(), all.map(Into::into)).unwrap(), folder)
}

fn load(flags: &[&str], files: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let (arguments, _folder) = arguments(flags, files);
    Config::load(&arguments)
        .map_err(|error| error.to_string().lines().skip(1).map(|line| line.trim().to_owned()).collect())
}

#[test]
fn the_folder_gives_values_flags_win_and_defaults_fill() {
    let files = [
        ("cluster-pool-ipv4-cidr", "10.0.0.0/8 10.9.0.0/16x\n"),
        ("identity-gc-interval", "1m"),
        ("operator-prometheus-serve-addr", ":9963"),
    ];
    let config = load(&["--cluster-pool-ipv4-cidr=10.0.0.0/8, 192.168.0.0/16", "--debug"], &files).unwrap();
    assert!(config.debug);
    assert_eq!(config.cluster_pools.unwrap()[0].to_string(), "10.0.0.0/8 192.168.0.0/16 (/24 for each node)");
    let gc = config.identity_gc.unwrap();
    assert_eq!((gc.interval, gc.timeout), (Duration::from_secs(60), Duration::from_secs(1800)));
    assert_eq!(config.api_address.to_string(), "127.0.0.1:9234");
    assert_eq!(config.metrics_address.unwrap().to_string(), "[::]:9963");
}

#[test]
fn all_errors_are_reported_at_once_each_with_its_key() {
    let files = [
        ("enable-ipv6", "yes"),
        ("cluster-pool-ipv4-cidr", "10.0.0.0/24"),
        ("cluster-pool-ipv4-mask-size", "20"),
        ("identity-gc-interval", "soon"),
        ("operator-api-serve-addr", "nowhere"),
    ];
    assert_eq!(
        load(&[], &files).unwrap_err(),
        [
            "configuration key enable-ipv6: \"yes\" is not \"true\" or \"false\"",
            "configuration key identity-gc-interval: \"soon\" is not a duration such as 5s or 1m30s",
            "configuration key operator-api-serve-addr: \"nowhere\" is not an address and port such as :4244",
            "configuration key cluster-pool-ipv4-cidr: \"10.0.0.0/24\" is not possible: mask size 20 does not fit 10.0.0.0/24: it must be from 24 to 32",
        ]
    );
}

#[test]
fn cluster_pool_mode_needs_a_pool_of_every_family_that_is_on() {
    let errors = load(&["--enable-ipv6=true"], &[("cluster-pool-ipv4-cidr", "10.0.0.0/8")]).unwrap_err();
    let wanted = "enough with ipam: cluster-pool: name prefixes for the nodes' pod CIDRs";
    assert_eq!(errors, [format!("configuration key cluster-pool-ipv6-cidr: \"\" is not {wanted}")]);
    let wrong = load(&[], &[("cluster-pool-ipv4-cidr", "10.0.0.0/8 fd00::/104 x")]).unwrap_err();
    let refused = |item| format!("configuration key cluster-pool-ipv4-cidr: {item:?} is not an IPv4 prefix");
    assert_eq!(wrong, ["fd00::/104", "x"].map(refused));
    let config = load(&["--ipam=kubernetes", "--enable-ipv6=true"], &[]).unwrap();
    assert!(config.cluster_pools.is_none());
}

#[test]
fn intervals_of_zero_turn_collection_off_and_so_does_the_lack_of_endpoint_objects() {
    let config = load(&["--ipam=kubernetes", "--nodes-gc-interval=0s"], &[]).unwrap();
    assert_eq!((config.node_gc_interval, config.endpoint_gc_interval.is_some()), (None, true));
    assert_eq!(config.metrics_address, None);
    let config = load(&["--ipam=kubernetes", "--disable-endpoint-crd=true"], &[]).unwrap();
    assert_eq!((config.identity_gc, config.endpoint_gc_interval), (None, None));
}

#[test]
fn services_without_a_class_are_given_addresses_by_one_of_the_two_and_by_none_that_is_off() {
    let classes = |flags: &[&str]| {
        let config = load(&[&["--ipam=kubernetes"], flags].concat(), &[]).unwrap();
        [config.lb_ipam, config.node_ipam].map(|ipam| ipam.map(|ipam| ipam.default_class))
    };
    assert_eq!(classes(&[]), [Some(true), None]);
    assert_eq!(classes(&["--enable-node-ipam=true"]), [Some(true), Some(false)]);
    let by_nodes = ["--enable-node-ipam=true", "--default-lb-service-ipam=nodeipam"];
    assert_eq!(classes(&by_nodes), [Some(false), Some(true)]);
    assert!(load(&["--ipam=kubernetes", by_nodes[1]], &[]).is_err(), "nobody would give any");
}

#[test]
fn keys_that_look_like_ours_and_are_not_are_named_and_the_agents_are_not() {
    let files = [("operator-frobnicate", "1"), ("enable-hubble", "true"), ("..data", "x"), ("ipam", "kubernetes")];
    assert_eq!(load(&[], &files).unwrap().unknown, ["operator-frobnicate"]);
}

#[test]
fn the_documented_defaults_are_what_no_keys_mean() {
    // Only of one key the default is not enough: cluster-pool needs a pool.
    let pool = [("cluster-pool-ipv4-cidr".to_owned(), "10.0.0.0/8".to_owned())];
    let documented: BTreeMap<_, _> =
        Keys::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).chain(pool.clone()).collect();
    let text = |values| format!("{:?}", Config::parse(&values).unwrap());
    assert_eq!(text(documented), text(pool.into()));
}

#[test]
fn a_folder_that_cannot_be_read_is_named() {
    let arguments = Arguments { config_dir: Some("/no/such/folder".into()), ..Arguments::default() };
    assert!(Config::load(&arguments).unwrap_err().to_string().contains("/no/such/folder"));
}

#[test]
fn the_command_line_is_well_formed() {
    command().debug_assert();
}
