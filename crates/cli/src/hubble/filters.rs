// SPDX-License-Identifier: Apache-2.0
//! The filter flags of `hubble observe`, and the filters that they make.
//!
//! A flag that names a peer without saying which side (`--pod`) makes two filters, one for each side. `--not` before a flag
//! puts it on the deny list. Flags that Hubble's own command refuses together are refused here, too.

mod build;

#[cfg(test)]
mod tests;

use anyhow::{Context, Result, bail};
use build::Builder;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use hubble::proto::flow::FlowFilter;
use std::ffi::OsString;

struct Flag {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    help: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// One value, of which a comma may be a part.
    Value,
    /// Values with commas between: none of them can hold one.
    List,
}

const fn flag(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, takes: Takes::List, help }
}

const fn whole(long: &'static str, help: &'static str) -> Flag {
    Flag { takes: Takes::Value, ..flag(long, help) }
}

const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { takes: Takes::Nothing, ..flag(long, help) }
}

impl Flag {
    const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }
}

const FLAGS: &[Flag] = &[
    flag("uuid", "Only the flow with this identifier"),
    flag("node-name", "Flows of these nodes (\"k8s*\", \"cluster/*.company.com\")"),
    whole("node-label", "Flows of nodes with these labels"),
    flag("cluster", "Flows from or to endpoints of this cluster"),
    flag("from-cluster", "Flows from endpoints of this cluster"),
    flag("to-cluster", "Flows to endpoints of this cluster"),
    flag("protocol", "Flows of this protocol (\"udp\", \"http\")"),
    whole("tcp-flags", "Flows with all of these TCP flags (\"SYN\", \"SYN,ACK\")"),
    flag("type", "Events of type TYPE[:SUBTYPE]: drop, trace[:POINT], policy-verdict, capture, l7, trace-sock")
        .short('t'),
    flag("verdict", "Flows with this verdict (FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED, TRANSLATED)"),
    flag("drop-reason-desc", "Flows dropped for this reason (\"POLICY_DENIED\")"),
    flag("http-status", "Flows with this HTTP status, or prefix of one (\"404\", \"5+\")"),
    flag("http-method", "Flows with this HTTP method"),
    whole("http-path", "Flows whose HTTP path matches this regular expression"),
    whole("http-url", "Flows whose HTTP URL matches this regular expression"),
    whole("http-header", "Flows with this HTTP header (\"key:value\")"),
    flag("trace-id", "Flows with this trace"),
    flag("ip-trace-id", "Flows with this IP trace"),
    whole("dns-query", "Flows whose DNS query matches this regular expression"),
    flag("fqdn", "Flows from or to this domain name (\"*.cilium.io\")"),
    flag("from-fqdn", "Flows from this domain name"),
    flag("to-fqdn", "Flows to this domain name"),
    flag("ip", "Flows from or to this address or prefix"),
    flag("from-ip", "Flows from this address or prefix"),
    flag("to-ip", "Flows to this address or prefix"),
    flag("snat-ip", "Flows whose source was translated to this address or prefix"),
    switch("ipv4", "Only IPv4 flows").short('4'),
    switch("ipv6", "Only IPv6 flows").short('6'),
    flag("ip-version", "Flows of this IP version (none, v4, v6)"),
    flag(
        "pod",
        "Flows from or to pods with this name prefix ([namespace/]PREFIX; the namespace is \"default\" if not given)",
    ),
    flag("from-pod", "Flows from pods with this name prefix"),
    flag("to-pod", "Flows to pods with this name prefix"),
    flag("namespace", "Flows from or to this namespace").short('n'),
    flag("from-namespace", "Flows from this namespace"),
    flag("to-namespace", "Flows to this namespace"),
    switch("all-namespaces", "Flows from or to any namespace").short('A'),
    switch("from-all-namespaces", "Flows from any namespace"),
    switch("to-all-namespaces", "Flows to any namespace"),
    whole("label", "Flows from or to endpoints with these labels (\"key=value\", \"reserved:world\")").short('l'),
    whole("from-label", "Flows from endpoints with these labels"),
    whole("to-label", "Flows to endpoints with these labels"),
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
    whole("interface", "Flows seen on this interface"),
    whole("cel-expression", "Flows for which this CEL expression is true"),
];

/// Of each of these only one may be given; `*` stands for `from` and, again, for `to`.
const EXCLUSIVE: [&[&str]; 9] = [
    &["fqdn", "*-fqdn", "ip", "*-ip", "namespace", "*-namespace", "all-namespaces", "*-all-namespaces"],
    &["fqdn", "*-fqdn", "ip", "*-ip", "pod", "*-pod"],
    &["*-pod", "namespace", "all-namespaces"],
    &["*-service", "namespace", "all-namespaces"],
    &["label", "*-label"],
    &["service", "*-service"],
    &["port", "*-port"],
    &["identity", "*-identity"],
    &["workload", "*-workload"],
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
            match flag.takes {
                Takes::Nothing => {
                    arg.num_args(0).default_missing_value("true").value_parser(PossibleValuesParser::new(["true"]))
                }
                Takes::Value => arg.num_args(1),
                Takes::List => arg.num_args(1).value_delimiter(','),
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
        if next == "--not" {
            bail!("consecutive --not found in the arguments");
        }
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
/// A value that does not fit its flag, or flags that do not go together.
pub(super) fn compile(matches: &ArgMatches) -> Result<(Vec<FlowFilter>, Vec<FlowFilter>)> {
    Ok((list(matches, "")?, list(matches, "not-")?))
}

/// The filters of the flags with a prefix.
fn list(matches: &ArgMatches, prefix: &str) -> Result<Vec<FlowFilter>> {
    let values = |flag: &str| matches.get_many::<String>(&format!("{prefix}{flag}")).into_iter().flatten();
    check_exclusive(|flag| values(flag).next().is_some())?;
    let mut builder = Builder::default();
    for flag in FLAGS {
        for value in values(flag.long) {
            builder.apply(flag.long, value).with_context(|| format!("--{}={value}", flag.long))?;
        }
    }
    builder.finish()
}

fn check_exclusive(given: impl Fn(&str) -> bool) -> Result<()> {
    for group in EXCLUSIVE {
        for side in ["from", "to"] {
            let flags = group.iter().map(|flag| flag.replace('*', side)).filter(|flag| given(flag));
            if let [one, other, ..] = flags.collect::<Vec<_>>().as_slice() {
                bail!("filters --{one} and --{other} cannot be combined");
            }
        }
    }
    Ok(())
}
