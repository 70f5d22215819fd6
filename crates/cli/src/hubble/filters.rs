// SPDX-License-Identifier: Apache-2.0
//! The filter flags of `hubble observe`, and the filters that they make.
//!
//! A flag that names a peer without saying which side (`--pod`) makes two filters, one for each side. `--not` before a flag
//! puts it on the deny list.

mod build;

use anyhow::{Context, Result, bail};
use build::Builder;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use hubble::proto::flow::FlowFilter;
use std::ffi::OsString;

struct Flag {
    long: &'static str,
    short: Option<char>,
    /// Takes no value.
    switch: bool,
    help: &'static str,
}

const fn flag(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, switch: false, help }
}

const fn short(long: &'static str, short: char, help: &'static str) -> Flag {
    Flag { long, short: Some(short), switch: false, help }
}

const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, switch: true, help }
}

const FLAGS: &[Flag] = &[
    flag("uuid", "Only the flow with this identifier"),
    flag("node-name", "Flows of these nodes (\"k8s*\", \"cluster/*.company.com\")"),
    flag("node-label", "Flows of nodes with these labels"),
    flag("cluster", "Flows from or to endpoints of this cluster"),
    flag("from-cluster", "Flows from endpoints of this cluster"),
    flag("to-cluster", "Flows to endpoints of this cluster"),
    flag("protocol", "Flows of this protocol (\"udp\", \"http\")"),
    flag("tcp-flags", "Flows with these TCP flags (\"syn\", \"ack\")"),
    short("type", 't', "Events of type TYPE[:SUBTYPE]: drop, trace[:POINT], policy-verdict, capture, l7, trace-sock"),
    flag("verdict", "Flows with this verdict (FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED, TRANSLATED)"),
    flag("drop-reason-desc", "Flows dropped for this reason (\"POLICY_DENIED\")"),
    flag("http-status", "Flows with this HTTP status, or prefix of one (\"404\", \"5+\")"),
    flag("http-method", "Flows with this HTTP method"),
    flag("http-path", "Flows whose HTTP path matches this regular expression"),
    flag("http-url", "Flows whose HTTP URL matches this regular expression"),
    flag("http-header", "Flows with this HTTP header (\"key:value\")"),
    flag("trace-id", "Flows with this trace"),
    flag("ip-trace-id", "Flows with this IP trace"),
    flag("dns-query", "Flows whose DNS query matches this regular expression"),
    flag("fqdn", "Flows from or to this domain name (\"*.cilium.io\")"),
    flag("from-fqdn", "Flows from this domain name"),
    flag("to-fqdn", "Flows to this domain name"),
    flag("ip", "Flows from or to this address or prefix"),
    flag("from-ip", "Flows from this address or prefix"),
    flag("to-ip", "Flows to this address or prefix"),
    flag("snat-ip", "Flows whose source was translated to this address or prefix"),
    switch("ipv4", Some('4'), "Only IPv4 flows"),
    switch("ipv6", Some('6'), "Only IPv6 flows"),
    flag("ip-version", "Flows of this IP version (none, v4, v6)"),
    flag(
        "pod",
        "Flows from or to pods with this name prefix ([namespace/]PREFIX; the namespace is \"default\" if not given)",
    ),
    flag("from-pod", "Flows from pods with this name prefix"),
    flag("to-pod", "Flows to pods with this name prefix"),
    short("namespace", 'n', "Flows from or to this namespace"),
    flag("from-namespace", "Flows from this namespace"),
    flag("to-namespace", "Flows to this namespace"),
    switch("all-namespaces", Some('A'), "Flows from or to any namespace"),
    switch("from-all-namespaces", None, "Flows from any namespace"),
    switch("to-all-namespaces", None, "Flows to any namespace"),
    short("label", 'l', "Flows from or to endpoints with these labels (\"key=value\", \"reserved:world\")"),
    flag("from-label", "Flows from endpoints with these labels"),
    flag("to-label", "Flows to endpoints with these labels"),
    flag("service", "Flows from or to services with this name prefix"),
    flag("from-service", "Flows from services with this name prefix"),
    flag("to-service", "Flows to services with this name prefix"),
    flag("port", "Flows from or to this port"),
    flag("from-port", "Flows from this port"),
    flag("to-port", "Flows to this port"),
    flag("workload", "Flows from or to this workload ([kind/]name)"),
    flag("from-workload", "Flows from this workload"),
    flag("to-workload", "Flows to this workload"),
    flag("identity", "Flows from or to this identity (number, or name of a reserved one)"),
    flag("from-identity", "Flows from this identity"),
    flag("to-identity", "Flows to this identity"),
    flag("traffic-direction", "Flows in this direction (ingress, egress)"),
    flag("reply", "Only replies (true), or only what is not a reply (false)"),
    flag("interface", "Flows seen on this interface"),
    flag("cel-expression", "Flows for which this CEL expression is true"),
];

