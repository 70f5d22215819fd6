// SPDX-License-Identifier: Apache-2.0
//! The metrics of flows selected by `hubble-metrics`: plug-ins separated by white space, each with its options after a
//! colon, `drop:sourceContext=pod|ip;labelsContext=source_namespace flow`.

use super::context::{Contexts, Side};
use super::plugins::Kind;
use model::config::{Accepts, Field, Form, Key, Reader};

/// The enabled plug-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugins(pub(crate) Vec<Plugin>);

/// A plug-in with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    pub(crate) kind: Kind,
    pub(crate) contexts: Contexts,
    pub(crate) switches: Switches,
}

/// Options specific to a plug-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// `flows-to-world`: drops for any reason, not just by policy.
    pub(crate) any_drop: bool,
    /// `flows-to-world`: a label with the port.
    pub(crate) port: bool,
    /// `flows-to-world`: TCP flows by their first packet only.
    pub(crate) syn_only: bool,
    /// `dns`: a label with the queried name.
    pub(crate) query: bool,
    /// `dns`: leave out queries for IPv6 addresses.
    pub(crate) ignore_aaaa: bool,
    /// `httpV2`: durations name a trace as an example.
    pub(crate) exemplars: bool,
}

/// What the chart can check of a list: its options are left to the daemon.
const LIST: &str =
    r"^\s*((dns|drop|flow|flows-to-world|http|httpV2|icmp|policy|port-distribution|tcp)(:\S*)?(\s+|$))*$";

impl Field for Plugins {
    fn form() -> Form {
        Form::new(format!("a list of metrics, each one of {}", Kind::names()), Accepts::Pattern(LIST))
    }

    fn read(reader: &mut Reader<'_>, key: &Key<Self>) -> Self {
        let mut plugins: Vec<Plugin> = Vec::new();
        let list = reader.given(key.name).unwrap_or_default();
        let named = |text| {
            let (name, options) = str::split_once(text, ':').unwrap_or((text, ""));
            Some((text, Kind::of(name)?, options))
        };
        let Some(named) = list.split_whitespace().map(named).collect::<Option<Vec<_>>>() else {
            reader.refuse(key.name, list, key.form().want);
            return Self::default();
        };
        for (text, kind, options) in named {
            match Plugin::new(kind, options) {
                Ok(plugin) if plugins.iter().any(|other| other.kind.family() == plugin.kind.family()) => {
                    reader.refuse(key.name, text, "possible: its metrics are named already");
                }
                Ok(plugin) => plugins.push(plugin),
                Err(want) => reader.refuse(key.name, text, want),
            }
        }
        Self(plugins)
    }
}

impl Plugin {
    /// From its name and its options with `;` between; the error says what is not accepted.
    pub(super) fn parse(name: &str, options: &str) -> Result<Self, String> {
        let kind = Kind::of(name).ok_or_else(|| format!("want one of {}", Kind::names()))?;
        Self::new(kind, options)
    }

    fn new(kind: Kind, options: &str) -> Result<Self, String> {
        let mut plugin = Self { kind, contexts: Contexts::default(), switches: Switches::default() };
        for option in options.split(';').filter(|option| !option.is_empty()) {
            plugin.option(option)?;
        }
        Ok(plugin)
    }

    fn option(&mut self, text: &str) -> Result<(), String> {
        let unknown = || format!("possible: {} has no option {text}", self.kind.name());
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let side = |side| move |contexts: &mut Contexts| contexts.add(side, value);
        match name {
            "sourceContext" => side(Side::Source)(&mut self.contexts),
            "destinationContext" => side(Side::Destination)(&mut self.contexts),
            "sourceEgressContext" => side(Side::SourceEgress)(&mut self.contexts),
            "sourceIngressContext" => side(Side::SourceIngress)(&mut self.contexts),
            "destinationEgressContext" => side(Side::DestinationEgress)(&mut self.contexts),
            "destinationIngressContext" => side(Side::DestinationIngress)(&mut self.contexts),
            "labelsContext" => self.contexts.add_labels(value),
            _ => {
                let switch = match (self.kind, name) {
                    (Kind::FlowsToWorld, "any-drop") => &mut self.switches.any_drop,
                    (Kind::FlowsToWorld, "port") => &mut self.switches.port,
                    (Kind::FlowsToWorld, "syn-only") => &mut self.switches.syn_only,
                    (Kind::Dns, "query") => &mut self.switches.query,
                    (Kind::Dns, "ignoreAAAA") => &mut self.switches.ignore_aaaa,
                    (Kind::HttpV2, "exemplars") => &mut self.switches.exemplars,
                    _ => return Err(unknown()),
                };
                *switch = value.is_empty() || value == "true";
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use model::config::ConfigError;
    use std::collections::BTreeMap;

    const KEY: Key<Plugins> = Key::new("hubble-metrics", "Metrics");

    fn read(text: &str) -> Result<Plugins, Vec<ConfigError>> {
        let values = BTreeMap::from([(KEY.name.to_owned(), text.to_owned())]);
        let mut reader = Reader::new(&values);
        let plugins = reader.get(&KEY);
        reader.finish(plugins)
    }

    #[test]
    fn plug_ins_have_contexts_and_options_of_their_own() {
        let Plugins(plugins) =
            read("drop dns:query;ignoreAAAA tcp:sourceContext=pod|ip;labelsContext=source_app,traffic_direction")
                .unwrap();
        assert_eq!(plugins.iter().map(|plugin| plugin.kind).collect::<Vec<_>>(), [Kind::Drop, Kind::Dns, Kind::Tcp]);
        let [drop, dns, tcp] = plugins.as_slice() else { panic!("{plugins:?}") };
        assert_eq!((&drop.contexts, drop.switches), (&Contexts::default(), Switches::default()));
        assert!(dns.switches.query && dns.switches.ignore_aaaa && !dns.switches.port);
        assert_ne!(tcp.contexts, Contexts::default());
        assert_eq!(read("").unwrap(), Plugins::default());
    }

    #[test]
    fn the_chart_knows_all_names() {
        assert!(LIST.contains(&format!("({})", Kind::names().replace(", ", "|"))));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (text, part) in [
            ("drop colour", "\"drop colour\" is not a list of metrics, each one of dns, drop"),
            ("drop:query", "drop has no option query"),
            ("http:exemplars=true", "http has no option exemplars=true"),
            ("drop:sourceContext=colour", "colour"),
            ("drop:labelsContext=source_colour", "source_colour"),
            ("http httpV2", "named already"),
            ("drop drop", "named already"),
        ] {
            let errors = read(text).unwrap_err();
            assert!(errors.iter().any(|error| error.to_string().contains(part)), "{text}: {errors:?}");
        }
    }
}
