// SPDX-License-Identifier: Apache-2.0
//! `hubble observe`: flows, past and as they come.

use super::connect::Connection;
use super::print::{Output, Printer};
use super::selectors::{DEFAULT_LAST, Selectors, Window};
use super::times::Stamps;
use super::{file, filters, flows};
use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use hubble::proto::flow::FlowFilter;
use hubble::proto::observer::GetFlowsRequest;
use hubble::proto::{from_json, to_json};
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

/// What the output for people needs of a flow; the rest is not sent.
const MASK: [&str; 19] = [
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
];

/// Further fields that the output for people needs.
const MASK_MORE: [&str; 8] = [
    "ip_trace_id",
    "traffic_direction",
    "policy_match_type",
    "source_names",
    "destination_names",
    "auth_type",
    "sock_xlate_point",
    "debug_capture_point",
];

#[derive(Args, Clone, Debug)]
pub(super) struct Observe {
    #[command(flatten)]
    selectors: Selectors,
    /// How to show flows.
    #[arg(long, short, value_enum, default_value = "compact", help_heading = "Formatting", ignore_case = true)]
    output: Output,
    #[command(flatten)]
    stamps: Stamps,
    /// Show addresses, not names.
    #[arg(long, help_heading = "Formatting")]
    numeric: bool,
    /// Show names instead of addresses.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
          action = clap::ArgAction::Set, help_heading = "Formatting")]
    ip_translation: bool,
    /// When to use colours.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Formatting")]
    color: Color,
    /// Fields to ask for, for output as JSON.
    #[arg(
        long = "experimental-field-mask",
        visible_alias = "field-mask",
        value_delimiter = ',',
        help_heading = "Formatting"
    )]
    field_mask: Vec<String>,
    /// Allow list as JSON of FlowFilter.
    #[arg(long, env = "HUBBLE_ALLOWLIST", help_heading = "Filters")]
    allowlist: Vec<String>,
    /// Deny list as JSON of FlowFilter.
    #[arg(long, env = "HUBBLE_DENYLIST", help_heading = "Filters")]
    denylist: Vec<String>,
    /// Show the filters that the flags make, and nothing else.
    #[arg(long, help_heading = "Filters")]
    print_raw_filters: bool,
    /// Read flows from a file of JSON lines instead of asking a server; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "follow")]
    input_file: Option<PathBuf>,
    /// Show what nodes are up to, too.
    #[arg(long, short = 'D')]
    debug: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// Runs the command.
pub(super) async fn run(connection: &Connection, matches: &ArgMatches) -> Result<()> {
    let options = Observe::from_arg_matches(matches)?;
    if options.print_raw_filters {
        print!("{}", raw_filters(matches)?);
        return Ok(());
    }
    let request = options.request(matches)?;
    let mut printer = options.printer()?;
    if let Some(path) = &options.input_file {
        file::read(path, &request, |response| printer.print(response))?;
        return printer.finish();
    }
    flows::ask(connection, request, &mut |response| printer.print(response)).await?;
    printer.finish()
}

/// The filters as a file of `hubble config` has them.
pub(super) fn raw_filters(matches: &ArgMatches) -> Result<String> {
    let request = Observe::from_arg_matches(matches)?.request(matches)?;
    let mut text = String::new();
    for (name, list) in [("allowlist", &request.whitelist), ("denylist", &request.blacklist)] {
        if !list.is_empty() {
            text += &format!("{name}:\n");
        }
        for filter in list {
            text += &format!("    - '{}'\n", to_json(filter)?.replace('\'', "''"));
        }
    }
    Ok(text)
}

