// SPDX-License-Identifier: Apache-2.0
//! `cilium policy suggest`: the policies that allow what pods of a namespace were seen to do, and nothing else.

#[cfg(test)]
mod tests;

use crate::hubble::{Connection, Flows};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use hubble::proto::flow::FlowFilter;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::suggest::Seen;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// Suggest CiliumNetworkPolicies for a namespace, from the flows that were seen there.
    #[command(
        after_help = "Flows that were dropped are left out. Read what is printed before it is applied: a pod may do next what it \
                            did not do while it was watched."
    )]
    Suggest(Box<Options>),
}

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The namespace.
    #[arg(value_name = "NAMESPACE")]
    target_namespace: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    flows: Flows,
}

/// Prints what is suggested, as YAML.
pub(super) async fn suggest(options: &Options) -> Result<()> {
    let mut seen = Seen::of(&options.target_namespace);
    let mut lost = 0;
    let prefix = vec![format!("{}/", options.target_namespace)];
    let either = vec![
        FlowFilter { source_pod: prefix.clone(), ..FlowFilter::default() },
        FlowFilter { destination_pod: prefix, ..FlowFilter::default() },
    ];
    let take = |response: &hubble::proto::observer::GetFlowsResponse| {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => seen.take(flow),
            Some(ResponseTypes::LostEvents(events)) => lost += events.num_events_lost,
            _ => {}
        }
        Ok(())
    };
    options.flows.each(&options.connection, (either, Vec::new()), take).await?;
    let policies = seen.policies();
    if policies.is_empty() {
        bail!("no flow of a pod in namespace {:?} was seen", options.target_namespace);
    }
    if lost > 0 {
        eprintln!("{lost} events were lost: what these pods did then is not in it");
    }
    if seen.left_out() > 0 {
        eprintln!("{} flows are of protocols that policies do not know, and are not in it", seen.left_out());
    }
    if seen.unnamed() > 0 {
        eprintln!("{} flows are of pods whose labels were not known, and are not in it", seen.unnamed());
    }
    for policy in policies {
        print!("---\n{}", serde_saphyr::to_string(&policy)?);
    }
    Ok(())
}
