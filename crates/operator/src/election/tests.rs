// SPDX-License-Identifier: Apache-2.0
use super::server::Server;
use super::{Elector, LeaseSpec, Timing};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s::k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

async fn elector() -> (Elector, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
        clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(file.path(), text).unwrap();
    let config = k8s::ClientConfig { kubeconfig: Some(file.path().to_owned()), ..k8s::ClientConfig::default() };
    let client = k8s::Client::connect(&config).await.unwrap();
    (Elector::new(client.namespaced("default"), "lease", "us".into(), Timing::default()), file)
}

fn held_by(holder: &str, renewed: &str) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.into()),
        lease_duration_seconds: Some(15),
        renew_time: Some(MicroTime(renewed.parse::<Timestamp>().unwrap())),
        ..LeaseSpec::default()
    }
}

#[tokio::test]
async fn another_holders_lease_is_over_only_after_we_saw_it_unchanged_for_its_duration() {
    let (mut elector, _file) = elector().await;
    let now = Instant::now();
    // Renewed in 1970 as its holder's clock has it: that says nothing.
    let spec = held_by("other", "1970-01-01T00:00:00Z");
    assert!(!elector.may_take(&spec, now));
    assert!(!elector.may_take(&spec, now + Duration::from_secs(14)));
    let renewed = held_by("other", "1970-01-01T00:00:02Z");
    assert!(!elector.may_take(&renewed, now + Duration::from_secs(16)));
    assert!(!elector.may_take(&renewed, now + Duration::from_secs(30)));
    assert!(elector.may_take(&renewed, now + Duration::from_secs(31)));
}

#[tokio::test]
async fn a_lease_that_was_given_back_or_is_ours_can_be_taken_at_once() {
    let (mut elector, _file) = elector().await;
    assert!(elector.may_take(&held_by("", "2026-01-01T00:00:00Z"), Instant::now()));
    assert!(elector.may_take(&held_by("us", "2026-01-01T00:00:00Z"), Instant::now()));
    assert!(elector.may_take(&LeaseSpec::default(), Instant::now()));
}

#[tokio::test]
async fn a_change_of_holder_is_counted_and_a_renewal_is_not() {
    let (elector, _file) = elector().await;
    assert_eq!(elector.first().spec.unwrap().lease_transitions, Some(0));
    let taken = elector.taken(&LeaseSpec { lease_transitions: Some(3), ..held_by("other", "2026-01-01T00:00:00Z") });
    assert_eq!((taken.lease_transitions, taken.holder_identity.as_deref()), (Some(4), Some("us")));
    let renewed = elector.taken(&taken);
    assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(4), taken.acquire_time));
}

fn candidate(server: &Server, name: &str) -> Elector {
    Elector::new(server.client(name).namespaced("default"), "lease", name.to_owned(), Timing::default())
}

/// Has one hold the lease for so long until its server gets worse, and another wait. Gives when the first has stopped, and the second begun.
async fn succession(held: Duration, worse: impl FnOnce(&Server)) -> (Instant, Instant) {
    let server = Server::default();
    let (mut first, mut second) = (candidate(&server, "first"), candidate(&server, "second"));
    first.acquire().await;
    let holding = tokio::spawn(async move {
        first.hold().await;
        Instant::now()
    });
    let waiting = tokio::spawn(async move {
        second.acquire().await;
        Instant::now()
    });
    tokio::time::sleep(held).await;
    assert!(!holding.is_finished() && !waiting.is_finished());
    worse(&server);
    (holding.await.unwrap(), waiting.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_server_hangs_stops_by_its_own_clock_before_another_may_begin() {
    // Whatever it is about when the server falls silent.
    for tenths in 0..40 {
        let held = Duration::from_secs(60) + Duration::from_millis(100 * tenths);
        let begun = Instant::now();
        let (stopped, next) = succession(held, |server| server.hang("first")).await;
        let apart = next.checked_duration_since(stopped);
        assert!(apart.is_some_and(|apart| apart >= Duration::from_secs(4)), "{tenths}: {apart:?}");
        assert!(stopped - begun <= held + Duration::from_secs(10), "not for longer than it may try");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_renewals_are_done_and_not_answered_stops_as_well() {
    let begun = Instant::now();
    let (stopped, next) = succession(Duration::from_secs(60), |server| server.lose_answers("first")).await;
    assert!(stopped - begun <= Duration::from_secs(70));
    assert!(next - stopped >= Duration::from_secs(4));
}
