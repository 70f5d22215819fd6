// SPDX-License-Identifier: Apache-2.0
//! Flags in, filters out.

use super::*;
use hubble::proto::flow::{EventTypeFilter, TcpFlags};

fn filters(args: &[&str]) -> Result<(Vec<FlowFilter>, Vec<FlowFilter>)> {
    let args = std::iter::once("observe").chain(args.iter().copied()).map(OsString::from);
    let matches = add(Command::new("observe")).try_get_matches_from(join_not(args)?)?;
    compile(&matches)
}

#[test]
fn a_flag_about_either_side_makes_a_filter_for_each() {
    let (allow, deny) = filters(&["-n", "shop", "--protocol", "tcp"]).unwrap();
    assert_eq!((allow.len(), deny.len()), (2, 0));
    assert_eq!((allow[0].source_pod[0].as_str(), allow[1].destination_pod[0].as_str()), ("shop/", "shop/"));
    assert!(allow.iter().all(|f| f.protocol == ["tcp"]));
    assert!(allow[0].destination_pod.is_empty() && allow[1].source_pod.is_empty());
}

#[test]
fn flags_about_one_side_make_one_filter() {
    let (allow, _) = filters(&["--from-namespace", "shop", "--to-pod", "shop/db", "--verdict", "dropped"]).unwrap();
    assert_eq!(allow.len(), 1);
    assert_eq!((allow[0].source_pod[0].as_str(), allow[0].destination_pod[0].as_str()), ("shop/", "shop/db"));
    assert_eq!(allow[0].verdict, [2]);
    assert_eq!(filters(&[]).unwrap(), (Vec::new(), Vec::new()));
}

#[test]
fn a_pod_stands_in_the_namespace_that_is_given_with_it() {
    let (allow, _) = filters(&["--from-namespace", "a,b", "--from-pod", "web"]).unwrap();
    assert_eq!(allow[0].source_pod, ["a/web", "b/web"]);
    assert!(filters(&["--from-namespace", "a", "--from-pod", "b/web"]).is_err());
}

