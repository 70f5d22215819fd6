// SPDX-License-Identifier: Apache-2.0
//! How much a client may ask of each flow: a request is compared with thousands of them, and held in memory as long as it is followed.

use crate::proto::flow::FlowFilter;
use prost::Message;

/// Bytes of all filters of a request.
const BYTES: usize = 64 << 10;
/// Patterns and expressions of a request.
const PATTERNS: usize = 100;

/// A request asks for too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filters: {found} {what} are more than {most}")]
pub(crate) struct Excess {
    what: &'static str,
    found: usize,
    most: usize,
}

/// Whether the filters of a request are small enough to be compiled.
///
/// # Errors
///
/// With what there is too much of.
pub(crate) fn check_limits(allow: &[FlowFilter], deny: &[FlowFilter]) -> Result<(), Excess> {
    let sum = |size: fn(&FlowFilter) -> usize| allow.iter().chain(deny).map(size).sum();
    let bytes = (sum(Message::encoded_len), BYTES, "bytes");
    for (found, most, what) in [bytes, (sum(patterns), PATTERNS, "patterns and expressions")] {
        if found > most {
            return Err(Excess { what, found, most });
        }
    }
    Ok(())
}

fn patterns(filter: &FlowFilter) -> usize {
    let texts = [
        &filter.source_fqdn,
        &filter.destination_fqdn,
        &filter.dns_query,
        &filter.http_path,
        &filter.http_url,
        &filter.node_name,
        &filter.source_cluster_name,
        &filter.destination_cluster_name,
    ];
    let expressions = filter.experimental.as_ref().map_or(0, |e| e.cel_expression.len());
    texts.iter().map(|texts| texts.len()).sum::<usize>() + expressions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::proto::flow::flow_filter::Experimental;

    #[test]
    fn patterns_and_expressions_of_all_filters_together_have_a_limit() {
        let paths = |count| FlowFilter { http_path: vec!["a".to_owned(); count], ..FlowFilter::default() };
        let expressions = |count| {
            let experimental = Some(Experimental { cel_expression: vec!["true".to_owned(); count] });
            FlowFilter { experimental, dns_query: vec!["b".to_owned()], ..FlowFilter::default() }
        };
        assert_eq!(check_limits(&[paths(90), FlowFilter::default()], &[expressions(9)]), Ok(()));
        let excess = check_limits(&[paths(90)], &[expressions(10)]).unwrap_err();
        assert_eq!(excess.to_string(), "filters: 101 patterns and expressions are more than 100");
    }

    #[test]
    fn all_filters_together_may_have_so_many_bytes() {
        // The field's number and its length take four.
        let filter = |bytes: usize| FlowFilter { source_pod: vec!["x".repeat(bytes - 4)], ..FlowFilter::default() };
        assert_eq!(check_limits(&[filter(BYTES / 2)], &[filter(BYTES / 2)]), Ok(()));
        let excess = check_limits(&[filter(BYTES / 2)], &[filter(BYTES / 2 + 1)]).unwrap_err();
        assert_eq!(excess.to_string(), "filters: 65537 bytes are more than 65536");
    }
}
