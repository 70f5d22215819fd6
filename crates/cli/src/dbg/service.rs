// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg service`: services and their backends.

use super::Output;
use crate::explanation;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::{Context, Result};
use clap::Subcommand;
use rest::{AnnouncedAddress, BackendAddress, FrontendAddress, Service, ServiceExplanation, ServiceSpec};

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List all services.
    #[command(alias = "ls")]
    List {
        /// Show which backends are preferred by cluster affinity.
        #[arg(long)]
        clustermesh_affinity: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show one service.
    Get {
        /// Its number.
        id: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Show why a Service is as it is on this node: its addresses, endpoints, and what is left out.
    Explain {
        /// NAMESPACE/NAME.
        service: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(agent: &Agent, command: Commands) -> Result<()> {
    match command {
        Commands::List { clustermesh_affinity, output } => {
            let services = services(agent).await?;
            output.format().print(&services, || table(&services, clustermesh_affinity).to_string())
        }
        Commands::Get { id, output } => {
            let service = services(agent).await?.into_iter().find(|s| spec(s).id == id);
            let service = service.with_context(|| format!("there is no service {id}"))?;
            output.format().print(&service, || table(std::slice::from_ref(&service), false).to_string())
        }
        Commands::Explain { service, output } => {
            let explanation = explain(agent, &service).await?;
            output.format().print(&explanation, || explanation::of_node(&explanation))
        }
    }
}

async fn services(agent: &Agent) -> Result<Vec<Service>> {
    let mut services: Vec<Service> = agent.get("/service").await?;
    services.sort_by_key(|service| spec(service).id);
    Ok(services)
}

async fn explain(agent: &Agent, service: &str) -> Result<ServiceExplanation> {
    explanation::check_name(service)?;
    let mut explained: ServiceExplanation = agent.get(&format!("/service/explain/{service}")).await?;
    let announced: Vec<AnnouncedAddress> = agent.get_opt("/l2/announcements").await?.unwrap_or_default();
    // A shared address is announced in the name of the oldest of its Services.
    let is_ours = |row: &AnnouncedAddress| explanation::addresses(&explained).contains(&row.address);
    explained.announced = announced.into_iter().filter(is_ours).collect();
    Ok(explained)
}

fn spec(service: &Service) -> ServiceSpec {
    let realized = service.status.as_ref().and_then(|status| status.realized.clone());
    realized.or_else(|| service.spec.clone()).unwrap_or_default()
}

fn table(services: &[Service], affinity: bool) -> Table {
    let mut table = Table::new(["ID", "Frontend", "Service Type", "Backend"]);
    for service in services {
        let spec = spec(service);
        let frontend = spec.frontend_address.as_ref().map(frontend).unwrap_or_default();
        let kind = spec.flags.map(|flags| flags.kind).unwrap_or_default();
        let mut backends = spec.backend_addresses.iter().enumerate().map(|(n, b)| backend(n + 1, b, affinity));
        table.row([spec.id.to_string(), frontend, kind, backends.next().unwrap_or_default()]);
        backends.for_each(|backend| table.row(["", "", "", backend.as_str()]));
    }
    table
}

fn frontend(address: &FrontendAddress) -> String {
    let scope = match address.scope.as_str() {
        "internal" => "/i",
        "unredirected" => "/u",
        _ => "",
    };
    format!("{}/{}{scope}", host(&address.ip, address.port), address.protocol.to_uppercase())
}

fn backend(number: usize, address: &BackendAddress, affinity: bool) -> String {
    let protocol = if address.protocol.is_empty() { "TCP".to_owned() } else { address.protocol.to_uppercase() };
    let state = if address.state.is_empty() { "active" } else { &address.state };
    let preferred = if affinity && address.preferred { " (preferred)" } else { "" };
    format!("{number} => {}/{protocol} ({state}){preferred}", host(&address.ip, address.port))
}

pub(super) fn host(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_numbered_below_their_frontend() {
        let services: Vec<Service> = serde_json::from_str(
            r#"[{"status":{"realized":{"id":1,"flags":{"type":"ClusterIP"},
              "frontend-address":{"ip":"10.96.0.1","port":443,"protocol":"tcp"},
              "backend-addresses":[{"ip":"192.168.0.1","port":6443,"protocol":"tcp","state":"active","preferred":true},
                {"ip":"fd00::1","port":6443,"state":"terminating"}]}}},
              {"spec":{"id":2,"frontend-address":{"ip":"fd10::a","port":53,"protocol":"udp"}}}]"#,
        )
        .unwrap();
        assert_eq!(
            table(&services, true).to_string(),
            "ID   Frontend            Service Type   Backend\n\
             1    10.96.0.1:443/TCP   ClusterIP      1 => 192.168.0.1:6443/TCP (active) (preferred)\n\
             \u{20}                                       2 => [fd00::1]:6443/TCP (terminating)\n\
             2    [fd10::a]:53/UDP\n"
        );
    }
}
