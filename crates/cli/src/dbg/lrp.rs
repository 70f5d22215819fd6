// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg lrp`: local redirect policies.

use super::Output;
use super::service::host;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::Result;
use clap::Subcommand;
use rest::{FrontendMapping, LrpBackend, LrpSpec};

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List local redirect policies, and what they redirect now.
    #[command(alias = "ls")]
    List(Output),
}

pub(super) async fn run(agent: &Agent, command: Commands) -> Result<()> {
    let Commands::List(output) = command;
    let mut policies: Vec<LrpSpec> = agent.get("/lrp").await?;
    policies.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    output.format().print(&policies, || table(&policies).to_string())
}

fn table(policies: &[LrpSpec]) -> Table {
    let mut table = Table::new(["LRP namespace", "LRP name", "FrontendType", "Matching Service"]);
    for policy in policies {
        table.row([&policy.namespace, &policy.name, &policy.frontend_type, &policy.service_id]);
        policy.frontend_mappings.iter().for_each(|one| table.row(["", "|", &mapping(one), ""]));
    }
    table
}

/// Such as `10.96.0.10:53/UDP -> 10.0.1.3:1053(kube-system/node-local-dns-x),`.
fn mapping(mapping: &FrontendMapping) -> String {
    let frontend = mapping.frontend_address.clone().unwrap_or_default();
    let backends: String = mapping.backends.iter().map(|one| format!("{}, ", backend(one))).collect();
    format!("{}/{} -> {backends}", host(&frontend.ip, frontend.port), frontend.protocol.to_uppercase())
}

fn backend(backend: &LrpBackend) -> String {
    let address = backend.backend_address.clone().unwrap_or_default();
    format!("{}({})", host(&address.ip, address.port), backend.pod_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_redirected_is_below_its_policy() {
        let policies: Vec<LrpSpec> = serde_json::from_str(
            r#"[{"namespace": "kube-system", "name": "nodelocaldns", "frontend-type": "clusterIP + all svc ports",
                 "service-id": "kube-system/kube-dns", "frontend-mappings": [
                  {"frontend-address": {"ip": "10.96.0.10", "port": 53, "protocol": "udp"},
                   "backends": [{"pod-id": "kube-system/cache", "backend-address": {"ip": "10.0.1.3", "port": 1053}}]}]},
                {"namespace": "shop", "name": "metadata", "frontend-type": "IP + port"}]"#,
        )
        .unwrap();
        assert_eq!(
            table(&policies).to_string(),
            "LRP namespace   LRP name       FrontendType                                              Matching Service\n\
             kube-system     nodelocaldns   clusterIP + all svc ports                                 kube-system/kube-dns\n\
             \u{20}               |              10.96.0.10:53/UDP -> 10.0.1.3:1053(kube-system/cache),\n\
             shop            metadata       IP + port\n"
        );
    }
}
