// SPDX-License-Identifier: Apache-2.0
//! Leadership, against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../k8s/tests/common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;

use apiserver::{ApiServer, DEADLINE, eventually};
use k8s::k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s::kube::Api;
use operator::election::{Elector, Timing};
use std::time::Duration;
use tokio::time::timeout;

const TIMING: Timing =
    Timing { lease: Duration::from_secs(3), renew: Duration::from_secs(2), retry: Duration::from_millis(100) };

async fn spec(api: &Api<Lease>) -> LeaseSpec {
    api.get("lease").await.unwrap().spec.unwrap()
}

#[tokio::test]
async fn of_several_candidates_one_holds_the_lease_and_the_next_takes_over() {
    let mut server = ApiServer::start().await;
    let api: Api<Lease> = server.client().await.namespaced("default");
    let candidate = |name: &str| Elector::new(api.clone(), "lease", name.into(), TIMING);

    // Both at once: one wins.
    let (mut first, mut second) = (candidate("first"), candidate("second"));
    let won = tokio::select! {
        () = first.acquire() => "first",
        () = second.acquire() => "second",
    };
    assert_eq!(spec(&api).await.holder_identity.as_deref(), Some(won));
    let (mut holder, mut other) = if won == "first" { (first, second) } else { (second, first) };

    // As long as it is renewed nobody else gets it, even for longer than it lasts.
    let mut waiting = tokio::spawn(async move {
        other.acquire().await;
        other
    });
    let holding = tokio::spawn(async move {
        holder.hold().await;
        holder
    });
    let begun = spec(&api).await.renew_time.unwrap().0;
    eventually("the lease was renewed for longer than it lasts", || async {
        let spec = spec(&api).await;
        assert_eq!(spec.holder_identity.as_deref(), Some(won));
        let renewed = spec.renew_time.unwrap().0.duration_since(begun).as_millis();
        if renewed > 4000 { Ok(()) } else { Err(format!("{renewed} ms")) }
    })
    .await;
    assert!(!waiting.is_finished() && !holding.is_finished());

    // A holder that dies is succeeded when the lease has run out.
    holding.abort();
    let mut next = timeout(DEADLINE, &mut waiting).await.unwrap().unwrap();
    assert_ne!(spec(&api).await.holder_identity.as_deref(), Some(won));
    assert_eq!(spec(&api).await.lease_transitions, Some(1));

    // One that gives it back is succeeded at once.
    next.release().await;
    assert_eq!(spec(&api).await.holder_identity.as_deref(), Some(""));
    let mut third = candidate("third");
    timeout(DEADLINE, third.acquire()).await.unwrap();
    assert_eq!(spec(&api).await.lease_transitions, Some(2));

    // One that cannot renew stops to be the leader.
    server.stop();
    timeout(DEADLINE, third.hold()).await.unwrap();
}
