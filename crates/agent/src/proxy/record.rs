// SPDX-License-Identifier: Apache-2.0
//! Which proxies there are. One whose link ends stays what it was for as long as its pod is there: its sockets are, or will be again.

use super::Proxy;
use super::link::Telling;
use model::Pod;
use statedb::{Change, Reader, Writer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// For how long proxies that should be there are waited for, before nothing but what is known counts. Until then the node's Services stay
/// what a process before has made of them.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn keep(
    mut proxies: Writer<Proxy>,
    mut tellings: mpsc::Receiver<Telling>,
    pods: Reader<Pod>,
    namespace: Arc<str>,
) {
    let mut changes = pods.subscribe();
    let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
    let mut complete = false;
    loop {
        tokio::select! {
            Some((pod, state)) = tellings.recv() => {
                let (taken, intercepted) = (gateway::taken(&state), gateway::intercepted(&state));
                let in_force = gateway::in_force(&state);
                proxies.insert(Proxy { pod, taken, intercepted, in_force, leaving: state.leaving });
            }
            batch = changes.next() => {
                for change in batch.changes {
                    if let Change::Delete(pod) = change {
                        proxies.remove(&pod.name);
                    }
                }
            }
            () = &mut patience, if !complete => complete = true,
        }
        proxies.commit();
        complete |= all_known(&pods, &namespace, &proxies);
        if complete {
            proxies.mark_initialized();
        }
    }
}

/// Whether every proxy that may be at work has said what it does.
fn all_known(pods: &Reader<Pod>, namespace: &str, proxies: &Writer<Proxy>) -> bool {
    let (pods, known) = (pods.snapshot(), proxies.snapshot());
    let mut at_work = pods.iter().filter(|pod| pod.is_proxy(namespace) && !pod.ended && !pod.ips.is_empty());
    pods.initialized() && at_work.all(|pod| known.get(&pod.name).is_some())
}
