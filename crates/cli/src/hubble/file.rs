// SPDX-License-Identifier: Apache-2.0
//! Flows out of a file: lines as `hubble observe -o jsonpb` or an exporter writes them.

use anyhow::{Context, Result};
use hubble::Selection;
use hubble::proto::from_json;
use hubble::proto::observer::export_event::ResponseTypes as Exported;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::{ExportEvent, GetFlowsRequest, GetFlowsResponse};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Passes what the request asks for to `print`, in the order of the file; `-` is standard input.
pub(super) fn read(
    path: &Path,
    request: &GetFlowsRequest,
    print: impl FnMut(&GetFlowsResponse) -> Result<()>,
) -> Result<()> {
    if path.as_os_str() == "-" {
        return select(BufReader::new(std::io::stdin()), request, print).context("standard input");
    }
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    select(BufReader::new(file), request, print).with_context(|| path.display().to_string())
}

fn select(
    lines: impl BufRead,
    request: &GetFlowsRequest,
    mut print: impl FnMut(&GetFlowsResponse) -> Result<()>,
) -> Result<()> {
    let selection = Selection::new(request).map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let most = usize::try_from(request.number).unwrap_or(usize::MAX);
    let (mut last, mut printed) = (VecDeque::new(), 0);
    for (index, line) in lines.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let event: ExportEvent = from_json(&line).with_context(|| format!("line {}", index + 1))?;
        let Some(response) = selected(event, &selection) else { continue };
        match (request.number, request.first) {
            (0, _) => print(&response)?,
            (_, true) => {
                print(&response)?;
                printed += 1;
                if printed == most {
                    return Ok(());
                }
            }
            (_, false) => {
                if last.len() == most {
                    last.pop_front();
                }
                last.push_back(response);
            }
        }
    }
    last.iter().try_for_each(print)
}

/// What of a line is asked for; events of agents are not.
fn selected(event: ExportEvent, selection: &Selection) -> Option<GetFlowsResponse> {
    let response = match event.response_types? {
        Exported::Flow(flow) => ResponseTypes::Flow(selection.take(flow, event.time.as_ref())?),
        Exported::NodeStatus(status) => ResponseTypes::NodeStatus(status),
        Exported::LostEvents(lost) => ResponseTypes::LostEvents(lost),
        Exported::AgentEvent(_) | Exported::DebugEvent(_) => return None,
    };
    Some(GetFlowsResponse { node_name: event.node_name, time: event.time, response_types: Some(response) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hubble::proto::flow::FlowFilter;

    const LINES: &str = r#"{"flow":{"verdict":"FORWARDED","uuid":"a"},"node_name":"n1","time":"2026-01-31T12:00:00Z"}
{"flow":{"verdict":"DROPPED","uuid":"b"},"node_name":"n1","time":"2026-01-31T12:00:01Z"}

{"agent_event":{"type":"AGENT_STARTED"},"node_name":"n1","time":"2026-01-31T12:00:02Z"}
{"flow":{"verdict":"DROPPED","uuid":"c"},"node_name":"n1","time":"2026-01-31T12:00:03Z"}
"#;

    fn uuids(request: &GetFlowsRequest) -> Vec<String> {
        let mut found = Vec::new();
        let print = |response: &GetFlowsResponse| {
            if let Some(ResponseTypes::Flow(flow)) = &response.response_types {
                found.push(flow.uuid.clone());
            }
            Ok(())
        };
        select(LINES.as_bytes(), request, print).unwrap();
        found
    }

    #[test]
    fn the_same_is_chosen_from_a_file_as_from_a_server() {
        let dropped = FlowFilter { verdict: vec![2], ..FlowFilter::default() };
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let begin = 1_769_860_800;
        for (request, want) in [
            (GetFlowsRequest::default(), &["a", "b", "c"][..]),
            (GetFlowsRequest { whitelist: vec![dropped], ..GetFlowsRequest::default() }, &["b", "c"]),
            (GetFlowsRequest { number: 1, ..GetFlowsRequest::default() }, &["c"]),
            (GetFlowsRequest { number: 2, first: true, ..GetFlowsRequest::default() }, &["a", "b"]),
            (GetFlowsRequest { since: time(begin + 1), until: time(begin + 2), ..GetFlowsRequest::default() }, &["b"]),
        ] {
            assert_eq!(uuids(&request), want, "{request:?}");
        }
    }

    #[test]
    fn flows_of_dns_and_kafka_are_found_by_what_was_asked() {
        let lines = r#"{"flow":{"uuid":"a","l7":{"type":"REQUEST","dns":{"query":"one.example.org."}}}}
{"flow":{"uuid":"b","l7":{"type":"REQUEST","dns":{"query":"two.example.org."}}}}
{"flow":{"uuid":"c","l7":{"type":"REQUEST","kafka":{"topic":"orders"}}}}
{"flow":{"uuid":"d","l7":{"type":"REQUEST","http":{"url":"http://one.example.org/"}}}}
"#;
        let of = |name: &str| FlowFilter { protocol: vec![name.to_owned()], ..FlowFilter::default() };
        let two = FlowFilter { dns_query: vec!["^two".to_owned()], ..FlowFilter::default() };
        for (filter, want) in [(of("dns"), "ab"), (of("kafka"), "c"), (two, "b")] {
            let request = GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() };
            let mut found = String::new();
            select(lines.as_bytes(), &request, |response| {
                if let Some(ResponseTypes::Flow(flow)) = &response.response_types {
                    found += &flow.uuid;
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(found, want, "{request:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_flow_is_named() {
        let error = select("{}\nnonsense\n".as_bytes(), &GetFlowsRequest::default(), |_| Ok(())).unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }
}
