// SPDX-License-Identifier: Apache-2.0
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
