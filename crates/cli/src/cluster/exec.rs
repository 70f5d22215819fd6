// SPDX-License-Identifier: Apache-2.0
//! Running a command in a container, as `kubectl exec` does.

use anyhow::{Context, Result, bail};
use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::kube::Api;
use k8s::kube::api::AttachParams;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the command writes to standard output, if it succeeds.
pub(super) async fn exec(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> Result<String> {
    let run = tokio::time::timeout(TIMEOUT, run(pods, pod, container, command)).await;
    run.with_context(|| format!("{} takes too long", command.join(" ")))?
}

async fn run(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> Result<String> {
    let options = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
    let mut process = pods.exec(pod, command.iter().copied(), &options).await?;
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let failed = status.and_then(|s| if s.status.as_deref() == Some("Success") { None } else { s.message });
    if let Some(message) = failed {
        let stderr = stderr?;
        let said = if stderr.trim().is_empty() { message } else { stderr.trim().to_owned() };
        bail!("{}: {said}", command.join(" "));
    }
    stdout
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