#[test]
fn not_turns_the_next_flag_round_long_or_short() {
    let (allow, deny) = filters(&["--not", "--from-ip", "10.0.0.1"]).unwrap();
    assert_eq!((allow.len(), deny.len()), (0, 1));
    assert_eq!(deny[0].source_ip, ["10.0.0.1"]);
    let (allow, deny) = filters(&["--not", "--snat-ip", "10.0.0.1", "--not", "-n", "kube-system"]).unwrap();
    assert_eq!((allow.len(), deny.len()), (0, 2));
    assert_eq!(deny[0].source_ip_xlated, ["10.0.0.1"]);
    assert_eq!((deny[0].source_pod[0].as_str(), deny[1].destination_pod[0].as_str()), ("kube-system/", "kube-system/"));
    let (_, deny) = filters(&["--not", "--all-namespaces", "--not", "-t=drop"]).unwrap();
    assert_eq!((deny[0].source_pod[0].as_str(), deny[0].event_type[0].r#type), ("/", 1));
    assert!(filters(&["--not"]).is_err() && filters(&["--not", "x"]).is_err());
}

#[test]
fn types_identities_and_flags_are_known_by_name() {
    let (allow, _) = filters(&["-t", "trace:to-endpoint", "--to-identity", "world", "--tcp-flags", "SYN"]).unwrap();
    assert_eq!(allow[0].event_type[0], EventTypeFilter { r#type: 4, match_sub_type: true, sub_type: 0 });
    assert_eq!(allow[0].destination_identity, [2]);
    assert!(allow[0].tcp_flags[0].syn);
    let (allow, _) = filters(&["--workload", "Deployment/web", "-6", "--label", "a in (b,c)"]).unwrap();
    assert_eq!(allow[0].source_workload[0].kind, "Deployment");
    assert_eq!((allow[0].ip_version[0], allow[0].source_label.clone()), (2, vec!["a in (b,c)".to_owned()]));
}

#[test]
fn a_value_that_does_not_fit_names_its_flag() {
    for bad in [["--verdict", "maybe"], ["--identity", "nobody"], ["-t", "x"], ["--http-header", "x"]] {
        let error = filters(&bad).unwrap_err().to_string();
        assert!(error.starts_with("--"), "{error}");
    }
}

fn refused(args: &[&str]) -> String {
    filters(args).unwrap_err().to_string()
}

#[test]
fn all_tcp_flags_of_a_value_are_wanted_and_any_of_the_values() {
    let (allow, _) = filters(&["--tcp-flags", "SYN,ack", "--tcp-flags", "RST"]).unwrap();
    let both = TcpFlags { syn: true, ack: true, ..TcpFlags::default() };
    assert_eq!(allow[0].tcp_flags, [both, TcpFlags { rst: true, ..TcpFlags::default() }]);
    assert_eq!(allow.len(), 1);
    assert!(refused(&["--tcp-flags", "SYN,FOO"]).starts_with("--tcp-flags=SYN,FOO"));
    assert!(filters(&["--tcp-flags", ""]).is_err() && filters(&["--tcp-flags", "SYN,"]).is_err());
    for name in ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"] {
        let (allow, _) = filters(&["--tcp-flags", name]).unwrap();
        assert_eq!(format!("{:?}", allow[0].tcp_flags[0]).matches("true").count(), 1, "{name}");
        assert!(format!("{:?}", allow[0].tcp_flags[0]).contains(&format!("{}: true", name.to_lowercase())), "{name}");
    }
}

#[test]
fn a_comma_belongs_to_a_value_that_can_hold_one() {
    let pattern = "^/a{1,3}$,b";
    for flag in ["http-path", "http-url", "dns-query"] {
        let (allow, _) = filters(&[&format!("--{flag}"), pattern]).unwrap();
        let filter = &allow[0];
        assert_eq!([&filter.http_path, &filter.http_url, &filter.dns_query].map(Vec::len).iter().sum::<usize>(), 1);
        assert!(format!("{filter:?}").contains(pattern), "{flag}");
    }
    let (allow, _) = filters(&["--cel-expression", "f(a, b) && [1,2] == c"]).unwrap();
    assert_eq!(allow[0].experimental.as_ref().unwrap().cel_expression, ["f(a, b) && [1,2] == c"]);
    let (allow, _) = filters(&["--http-header", "Accept:text/html,*/*", "--interface", "a,b"]).unwrap();
    assert_eq!((allow[0].http_header.len(), allow[0].http_header[0].value.as_str()), (1, "text/html,*/*"));
    assert_eq!(allow[0].interface[0].name, "a,b");
    for flag in ["--label", "--from-label", "--to-label", "--node-label"] {
        let (allow, _) = filters(&[flag, "a in (b,c),d=e"]).unwrap();
        let filter = &allow[0];
        let labels = [&filter.source_label, &filter.destination_label, &filter.node_labels];
        assert_eq!(labels.into_iter().flatten().collect::<Vec<_>>(), ["a in (b,c),d=e"], "{flag}");
    }
}

#[test]
fn a_comma_parts_values_that_cannot_hold_one() {
    let (allow, _) = filters(&["--verdict", "DROPPED,AUDIT", "--protocol=tcp,udp", "--to-port", "53,80"]).unwrap();
    assert_eq!((allow[0].verdict.as_slice(), allow[0].destination_port.len()), ([2, 4].as_slice(), 2));
    assert_eq!(allow[0].protocol, ["tcp", "udp"]);
}

#[test]
fn either_side_and_one_side_cannot_be_combined() {
    let error = refused(&["--pod", "a", "--from-pod", "b"]);
    assert_eq!(error, "filters --pod and --from-pod cannot be combined");
    for kind in ["fqdn", "ip", "namespace", "pod", "label", "service", "port", "identity", "workload"] {
        for side in ["from", "to"] {
            let (either, one) = (format!("--{kind}"), format!("--{side}-{kind}"));
            let error = refused(&[&one, "1", &either, "1"]);
            assert_eq!(error, format!("filters {either} and {one} cannot be combined"));
            filters(&[&one, "1"]).unwrap();
        }
        filters(&[&format!("--from-{kind}"), "1", &format!("--to-{kind}"), "1"]).unwrap();
    }
}

#[test]
fn a_peer_is_named_in_one_way_only() {
    for (one, other) in [
        ("--ip", "--fqdn"),
        ("--ip", "--to-fqdn"),
        ("--from-ip", "--from-fqdn"),
        ("--from-ip", "--pod"),
        ("--to-ip", "--to-pod"),
        ("--to-fqdn", "--to-pod"),
        ("--ip", "--from-namespace"),
        ("--from-fqdn", "--namespace"),
        ("--from-pod", "--namespace"),
        ("--to-pod", "--namespace"),
        ("--from-service", "--namespace"),
        ("--to-service", "--namespace"),
    ] {
        assert!(refused(&[one, "1", other, "1"]).contains("cannot be combined"), "{one} {other}");
    }
    for (switch, other) in [
        ("--all-namespaces", "--namespace"),
        ("--all-namespaces", "--from-pod"),
        ("--from-all-namespaces", "--from-ip"),
        ("--to-all-namespaces", "--to-namespace"),
    ] {
        assert!(refused(&[switch, other, "1"]).contains("cannot be combined"), "{switch} {other}");
    }
    for fine in [
        ["--from-ip", "--to-pod"],
        ["--from-pod", "--from-namespace"],
        ["--namespace", "--pod"],
        ["--namespace", "--service"],
        ["--from-ip", "--to-namespace"],
        ["--cluster", "--from-cluster"],
    ] {
        filters(&[fine[0], "1", fine[1], "1"]).unwrap();
    }
    filters(&["--pod", "a", "--not", "--from-pod", "b"]).unwrap();
    assert!(refused(&["--not", "--pod", "a", "--not", "--from-pod", "b"]).contains("cannot be combined"));
}

#[test]
fn namespaces_hold_for_pods_and_services_alike() {
    let (allow, _) = filters(&["-n", "shop", "--service", "db"]).unwrap();
    assert_eq!((allow[0].source_service.as_slice(), allow[0].source_pod.len()), (["shop/db".to_owned()].as_slice(), 0));
    assert_eq!(allow[1].destination_service, ["shop/db"]);
    let (allow, _) = filters(&["-A", "--pod", "web"]).unwrap();
    assert_eq!(
        (allow[0].source_pod.as_slice(), allow[1].destination_pod.as_slice()),
        (&["/web".to_owned()][..], &["/web".to_owned()][..])
    );
    let (allow, _) =
        filters(&["--from-namespace", "shop", "--from-pod", "shop/web", "--from-service", "shop/db"]).unwrap();
    assert_eq!((allow[0].source_pod[0].as_str(), allow[0].source_service[0].as_str()), ("shop/web", "shop/db"));
    let (allow, _) = filters(&["--from-namespace", "a", "--pod", "web"]).unwrap();
    assert_eq!((allow[0].source_pod.as_slice(), allow[0].destination_pod.len()), (&["a/web".to_owned()][..], 0));
    assert_eq!((allow[1].source_pod[0].as_str(), allow[1].destination_pod[0].as_str()), ("a/", "web"));
    assert!(refused(&["--to-service", "a/db", "--to-pod", "b/db"]).contains("not in the same namespace"));
    assert!(refused(&["-n", "a", "--service", "b/db"]).contains("not in the namespace"));
    assert!(filters(&["-A", "--pod", "b/db"]).is_err());
}

#[test]
fn subtypes_have_names_where_they_mean_something() {
    let event = |text: &str| filters(&["-t", text]).map(|(allow, _)| allow[0].event_type[0]);
    let of = |r#type, sub_type| EventTypeFilter { r#type, match_sub_type: true, sub_type };
    assert_eq!(event("trace:from-network").unwrap(), of(4, 10));
    assert_eq!(event("4:to-host").unwrap(), of(4, 2));
    assert_eq!(event("agent:policy-updated").unwrap(), of(130, 3));
    assert_eq!(event("255:127").unwrap(), of(255, 127));
    assert_eq!(event("drop:133").unwrap(), of(1, 133));
    assert_eq!(event("254").unwrap(), EventTypeFilter { r#type: 254, match_sub_type: false, sub_type: 0 });
    for bad in ["drop:to-host", "trace:nowhere", "agent:Policy updated", "trace:"] {
        assert!(event(bad).is_err(), "{bad}");
    }
}

#[test]
fn numbers_and_versions_are_checked() {
    assert!(filters(&["--ip-trace-id", "0"]).is_err() && filters(&["--ip-version", "v5"]).is_err());
    let (allow, _) = filters(&["--ip-trace-id", "7", "--ip-version", "ip4,IPv6,none"]).unwrap();
    assert_eq!(
        (allow[0].ip_trace_id.as_slice(), allow[0].ip_version.as_slice()),
        ([7].as_slice(), [1, 2, 0].as_slice())
    );
    assert!(refused(&["--not", "--not", "--ip", "::1"]).contains("consecutive --not"));
}
