// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg version`: of this command and of the agent.

use crate::output::Format;
use crate::rest::Agent;
use anyhow::Result;
use rest::StatusResponse;
use serde_json::{Value, json};

pub(super) async fn run(agent: &Agent, format: &Format) -> Result<()> {
    let client = json!({ "Version": env!("CARGO_PKG_VERSION"), "Arch": std::env::consts::ARCH });
    let daemon = agent.get::<StatusResponse>("/healthz").await.map(|status| daemon_version(&status));
    let both = |daemon: &Value| json!({ "Client": client, "Daemon": daemon });
    match daemon {
        Ok(version) => format.print(&both(&json!({ "Version": version, "Arch": std::env::consts::ARCH })), || {
            format!("Client: {}\nDaemon: {version}\n", env!("CARGO_PKG_VERSION"))
        }),
        Err(error) => {
            format.print(&both(&Value::Null), || format!("Client: {}\n", env!("CARGO_PKG_VERSION")))?;
            Err(error)
        }
    }
}

/// The agent answers `1.2.3 (v1.2.3-abcdef)`.
fn daemon_version(status: &StatusResponse) -> String {
    let text = status.cilium.as_ref().map(|cilium| cilium.msg.as_str()).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").trim_start_matches('v').to_owned()
}
