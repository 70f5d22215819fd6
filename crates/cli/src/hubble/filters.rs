// SPDX-License-Identifier: Apache-2.0
//! The filter flags of `hubble observe`, and the filters that they make.
//!
//! A flag that names a peer without saying which side (`--pod`) makes two filters, one for each side. `--not` before a flag
//! puts it on the deny list.

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use hubble::proto::flow::flow_filter::Experimental;
use hubble::proto::flow::{
    DropReason, EventTypeFilter, FlowFilter, HttpHeader, IpVersion, NetworkInterface, TcpFlags, TrafficDirection,
    Verdict, Workload,
};
use std::ffi::OsString;

/// Which side of a flow a value is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
    /// Either.
    Both,
}

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

/// The filters for both sides of a flow; the same when no flag was about "either side".
#[derive(Default)]
struct Builder {
    left: Half,
    right: Half,
}

#[derive(Default)]
struct Half {
    filter: FlowFilter,
    pods: Names,
    peers: Names,
}

/// Names of one side, of which pods may stand in the namespaces that were given apart.
#[derive(Default)]
struct Names {
    namespaces: Vec<String>,
    pods: Vec<String>,
}

impl Builder {
    fn finish(self) -> Result<Vec<FlowFilter>> {
        let (left, right) = (self.left.finish()?, self.right.finish()?);
        if left == FlowFilter::default() && right == left {
            return Ok(Vec::new());
        }
        Ok(if left == right { vec![left] } else { vec![left, right] })
    }

    fn both(&mut self, set: impl Fn(&mut FlowFilter)) {
        set(&mut self.left.filter);
        set(&mut self.right.filter);
    }

    /// Sets a field of one side, in both filters; or of the source in one and of the destination in the other.
    fn side(&mut self, side: Side, source: impl Fn(&mut Half), destination: impl Fn(&mut Half)) {
        match side {
            Side::Source => [&mut self.left, &mut self.right].into_iter().for_each(source),
            Side::Destination => [&mut self.left, &mut self.right].into_iter().for_each(destination),
            Side::Both => {
                source(&mut self.left);
                destination(&mut self.right);
            }
        }
    }

    fn apply(&mut self, flag: &str, value: &str) -> Result<()> {
        let (side, name) = match flag.split_once('-') {
            Some(("from", name)) => (Side::Source, name),
            Some(("to", name)) => (Side::Destination, name),
            _ => (Side::Both, flag),
        };
        let text = || value.to_owned();
        match name {
            "pod" => self.side(side, |h| h.pods.pods.push(text()), |h| h.peers.pods.push(text())),
            "namespace" => self.side(side, |h| h.pods.namespaces.push(text()), |h| h.peers.namespaces.push(text())),
            "all-namespaces" => {
                let any = || "/".to_owned();
                self.side(side, |h| h.filter.source_pod.push(any()), |h| h.filter.destination_pod.push(any()));
            }
            "ip" => self.side(side, |h| h.filter.source_ip.push(text()), |h| h.filter.destination_ip.push(text())),
            "fqdn" => {
                self.side(side, |h| h.filter.source_fqdn.push(text()), |h| h.filter.destination_fqdn.push(text()))
            }
            "label" => {
                self.side(side, |h| h.filter.source_label.push(text()), |h| h.filter.destination_label.push(text()));
            }
            "service" => {
                self.side(
                    side,
                    |h| h.filter.source_service.push(text()),
                    |h| h.filter.destination_service.push(text()),
                );
            }
            "port" => {
                self.side(side, |h| h.filter.source_port.push(text()), |h| h.filter.destination_port.push(text()))
            }
            "cluster" => self.side(
                side,
                |h| h.filter.source_cluster_name.push(text()),
                |h| h.filter.destination_cluster_name.push(text()),
            ),
            "workload" => {
                let workload = || workload(value);
                self.side(
                    side,
                    |h| h.filter.source_workload.push(workload()),
                    |h| h.filter.destination_workload.push(workload()),
                );
            }
            "identity" => {
                let id = identity(value)?;
                self.side(side, |h| h.filter.source_identity.push(id), |h| h.filter.destination_identity.push(id));
            }
            _ => self.apply_common(flag, value)?,
        }
        Ok(())
    }

    /// Flags that are not about a side.
    fn apply_common(&mut self, flag: &str, value: &str) -> Result<()> {
        let text = || value.to_owned();
        match flag {
            "uuid" => self.both(|f| f.uuid.push(text())),
            "node-name" => self.both(|f| f.node_name.push(text())),
            "node-label" => self.both(|f| f.node_labels.push(text())),
            "protocol" => self.both(|f| f.protocol.push(text())),
            "http-status" => self.both(|f| f.http_status_code.push(text())),
            "http-method" => self.both(|f| f.http_method.push(text())),
            "http-path" => self.both(|f| f.http_path.push(text())),
            "http-url" => self.both(|f| f.http_url.push(text())),
            "dns-query" => self.both(|f| f.dns_query.push(text())),
            "trace-id" => self.both(|f| f.trace_id.push(text())),
            "snat-ip" => self.both(|f| f.source_ip_xlated.push(text())),
            "interface" => self.both(|f| f.interface.push(NetworkInterface { name: text(), index: 0 })),
            "cel-expression" => self.both(|f| {
                f.experimental.get_or_insert_with(Experimental::default).cel_expression.push(text());
            }),
            "http-header" => {
                let (key, value) = value.split_once(':').context("want key:value")?;
                let header = || HttpHeader { key: key.to_owned(), value: value.to_owned() };
                self.both(|f| f.http_header.push(header()));
            }
            _ => return self.apply_parsed(flag, value),
        }
        Ok(())
    }

