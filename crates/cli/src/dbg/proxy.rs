// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg proxy`: what the proxy of this node serves.

use super::Output;
use crate::rest::Agent;
use crate::routed::{self, Request};
use crate::table::Table;
use anyhow::Result;
use clap::{Args, Subcommand};
use l7::explain::{ClusterState, Explanation, ListenerState, RouteState};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The proxy's socket.
    #[arg(long, default_value = "/var/run/cilium/proxy/admin.sock", global = true)]
    proxy_socket: PathBuf,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand, Debug)]
enum Commands {
    /// List where clients come in.
    Listeners(Output),
    /// List routes.
    Routes(Output),
    /// List backends with their endpoints.
    Clusters(Output),
    /// Show which listener, route and backend a request would take, and why others do not.
    Explain {
        #[command(flatten)]
        request: Request,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let proxy = Agent::proxy(&options.proxy_socket, Duration::from_secs(10));
    match &options.command {
        Commands::Listeners(output) => {
            let all: Vec<ListenerState> = proxy.get("/listeners").await?;
            output.format().print(&all, || listeners(&all).to_string())
        }
        Commands::Routes(output) => {
            let all: Vec<RouteState> = proxy.get("/routes").await?;
            output.format().print(&all, || routes(&all).to_string())
        }
        Commands::Clusters(output) => {
            let all: Vec<ClusterState> = proxy.get("/clusters").await?;
            output.format().print(&all, || clusters(&all).to_string())
        }
        Commands::Explain { request, output } => {
            let path = format!("/explain?{}", request.question()?.to_query());
            let explanation: Explanation = proxy.get(&path).await?;
            output.format().print(&explanation, || routed::of_nodes(&[], &explanation))
        }
    }
}

fn listeners(all: &[ListenerState]) -> Table {
    let mut table = Table::new(["Listener", "Address", "Port", "Protocol", "Connections", "From"]);
    for ListenerState { name, address, port, protocol, connections, sources } in all {
        let cells = [name, address, &port.to_string(), protocol, &connections.to_string(), &sources.join(", ")];
        table.row(cells.map(String::as_str));
    }
    table
}

fn routes(all: &[RouteState]) -> Table {
    let mut table = Table::new(["Route", "Hosts", "Paths", "Action"]);
    for RouteState { name, hosts, paths, action } in all {
        table.row([name, &hosts.join(", "), &paths.join(", "), action].map(String::as_str));
    }
    table
}

fn clusters(all: &[ClusterState]) -> Table {
    let mut table = Table::new(["Cluster", "Requests", "Endpoints"]);
    for ClusterState { name, requests, endpoints } in all {
        let mut states = endpoints.iter().map(routed::state);
        table.row([name.clone(), requests.to_string(), states.next().unwrap_or_else(|| "none".to_owned())]);
        states.for_each(|state| table.row(["", "", state.as_str()]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn clusters_have_their_endpoints_below_each_other() {
        let all: Vec<ClusterState> = serde_json::from_value(json!([
            {"name": "shop/web:80", "requests": 3, "endpoints": [
                {"address": "10.0.0.1:80", "chosen": true, "healthy": true},
                {"address": "10.0.0.2:80", "chosen": true, "healthy": false}]},
            {"name": "shop/none:80"}]))
        .unwrap();
        let want = "\
Cluster        Requests   Endpoints
shop/web:80    3          10.0.0.1:80
                          10.0.0.2:80, could not be reached lately
shop/none:80   0          none
";
        assert_eq!(clusters(&all).to_string(), want);
    }
}
