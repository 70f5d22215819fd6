// SPDX-License-Identifier: Apache-2.0
//! Flows for the commands that look at many of them: of a server, of a file of JSON lines, or of the history on a node's disk.

use super::connect::Connection;
use super::file;
use super::times::parse;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use hubble::Selection;
use hubble::proto::flow::FlowFilter;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Which flows a command looks at.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flows {
    /// Flows from this time on: RFC 3339, or a duration before now [default: all].
    #[arg(long, help_heading = "Selectors")]
    since: Option<String>,
    /// Flows up to this time.
    #[arg(long, help_heading = "Selectors")]
    until: Option<String>,
    /// Read flows from a file of JSON lines instead of asking a server; - for standard input.
    #[arg(long, value_name = "FILE", help_heading = "Selectors")]
    input_file: Option<PathBuf>,
    /// Read the history in this folder of a node instead of asking a server.
    #[arg(long, value_name = "FOLDER", conflicts_with = "input_file", help_heading = "Selectors")]
    history: Option<PathBuf>,
}

impl Flows {
    /// Passes what is asked for, and is on the first list and not on the second, to `take`.
    pub(crate) async fn each(
        &self,
        connection: &Connection,
        (whitelist, blacklist): (Vec<FlowFilter>, Vec<FlowFilter>),
        mut take: impl FnMut(&GetFlowsResponse) -> Result<()>,
    ) -> Result<()> {
        let request = GetFlowsRequest { whitelist, blacklist, ..self.request()? };
        match (&self.input_file, &self.history) {
            (Some(path), _) => file::read(path, &request, take),
            (None, Some(path)) => history(path, &request, take),
            (None, None) => ask(connection, request, &mut take).await,
        }
    }

    fn request(&self) -> Result<GetFlowsRequest> {
        let now = SystemTime::now();
        let time = |flag: &str, text: Option<&String>| {
            text.map(|text| parse(text, now)).transpose().with_context(|| format!("--{flag}"))
        };
        let since = time("since", self.since.as_ref())?.unwrap_or_default();
        let until = time("until", self.until.as_ref())?;
        Ok(GetFlowsRequest { since: Some(since), until, ..GetFlowsRequest::default() })
    }
}

/// Asks a server until it has said all, or somebody presses ^C.
pub(super) async fn ask(
    connection: &Connection,
    request: GetFlowsRequest,
    take: &mut impl FnMut(&GetFlowsResponse) -> Result<()>,
) -> Result<()> {
    let mut client = ObserverClient::new(connection.connect().await?).max_decoding_message_size(usize::MAX);
    connection.each(client.get_flows(request).await, take).await
}

fn history(
    path: &Path,
    request: &GetFlowsRequest,
    mut take: impl FnMut(&GetFlowsResponse) -> Result<()>,
) -> Result<()> {
    let selection = Selection::new(request).map_err(|status| anyhow!("{}", status.message()))?;
    let found = hubble::read_history(path).with_context(|| format!("read {}", path.display()))?;
    for response in found {
        let wanted = match response.response_types {
            Some(ResponseTypes::Flow(flow)) => selection.take(flow, response.time.as_ref()).map(ResponseTypes::Flow),
            other => other,
        };
        if wanted.is_some() {
            take(&GetFlowsResponse { response_types: wanted, ..response })?;
        }
    }
    Ok(())
}