impl Observe {
    fn request(&self, matches: &ArgMatches) -> Result<GetFlowsRequest> {
        let by_default = if self.input_file.is_none() { DEFAULT_LAST } else { 0 };
        let Window { number, first, follow, since, until } = self.selectors.window(by_default)?;
        let (mut whitelist, mut blacklist) = filters::compile(matches)?;
        whitelist.append(&mut raw("allowlist", &self.allowlist)?);
        blacklist.append(&mut raw("denylist", &self.denylist)?);
        let json = matches!(self.output, Output::Json | Output::Jsonpb);
        if !json && !self.field_mask.is_empty() {
            bail!("a field mask needs output as JSON");
        }
        let paths = if json {
            self.field_mask.clone()
        } else {
            MASK.iter().chain(&MASK_MORE).map(|&path| path.to_owned()).collect()
        };
        Ok(GetFlowsRequest {
            number,
            first,
            follow,
            whitelist,
            blacklist,
            since,
            until,
            field_mask: (!paths.is_empty()).then_some(prost_types::FieldMask { paths }),
            ..GetFlowsRequest::default()
        })
    }

    fn printer(&self) -> Result<Printer<std::io::Stdout>> {
        if self.output == Output::Table && self.selectors.follow {
            bail!("a table can only be shown when it is complete, so not with --follow");
        }
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Ok(Printer {
            out: stdout(),
            output: self.output,
            time: self.stamps.time_format,
            node_name: self.stamps.print_node_name,
            translate: self.ip_translation && !self.numeric,
            color,
            debug: self.debug,
            rows: None,
            lines: 0,
        })
    }
}

/// Filters written as JSON, one or more in a text.
fn raw(flag: &str, texts: &[String]) -> Result<Vec<FlowFilter>> {
    let parse = |text: &String| -> Result<Vec<FlowFilter>> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
        values.map(|value| Ok(from_json(&value?.to_string())?)).collect()
    };
    let lists = texts.iter().map(|text| parse(text).with_context(|| format!("--{flag}={text}")));
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn request(args: &[&str]) -> Result<GetFlowsRequest> {
        let command = Observe::augment_args(filters::add(clap::Command::new("observe")));
        let args = std::iter::once("observe").chain(args.iter().copied()).map(OsString::from);
        let matches = command.try_get_matches_from(filters::join_not(args)?)?;
        Observe::from_arg_matches(&matches)?.request(&matches)
    }

    #[test]
    fn twenty_flows_are_shown_unless_something_else_is_asked_for() {
        assert_eq!(request(&[]).unwrap().number, 20);
        assert_eq!(request(&["--last", "5"]).unwrap().number, 5);
        assert_eq!(request(&["-f"]).unwrap().number, 0);
        assert_eq!(request(&["--since", "1m"]).unwrap().number, 0);
        assert_eq!(request(&["--all"]).unwrap().number, u64::MAX);
        let first = request(&["--first", "3"]).unwrap();
        assert_eq!((first.number, first.first), (3, true));
        assert!(request(&["--first", "3", "--last", "3"]).is_err() && request(&["--first", "3", "-f"]).is_err());
    }

    #[test]
    fn people_get_a_mask_and_programs_get_everything() {
        let paths = |args: &[&str]| request(args).unwrap().field_mask.map(|mask| mask.paths);
        assert!(paths(&[]).unwrap().contains(&"Summary".to_owned()));
        assert_eq!(paths(&["-o", "jsonpb"]), None);
        assert_eq!(paths(&["-o", "json", "--field-mask", "time,IP"]).unwrap(), ["time", "IP"]);
        assert!(request(&["--field-mask", "time"]).is_err());
    }

    #[test]
    fn filters_may_be_given_as_json() {
        let request =
            request(&["--allowlist", r#"{"source_pod":["a/"]}"#, "--denylist", "{\"verdict\":[\"DROPPED\"]}"]);
        let request = request.unwrap();
        assert_eq!((request.whitelist[0].source_pod[0].as_str(), request.blacklist[0].verdict[0]), ("a/", 2));
        assert!(raw("allowlist", &["{\"colour\":1}".to_owned()]).is_err());
        let two = [r#"{"source_port":["1"]} {"source_port":["2"]}"#, r#"{"source_port":["3"]}"#].map(str::to_owned);
        let ports = raw("allowlist", &two).unwrap().into_iter().map(|filter| filter.source_port[0].clone());
        assert_eq!(ports.collect::<Vec<_>>(), ["1", "2", "3"]);
        assert!(raw("allowlist", &["{} nonsense".to_owned()]).is_err());
    }
}
