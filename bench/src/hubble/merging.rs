// SPDX-License-Identifier: Apache-2.0
//! A relay that merges the flows of many nodes.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hubble::client::Server;
use hubble::proto::nanos;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{GetFlowsRequest, GetFlowsResponse, ServerStatusRequest};
use hubble::{Capacity, Config};
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

use super::agent::{Agent, event, node};
use super::{DEADLINE, SPAN};
use crate::report::Figure;
use crate::scale;

/// Nodes of the cluster.
const NODES: u8 = 100;
/// Flows per second of all of them.
const PACE: u64 = 50_000;
/// Where each serves, at an address of its own.
const PORT: u16 = 42_440;
/// Where the relay serves.
const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 42_450);

/// Runs `hubble-relay` in this process, for [`measure`], which wants to know what it takes of the processor.
pub(crate) fn serve_relay(arguments: Vec<OsString>) -> ExitCode {
    relay::main(std::iter::once("hubble-relay".into()).chain(arguments))
}

/// Measures. Sockets are in `folder`.
pub(super) async fn measure(folder: &Path) -> Result<Vec<Figure>> {
    let agents: Vec<Agent> = (0..NODES).map(|n| start(folder, n)).collect();
    let relay = Relay::start(&folder.join("0.sock"))?;
    let mut client = relay.connected().await?;
    let request = GetFlowsRequest { since: Some(Default::default()), follow: true, ..Default::default() };
    let mut seen = Seen::default();
    let mut stream = client.get_flows(request).await?.into_inner();
    let begin = Instant::now();
    let before = relay.processor()?;
    let reading = async {
        let pushed = PACE * SPAN.as_secs();
        while seen.flows + seen.lost < pushed {
            seen.next(&mut stream).await?;
        }
        anyhow::Ok(begin.elapsed())
    };
    let (took, ()) = tokio::try_join!(reading, steady(&agents))?;
    let each = (relay.processor()? - before).as_nanos() as f64 / seen.flows as f64;
    for agent in agents {
        agent.end().await?;
    }
    let what = format!("{NODES} nodes with {PACE} flows/s merged by a relay");
    let figure = |part: &str, value: f64, unit| Figure::new(format!("{what}, {part}"), "ours", value, unit);
    Ok(vec![
        figure("flows lost", seen.lost as f64, "flows").target("0"),
        figure("out of order", seen.unordered as f64, "flows").target("0"),
        figure("until the last has arrived", took.as_secs_f64() * 1e3, "ms"),
        figure("processor of the relay for each", each, "ns").target("< 20000"),
    ])
}

fn start(folder: &Path, number: u8) -> Agent {
    let config = Config {
        enabled: true,
        capacity: Capacity(4095),
        socket: folder.join(format!("{number}.sock")),
        listen: Some(SocketAddr::new(address(number), PORT)),
        disable_tls: true,
        ..Config::default()
    };
    Agent::start(config, (0..NODES).map(|n| node(&format!("n{}", n + 1), address(n))))
}

fn address(node: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 42, node + 1).into()
}

/// Gives each node its share of events.
async fn steady(agents: &[Agent]) -> Result<()> {
    let begin = Instant::now();
    let all = PACE * SPAN.as_secs();
    let mut turns = agents.iter().cycle();
    let mut pushed = 0;
    while pushed < all {
        let due = ((begin.elapsed().as_secs_f64() * PACE as f64) as u64).min(all);
        for (n, agent) in (pushed..due).zip(&mut turns) {
            agent.outputs.sink.push(&event(n));
        }
        pushed = due;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// What came out of the relay.
#[derive(Default)]
struct Seen {
    flows: u64,
    lost: u64,
    unordered: u64,
    newest: i64,
}

impl Seen {
    async fn next(&mut self, stream: &mut Streaming<GetFlowsResponse>) -> Result<()> {
        let next = timeout(DEADLINE, stream.message()).await.context("no flow for too long")??;
        let Some(response) = next else { bail!("the relay ended the stream after {} flows", self.flows) };
        match response.response_types {
            Some(ResponseTypes::Flow(_)) => {
                let time = response.time.as_ref().map(nanos).unwrap_or_default();
                self.flows += 1;
                self.unordered += u64::from(time < self.newest);
                self.newest = self.newest.max(time);
            }
            Some(ResponseTypes::LostEvents(events)) => self.lost += events.num_events_lost,
            _ => {}
        }
        Ok(())
    }
}

/// A relay that runs until it is dropped.
struct Relay(Child);

impl Relay {
    fn start(peers: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "relay",
            "serve",
            "--disable-client-tls=true",
            "--disable-server-tls=true",
            "--health-listen-address=",
        ]);
        command.arg(format!("--listen-address={RELAY}")).arg(format!("--peer-service=unix://{}", peers.display()));
        Ok(Self(command.spawn().context("start a relay")?))
    }

    /// A client, once all nodes are connected.
    async fn connected(&self) -> Result<ObserverClient<Channel>> {
        let server = Server { address: RELAY.to_string(), ..Server::default() };
        let connected = async {
            loop {
                if let Ok(channel) = server.connect().await {
                    let mut client = ObserverClient::new(channel);
                    let status = client.server_status(ServerStatusRequest {}).await;
                    if status.is_ok_and(|status| status.get_ref().num_connected_nodes == Some(NODES.into())) {
                        return client;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(DEADLINE, connected).await.context("the relay does not connect to all nodes")
    }

    /// Processor time so far.
    fn processor(&self) -> Result<Duration> {
        scale::processor(self.0.id())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
