// SPDX-License-Identifier: Apache-2.0
//! What this node's pods could reach by themselves of what the node's proxy may send them to. Such servers are anywhere in the cluster, and the
//! programs need the policies of this node's pods alone; so they are compiled beside those, while there is a route to judge.

mod compiled;
mod judge;

use crate::resolve::Engine;
use crate::rules::Policy;
use crate::{Config, Outputs};
use futures::FutureExt;
use judge::Judge;
use model::{EndpointPolicy, Identity, Permission, PolicyId, Proxied, RemoteEndpoint};
use statedb::{Changes, Reader, Tasks, Writer};

/// What is asked, and where the answers go.
pub struct Proxying {
    /// CiliumEndpoints.
    pub remote_endpoints: Reader<RemoteEndpoint>,
    /// Where the node's proxy sends what pods ask Services.
    pub proxied: Reader<Proxied>,
    /// What policy says of that. Without a route it is empty.
    pub permissions: Writer<Permission>,
}

impl Outputs {
    /// Keeps saying what policy says of what the node's proxy sends for this node's pods.
    pub fn permit(&self, config: &Config, proxying: Proxying, tasks: &Tasks) {
        let Proxying { remote_endpoints, proxied, permissions } = proxying;
        let engine = Engine::new(config.enforcement, config.families(), [], PolicyId(0));
        let judge = Judge::new(engine, remote_endpoints.index(|pod| [pod.identity]));
        let sources = Sources {
            policies: self.policies.subscribe(),
            identities: self.identities.subscribe(),
            remote_endpoints: remote_endpoints.subscribe(),
            clients: self.endpoint_policies.subscribe(),
            proxied: proxied.subscribe(),
        };
        tasks.spawn("proxy-permissions", keep(judge, sources, proxied, permissions));
    }
}

/// Keeps the table of permissions. As long as there never was a route to judge, nothing is compiled.
async fn keep(mut judge: Judge, mut sources: Sources, proxied: Reader<Proxied>, mut permissions: Writer<Permission>) {
    proxied.initialized().await;
    let mut routes = proxied.subscribe();
    while proxied.snapshot().is_empty() {
        permissions.mark_initialized();
        routes.next().await;
    }
    loop {
        if sources.complete() {
            for (client, row) in judge.settle() {
                match row {
                    Some(row) => permissions.insert(row),
                    None => permissions.remove(&client),
                }
            }
            permissions.mark_initialized();
        }
        sources.next(&mut judge).await;
        while sources.next(&mut judge).now_or_never().is_some() {}
    }
}

struct Sources {
    policies: Changes<Policy>,
    identities: Changes<Identity>,
    remote_endpoints: Changes<RemoteEndpoint>,
    clients: Changes<EndpointPolicy>,
    proxied: Changes<Proxied>,
}

impl Sources {
    /// Waits for a change to any table, and tells the judge. Cancel safe.
    async fn next(&mut self, judge: &mut Judge) {
        tokio::select! {
            // Entities come before statements about them.
            biased;
            batch = self.identities.next() => batch.changes.into_iter().for_each(|change| judge.identity(change)),
            batch = self.remote_endpoints.next() => batch.changes.into_iter().for_each(|change| judge.pod(change)),
            batch = self.policies.next() => batch.changes.into_iter().for_each(|change| judge.policy(change)),
            batch = self.clients.next() => batch.changes.into_iter().for_each(|change| judge.client(&change)),
            batch = self.proxied.next() => batch.changes.into_iter().for_each(|change| judge.route(&change)),
        }
    }

    fn complete(&self) -> bool {
        self.policies.snapshot().initialized()
            && self.identities.snapshot().initialized()
            && self.remote_endpoints.snapshot().initialized()
            && self.clients.snapshot().initialized()
            && self.proxied.snapshot().initialized()
    }
}

#[cfg(test)]
mod tests;
