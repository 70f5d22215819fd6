// SPDX-License-Identifier: Apache-2.0
//! Status of the agent, as reported by `/healthz`, `cilium-dbg status` and the probes. Each feature fills in its part;
//! this is what concerns the whole.

use crate::config::Config;
use parking_lot::Mutex;
use rest::{
    CniChainingStatus, ControllerRun, ControllerStatus, EncryptionStatus, HostFirewall, IdentityRange, K8sStatus,
    State, Status, StatusResponse,
};
use std::sync::Arc;
use std::time::Duration;
use surface::{ReconcilerHealth, Surface};
use tokio::sync::watch;

/// How often the API server is asked for its version, which also shows whether it responds.
const ASK_API_SERVER: Duration = Duration::from_secs(10);

/// How long a table may be stale before the agent is not ready.
const WATCH_PATIENCE: Duration = Duration::from_secs(120);

/// How long nothing of a kind may be written before the agent is not ready. Requests and webhooks have tens of seconds.
const WRITE_PATIENCE: Duration = Duration::from_secs(180);

/// What pods of this node need written: without an identity they do not start, and without the others nobody reaches them.
const NEEDED_WRITES: [&str; 3] = ["ciliumidentities", "ciliumendpoints", "ciliumnodes"];

/// The API server's last version response.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiServer(Arc<Mutex<Option<Result<String, String>>>>);

impl ApiServer {
    /// Asks periodically.
    pub(crate) async fn ask(self, client: k8s::Client) {
        loop {
            let asked = tokio::time::timeout(ASK_API_SERVER, client.kube().apiserver_version()).await;
            *self.0.lock() = Some(match asked {
                Ok(Ok(info)) => Ok(format!("{}.{} ({}) [{}]", info.major, info.minor, info.git_version, info.platform)),
                Ok(Err(error)) => Err(format!("the API server does not answer: {error}")),
                Err(_) => Err(format!("the API server has not answered for {} s", ASK_API_SERVER.as_secs())),
            });
            tokio::time::sleep(ASK_API_SERVER).await;
        }
    }

    fn last(&self) -> Option<Result<String, String>> {
        self.0.lock().clone()
    }
}

/// Everything the status is made from.
pub(crate) struct Sources {
    pub(crate) config: Config,
    /// The features' surfaces.
    pub(crate) surface: Surface,
    /// What the node is waiting for or cannot do.
    pub(crate) not_ready: watch::Receiver<Option<String>>,
    /// `tcx` or `tc`.
    pub(crate) attach_mode: &'static str,
    pub(crate) api_server: ApiServer,
    pub(crate) client: k8s::Client,
    /// Whether pods can be attached.
    pub(crate) ready: watch::Receiver<bool>,
}

impl crate::healthz::Probe for Sources {
    fn check(&self, kubernetes: bool) -> Result<(), String> {
        if !self.is_ready() {
            let why = self.not_ready.borrow().clone();
            return Err(format!("the agent is starting: {}", why.as_deref().unwrap_or("endpoints are being restored")));
        }
        match self.kubernetes_problem() {
            Some(why) if kubernetes => Err(format!("Kubernetes: {why}")),
            _ => Ok(()),
        }
    }
}

impl Sources {
    /// The current status.
    pub(crate) fn status(&self) -> StatusResponse {
        StatusResponse {
            cilium: Some(self.cilium()),
            kvstore: Some(disabled()),
            kubernetes: Some(self.kubernetes()),
            container_runtime: Some(disabled()),
            host_firewall: Some(HostFirewall { mode: "Disabled".to_owned(), ..HostFirewall::default() }),
            hubble_metrics: Some(disabled()),
            datapath_mode: "veth".to_owned(),
            attach_mode: self.attach_mode.to_owned(),
            controllers: self.surface.reconcilers().into_iter().map(controller).collect(),
            identity_range: Some(IdentityRange { min_identity: 256, max_identity: 65535 }),
            encryption: Some(EncryptionStatus { mode: "Disabled".to_owned(), ..EncryptionStatus::default() }),
            cni_chaining: Some(CniChainingStatus { mode: "none".to_owned() }),
            ..self.surface.status_now()
        }
    }

    fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    fn kubernetes_problem(&self) -> Option<String> {
        let watches = self.client.failing_watches(WATCH_PATIENCE);
        let mut writes = self.client.failing_writes(WRITE_PATIENCE);
        writes.retain(|write| NEEDED_WRITES.contains(&&*write.resource));
        kubernetes_problem(self.api_server.last().as_ref(), &watches, &writes)
    }

    fn cilium(&self) -> Status {
        let version = concat!(env!("CARGO_PKG_VERSION"), " (cilium-rs)");
        let mut notes = Vec::new();
        if !self.config.unknown().is_empty() {
            notes.push(format!("unknown configuration keys: {}", self.config.unknown().join(", ")));
        }
        if !self.config.unknown_values.is_empty() {
            notes.push(format!("chart values without effect: {}", self.config.unknown_values.join(", ")));
        }
        match (self.is_ready(), notes.is_empty()) {
            (false, _) => {
                let why = self.not_ready.borrow().clone();
                Status { state: State::Warning, msg: format!("starting: {}", why.as_deref().unwrap_or("restoring")) }
            }
            (true, true) => Status { state: State::Ok, msg: version.to_owned() },
            (true, false) => Status { state: State::Ok, msg: format!("{version}; {}", notes.join("; ")) },
        }
    }

    fn kubernetes(&self) -> K8sStatus {
        let apis = [
            "cilium/v2::CiliumClusterwideNetworkPolicy",
            "cilium/v2::CiliumEndpoint",
            "cilium/v2::CiliumNetworkPolicy",
            "cilium/v2::CiliumNode",
            "core/v1::Namespace",
            "core/v1::Pods",
            "core/v1::Service",
            "discovery/v1::EndpointSlice",
            "networking.k8s.io/v1::NetworkPolicy",
        ];
        let (state, msg) = match (self.kubernetes_problem(), self.api_server.last()) {
            (Some(why), _) => (State::Failure, why),
            (None, Some(Ok(version))) => (State::Ok, version),
            (None, _) => (State::Warning, "not asked yet".to_owned()),
        };
        K8sStatus { state, msg, k8s_api_versions: apis.map(str::to_owned).to_vec() }
    }
}

/// What keeps this node from following the cluster, or its pods from being part of it: an API server that does not respond, tables that
/// are stale although it does, or writes that fail.
fn kubernetes_problem(
    last: Option<&Result<String, String>>,
    watches: &[k8s::WatchFailure],
    writes: &[k8s::WriteFailure],
) -> Option<String> {
    let texts = watches.iter().map(ToString::to_string).chain(writes.iter().map(ToString::to_string));
    let texts: Vec<String> = texts.collect();
    last.and_then(|last| last.as_ref().err().cloned()).or_else(|| (!texts.is_empty()).then(|| texts.join("; ")))
}

fn disabled() -> Status {
    Status { state: State::Disabled, msg: String::new() }
}

fn controller(health: ReconcilerHealth) -> ControllerStatus {
    ControllerStatus {
        name: health.name.to_owned(),
        status: Some(ControllerRun {
            success_count: health.successes,
            failure_count: health.failures,
            consecutive_failure_count: health.failing as u64,
            last_failure_msg: health.message,
            ..ControllerRun::default()
        }),
        ..ControllerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_stands_still_is_a_problem_although_the_api_server_answers() {
        let last = Ok("1.36".to_owned());
        assert_eq!(kubernetes_problem(Some(&last), &[], &[]), None);
        let lasting = std::time::Duration::from_secs(130);
        let failure =
            k8s::WatchFailure { kind: "CiliumNode".into(), lasting, message: "no answer".into(), refused: false };
        let text = "CiliumNode not followed for 130 s: no answer";
        assert_eq!(kubernetes_problem(Some(&last), &[failure], &[]).as_deref(), Some(text));
        assert_eq!(kubernetes_problem(Some(&Err("away".to_owned())), &[], &[]).as_deref(), Some("away"));
    }
}
