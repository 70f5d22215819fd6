// SPDX-License-Identifier: Apache-2.0
//! Runs a campaign for each Lease that this node may hold.

use crate::Config;
use crate::campaign::{Campaign, Electorate, Watched};
use crate::moves::Moves;
use crate::select::{Places, View, select};
use crate::{Endpoints, Policy, Service};
use futures::future::join_all;
use k8s::k8s_openapi::api::coordination::v1::Lease;
use model::{Device, Node};
use statedb::{Change, Reader};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Tables that decide who announces what.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) policies: Reader<Policy>,
    pub(crate) services: Reader<Service>,
    pub(crate) endpoints: Reader<Endpoints>,
    pub(crate) nodes: Reader<Node>,
    pub(crate) devices: Reader<Device>,
    pub(crate) leases: Reader<Watched>,
}

impl Tables {
    fn view(&self) -> View {
        View {
            policies: self.policies.snapshot(),
            services: self.services.snapshot(),
            endpoints: self.endpoints.snapshot(),
            nodes: self.nodes.snapshot(),
            devices: self.devices.snapshot(),
        }
    }

    /// Decide nothing before everything is known: an unknown Service may be the one that leads an address.
    async fn complete(&self) {
        self.policies.initialized().await;
        self.services.initialized().await;
        self.endpoints.initialized().await;
        self.nodes.initialized().await;
        self.devices.initialized().await;
        // Which say who answers for what.
        self.leases.initialized().await;
    }
}

/// A running or ending campaign.
struct Running {
    stop: CancellationToken,
    ended: JoinHandle<()>,
    /// Its watched Lease.
    lease: watch::Sender<Option<Lease>>,
}

/// By Lease name.
type Campaigns = BTreeMap<String, Running>;

/// Runs until stopped; then all Leases are released.
pub(crate) async fn run(config: Config, tables: Tables, electorate: Electorate, stop: CancellationToken) {
    let mut running = Campaigns::new();
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&config, &tables, &electorate, &mut running) => {}
    }
    running.values().for_each(|campaign| campaign.stop.cancel());
    join_all(running.into_values().map(|campaign| campaign.ended)).await;
}

async fn follow(config: &Config, tables: &Tables, electorate: &Electorate, running: &mut Campaigns) {
    tables.complete().await;
    let (mut policies, mut services) = (tables.policies.subscribe(), tables.services.subscribe());
    let (mut endpoints, mut nodes) = (tables.endpoints.subscribe(), tables.nodes.subscribe());
    let (mut devices, mut leases) = (tables.devices.subscribe(), tables.leases.subscribe());
    let of_family = |address: IpAddr| if address.is_ipv4() { config.ipv4 } else { config.ipv6 };
    let mut moves = Moves::default();
    loop {
        let mut selected = select(&tables.view(), of_family);
        let present = tables.leases.snapshot();
        moves.learn(&selected, present.iter().filter(|lease| !lease.holder().is_empty()).map(|lease| &**lease));
        let is_free = |lease: &str| {
            let lease = present.get(&lease.to_owned());
            lease.is_some_and(|lease| lease.holder().is_empty() || lease.holder() == electorate.node)
        };
        let again = moves.hold_back(&mut selected, config.lease, is_free).unwrap_or_else(Instant::now);
        hold_elections(&selected.places, tables, electorate, running);
        electorate.tenures.set_places(selected.places, selected.down);
        loop {
            tokio::select! {
                _ = policies.next() => break,
                _ = services.next() => break,
                _ = endpoints.next() => break,
                _ = nodes.next() => break,
                _ = devices.next() => break,
                batch = leases.next() => {
                    batch.changes.into_iter().for_each(|change| pass_on(change, running));
                    if moves.is_waiting() {
                        break;
                    }
                }
                () = sleep_until(again), if moves.is_waiting() => break,
            }
        }
    }
}

fn hold_elections(places: &Places, tables: &Tables, electorate: &Electorate, running: &mut Campaigns) {
    let wanted = |lease: &String| places.contains_key(lease);
    running.iter().filter(|(lease, _)| !wanted(lease)).for_each(|(_, campaign)| campaign.stop.cancel());
    running.retain(|lease, campaign| wanted(lease) || !campaign.ended.is_finished());
    for lease in places.keys() {
        let campaign = match running.remove(lease) {
            Some(present) if !present.stop.is_cancelled() => present,
            before => start(electorate, lease, tables.leases.snapshot().get(lease), before),
        };
        running.insert(lease.clone(), campaign);
    }
}

fn pass_on(change: Change<Watched>, running: &Campaigns) {
    let (name, lease) = match &change {
        Change::Upsert(row) => (&row.name, Some(row.lease.clone())),
        Change::Delete(row) => (&row.name, None),
    };
    if let Some(campaign) = running.get(name) {
        campaign.lease.send_if_modified(|present| {
            let news = *present != lease;
            *present = lease;
            news
        });
    }
}

/// Starts a campaign once the previous one for the same Lease has ended.
fn start(electorate: &Electorate, name: &str, watched: Option<Arc<Watched>>, before: Option<Running>) -> Running {
    let stop = CancellationToken::new();
    let (lease, receiver) = watch::channel(watched.map(|row| row.lease.clone()));
    let (electorate, name, stopped) = (electorate.clone(), name.to_owned(), stop.clone());
    let ended = tokio::spawn(async move {
        if let Some(before) = before {
            // Its panics are its own.
            let _ = before.ended.await;
        }
        Campaign::new(electorate, name, receiver).run(stopped).await;
    });
    Running { stop, ended, lease }
}
