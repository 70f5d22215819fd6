// SPDX-License-Identifier: Apache-2.0
//! `hubble observe agent-events` and `debug-events`: what agents did, and what their datapaths say while somebody looks for a fault.

use super::connect::Connection;
use super::print::{clean, shown};
use super::selectors::{DEFAULT_LAST, Selectors, Window};
use super::times::Stamps;
use anyhow::Result;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
};
use hubble::proto::to_json;
use prost_types::Timestamp;
use serde_json::Value;
use std::io::{Write, stdout};

#[derive(Args, Clone, Debug)]
pub(super) struct Events {
    #[command(flatten)]
    selectors: Selectors,
    /// How to show events.
    #[arg(long, short, value_enum, default_value = "compact", help_heading = "Formatting", ignore_case = true)]
    output: Output,
    #[command(flatten)]
    stamps: Stamps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line each.
    Compact,
    /// As the API has them, one JSON object a line.
    #[value(alias = "jsonpb")]
    Json,
}

/// Runs `hubble observe agent-events`.
pub(super) async fn agent(connection: &Connection, matches: &ArgMatches) -> Result<()> {
    let events = Events::from_arg_matches(matches)?;
    let Window { number, first, follow, since, until } = events.selectors.window(DEFAULT_LAST)?;
    let request = GetAgentEventsRequest { number, follow, since, until, first };
    let answer = ObserverClient::new(connection.connect().await?).get_agent_events(request).await;
    connection.each(answer, |event| tell(events.of_agent(event))).await
}

/// Runs `hubble observe debug-events`.
pub(super) async fn debug(connection: &Connection, matches: &ArgMatches) -> Result<()> {
    let events = Events::from_arg_matches(matches)?;
    let Window { number, first, follow, since, until } = events.selectors.window(DEFAULT_LAST)?;
    let request = GetDebugEventsRequest { number, follow, since, until, first };
    let answer = ObserverClient::new(connection.connect().await?).get_debug_events(request).await;
    connection.each(answer, |event| tell(events.of_datapath(event))).await
}

fn tell(line: Result<String>) -> Result<()> {
    match shown(line) {
        Some(line) => Ok(writeln!(stdout(), "{line}")?),
        None => Ok(()),
    }
}

impl Events {
    fn of_agent(&self, response: &GetAgentEventsResponse) -> Result<String> {
        if self.output == Output::Json {
            return Ok(to_json(response)?);
        }
        let event = response.agent_event.clone().unwrap_or_default();
        self.line((response.time, &response.node_name), event.r#type().as_str_name(), &to_json(&event)?)
    }

    fn of_datapath(&self, response: &GetDebugEventsResponse) -> Result<String> {
        if self.output == Output::Json {
            return Ok(to_json(response)?);
        }
        let event = response.debug_event.clone().unwrap_or_default();
        self.line((response.time, &response.node_name), event.r#type().as_str_name(), &to_json(&event)?)
    }

    /// When and where, which event, and what it says.
    fn line(&self, (time, node): (Option<Timestamp>, &str), kind: &str, event: &str) -> Result<String> {
        let time = self.stamps.time_format.format(time.as_ref());
        let node = if self.stamps.print_node_name { format!(" [{}]", clean(node)) } else { String::new() };
        let mut said = Vec::new();
        if let Value::Object(mut fields) = serde_json::from_str(event)? {
            fields.remove("type");
            list(&Value::Object(fields), "", &mut said);
        }
        Ok(format!("{time}{node}: {kind} ({})", said.join(", ")))
    }
}

/// Each value with its name, in the order of the names, and without the names of what holds them.
fn list(value: &Value, name: &str, said: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| list(value, name, said)),
        Value::Array(values) => values.iter().for_each(|value| list(value, name, said)),
        Value::String(text) => said.push(format!("{name}: {}", clean(text))),
        other => said.push(format!("{name}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::flow::agent_event::Notification;
    use hubble::proto::flow::{
        AgentEvent, AgentEventType, DebugEvent, DebugEventType, Endpoint, IpCacheNotification, PolicyUpdateNotification,
    };

    fn events(args: &[&str]) -> Events {
        let command = Events::augment_args(clap::Command::new("events"));
        Events::from_arg_matches(&command.get_matches_from([&["events"], args].concat())).unwrap()
    }

    fn told(kind: AgentEventType, notification: Notification) -> GetAgentEventsResponse {
        GetAgentEventsResponse {
            agent_event: Some(AgentEvent { r#type: kind.into(), notification: Some(notification) }),
            node_name: "blue/n1\x1b[2J".to_owned(),
            time: Some(Timestamp { seconds: 1_769_860_800, nanos: 120_000_000 }),
        }
    }

    #[test]
    fn an_event_is_a_line_with_all_that_it_says_and_no_command_for_the_terminal() {
        let entry = IpCacheNotification {
            cidr: "10.0.1.20/32".to_owned(),
            identity: 301,
            old_identity: Some(300),
            pod_name: "db-0\n".to_owned(),
            ..IpCacheNotification::default()
        };
        let event = told(AgentEventType::IpcacheUpserted, Notification::IpcacheUpdate(entry));
        let line = events(&[]).of_agent(&event).unwrap();
        assert!(line.starts_with("Jan 31 12:00:00.120: IPCACHE_UPSERTED (") && line.ends_with(')'), "{line}");
        for part in ["cidr: 10.0.1.20/32", "identity: 301", "old_identity: 300", "pod_name: db-0\u{fffd}"] {
            assert!(line.contains(part), "{part} is missing in: {line}");
        }
        let labels = vec!["k8s:app=web".to_owned(), "k8s:tier=front".to_owned()];
        let policy = PolicyUpdateNotification { labels, revision: 7, rule_count: 2 };
        let event = told(AgentEventType::PolicyUpdated, Notification::PolicyUpdate(policy));
        let line = events(&["--print-node-name", "--time-format", "RFC3339"]).of_agent(&event).unwrap();
        assert!(line.starts_with("2026-01-31T12:00:00Z [blue/n1\u{fffd}[2J]: POLICY_UPDATED ("), "{line}");
        assert!(line.contains("labels: k8s:app=web, labels: k8s:tier=front") && line.contains("revision: 7"), "{line}");
    }

    #[test]
    fn what_a_datapath_says_has_its_endpoint_and_its_words() {
        let event = GetDebugEventsResponse {
            debug_event: Some(DebugEvent {
                r#type: DebugEventType::DbgCtLookup.into(),
                source: Some(Endpoint { id: 10, pod_name: "web-1".to_owned(), ..Endpoint::default() }),
                hash: Some(255),
                message: "lookup".to_owned(),
                ..DebugEvent::default()
            }),
            ..GetDebugEventsResponse::default()
        };
        let line = events(&[]).of_datapath(&event).unwrap();
        assert!(line.starts_with("N/A: DBG_CT_LOOKUP ("), "{line}");
        for part in ["ID: 10", "pod_name: web-1", "hash: 255", "message: lookup"] {
            assert!(line.contains(part), "{part} is missing in: {line}");
        }
        let json = events(&["-o", "JSONPB"]).of_datapath(&event).unwrap();
        assert!(json.starts_with(r#"{"debug_event":{"type":"DBG_CT_LOOKUP""#), "{json}");
    }
}