/// Adds the flags to a command.
pub(super) fn add(command: Command) -> Command {
    let heading = "Filters";
    let mut command = command.arg(
        Arg::new("not")
            .long("not")
            .num_args(0)
            .action(ArgAction::Count)
            .help_heading(heading)
            .help("Turns the next filter round: flows that fit it are not shown (--not --from-ip 10.0.0.1)"),
    );
    for flag in FLAGS {
        let arg = |id: String| {
            let arg = Arg::new(id.clone()).long(id).help(flag.help).help_heading(heading).action(ArgAction::Append);
            if flag.switch {
                arg.num_args(0).default_missing_value("true").value_parser(PossibleValuesParser::new(["true"]))
            } else {
                arg.num_args(1).value_delimiter(if flag.long.ends_with("label") { None } else { Some(',') })
            }
        };
        let mut plain = arg(flag.long.to_owned());
        if let Some(letter) = flag.short {
            plain = plain.short(letter);
        }
        command = command.arg(plain).arg(arg(format!("not-{}", flag.long)).hide(true));
    }
    command
}

/// Joins each `--not` with the flag after it, which is how the parser knows it.
///
/// # Errors
///
/// When a `--not` has no flag after it.
pub(super) fn join_not(args: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>> {
    let mut joined = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg != "--not" {
            joined.push(arg);
            continue;
        }
        let next = args.next().and_then(|a| a.into_string().ok()).context("trailing --not found in the arguments")?;
        if let Some(long) = next.strip_prefix("--") {
            joined.push(format!("--not-{long}").into());
        } else if let Some(letters) = next.strip_prefix('-') {
            let mut letters = letters.chars();
            let letter = letters.next().context("trailing --not found in the arguments")?;
            let long = FLAGS.iter().find(|f| f.short == Some(letter)).map(|f| f.long);
            let long = long.with_context(|| format!("--not before -{letter}, which is no filter"))?;
            joined.push(format!("--not-{long}").into());
            let value: String = letters.collect();
            if !value.is_empty() {
                joined.push(value.trim_start_matches('=').into());
            }
        } else {
            bail!("--not before {next:?}, which is no filter");
        }
    }
    Ok(joined)
}

/// The allow list and the deny list that the flags make.
///
/// # Errors
///
/// A value that does not fit its flag.
pub(super) fn compile(matches: &ArgMatches) -> Result<(Vec<FlowFilter>, Vec<FlowFilter>)> {
    let mut lists = (Builder::default(), Builder::default());
    for flag in FLAGS {
        let apply = |id: &str, builder: &mut Builder| -> Result<()> {
            for value in matches.get_many::<String>(id).into_iter().flatten() {
                builder.apply(flag.long, value).with_context(|| format!("--{}={value}", flag.long))?;
            }
            Ok(())
        };
        apply(flag.long, &mut lists.0)?;
        apply(&format!("not-{}", flag.long), &mut lists.1)?;
    }
    Ok((lists.0.finish()?, lists.1.finish()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use hubble::proto::flow::EventTypeFilter;

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
        let (allow, deny) = filters(&["--not", "--from-ip", "10.0.0.1", "--not", "-n", "kube-system"]).unwrap();
        assert_eq!((allow.len(), deny.len()), (0, 2));
        assert_eq!(deny[0].source_ip, ["10.0.0.1"]);
        assert_eq!(
            (deny[0].source_pod[0].as_str(), deny[1].destination_pod[0].as_str()),
            ("kube-system/", "kube-system/")
        );
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
}