    fn apply_parsed(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "tcp-flags" => {
                let flags = tcp_flags(value)?;
                self.both(|f| f.tcp_flags.push(flags));
            }
            "type" => {
                let event = event_type(value)?;
                self.both(|f| f.event_type.push(event));
            }
            "verdict" => {
                let verdict = Verdict::from_str_name(&value.to_uppercase()).context("is not a verdict")?;
                self.both(|f| f.verdict.push(verdict.into()));
            }
            "drop-reason-desc" => {
                let reason = DropReason::from_str_name(&value.to_uppercase()).context("is not a drop reason")?;
                self.both(|f| f.drop_reason_desc.push(reason.into()));
            }
            "traffic-direction" => {
                let direction = TrafficDirection::from_str_name(&value.to_uppercase());
                let direction = direction.context("want ingress or egress")?;
                self.both(|f| f.traffic_direction.push(direction.into()));
            }
            "ipv4" => self.both(|f| f.ip_version.push(IpVersion::IPv4.into())),
            "ipv6" => self.both(|f| f.ip_version.push(IpVersion::IPv6.into())),
            "ip-version" => {
                let version = match value.to_lowercase().as_str() {
                    "none" => IpVersion::IpNotUsed,
                    "v4" | "ipv4" | "4" => IpVersion::IPv4,
                    "v6" | "ipv6" | "6" => IpVersion::IPv6,
                    _ => bail!("want none, v4 or v6"),
                };
                self.both(|f| f.ip_version.push(version.into()));
            }
            "ip-trace-id" => {
                let id = value.parse().context("want a number")?;
                self.both(|f| f.ip_trace_id.push(id));
            }
            "reply" => {
                let reply = value.parse().context("want true or false")?;
                self.both(|f| f.reply.push(reply));
            }
            other => bail!("--{other} is not known"),
        }
        Ok(())
    }
}

impl Half {
    fn finish(self) -> Result<FlowFilter> {
        let mut filter = self.filter;
        filter.source_pod.append(&mut self.pods.qualified()?);
        filter.destination_pod.append(&mut self.peers.qualified()?);
        Ok(filter)
    }
}

impl Names {
    fn qualified(self) -> Result<Vec<String>> {
        if self.pods.is_empty() {
            return Ok(self.namespaces.into_iter().map(|namespace| namespace + "/").collect());
        }
        if self.namespaces.is_empty() {
            return Ok(self.pods);
        }
        if let Some(pod) = self.pods.iter().find(|pod| pod.contains('/')) {
            return Err(anyhow!("{pod:?} names a namespace, and so does another flag: give it only once"));
        }
        let pods = &self.pods;
        Ok(self.namespaces.iter().flat_map(|n| pods.iter().map(move |p| format!("{n}/{p}"))).collect())
    }
}

fn workload(text: &str) -> Workload {
    let (kind, name) = text.split_once('/').unwrap_or(("", text));
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

fn identity(text: &str) -> Result<u32> {
    let named = || {
        let all = model::reserved::all();
        let name = text.strip_prefix("reserved:").unwrap_or(text);
        all.into_iter().find(|i| model::reserved::name(i.id) == Some(name)).map(|i| i.id.0)
    };
    text.parse().ok().or_else(named).context("want a number or the name of a reserved identity")
}

fn tcp_flags(text: &str) -> Result<TcpFlags> {
    let mut flags = TcpFlags::default();
    let flag = match text.to_lowercase().as_str() {
        "fin" => &mut flags.fin,
        "syn" => &mut flags.syn,
        "rst" => &mut flags.rst,
        "psh" => &mut flags.psh,
        "ack" => &mut flags.ack,
        "urg" => &mut flags.urg,
        "ece" => &mut flags.ece,
        "cwr" => &mut flags.cwr,
        "ns" => &mut flags.ns,
        _ => bail!("is not a TCP flag"),
    };
    *flag = true;
    Ok(flags)
}

fn event_type(text: &str) -> Result<EventTypeFilter> {
    let (kind, sub) = text.split_once(':').map_or((text, None), |(kind, sub)| (kind, Some(sub)));
    let number = match kind {
        "drop" => 1,
        "debug" => 2,
        "capture" => 3,
        "trace" => 4,
        "policy-verdict" => 5,
        "trace-sock" => 7,
        "l7" => 129,
        "agent" => 130,
        other => other.parse().context("want drop, capture, trace, policy-verdict, trace-sock or l7")?,
    };
    let sub = sub.map(|sub| super::names::observation_point_number(sub).or_else(|| sub.parse().ok()));
    let sub_type = sub.map(|sub| sub.context("is not a subtype")).transpose()?;
    Ok(EventTypeFilter { r#type: number, match_sub_type: sub_type.is_some(), sub_type: sub_type.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

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
