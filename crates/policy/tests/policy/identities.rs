// SPDX-License-Identifier: Apache-2.0
//! Identities that are collected while an agent finds, makes or uses them.

use crate::live::{attach, config, two_pods};
use crate::support::{Agent, Store, Tables, eventually, later, start};
use datapath::fake;
use model::{EndpointId, Identity, IdentityId, Label, Labels};
use std::time::Duration;

/// An identity with the labels that a pod has, as another agent would have made it.
async fn made_elsewhere(store: &Store, tables: &mut Tables, agent: &Agent) -> Identity {
    let id = agent.policy_of(1, |_| true).await.identity;
    let labels = store.made.lock()[&id].clone();
    let identity = Identity { id: IdentityId(if id.0 == 4711 { 4712 } else { 4711 }), labels };
    store.made.lock().insert(identity.id, identity.labels.clone());
    tables.identities.insert(identity.clone());
    tables.commit();
    identity
}

fn collect(store: &Store, tables: &mut Tables, id: IdentityId) {
    store.made.lock().remove(&id);
    tables.identities.remove(&id);
    tables.commit();
}

#[tokio::test]
async fn an_identity_that_is_picked_while_it_is_collected_is_made_again_with_its_number() {
    let (store, mut tables) = (Store::default(), two_pods());
    let first = start(config(), fake::Kernel::new(), store.clone(), &tables);
    let identity = made_elsewhere(&store, &mut tables, &first).await;
    first.kill().await;
    let made = store.made.lock().keys().copied().filter(|id| *id != identity.id).collect::<Vec<_>>();
    made.into_iter().for_each(|id| drop(store.made.lock().remove(&id)));
    // Nobody has had it for long; a pod of this node picks it.
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    assert_eq!(agent.policy_of(1, |_| true).await.identity, identity.id);
    collect(&store, &mut tables, identity.id);
    eventually("the identity", || store.made.lock().get(&identity.id).cloned()).await;
    assert_eq!(agent.policy_of(1, |_| true).await.identity, identity.id);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_collected_before_the_watch_shows_it_is_made_again_with_its_number() {
    let (store, tables) = (Store::default(), two_pods());
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    let id = agent.policy_of(1, |_| true).await.identity;
    // It comes and goes between two looks: there is nothing to be seen of it.
    let labels = store.made.lock().remove(&id).unwrap();
    later("the identity", || store.made.lock().get(&id).cloned().filter(|made| *made == labels)).await;
    assert_eq!(agent.policy_of(1, |_| true).await.identity, id);
}

#[tokio::test(start_paused = true)]
async fn a_pod_leaves_an_identity_that_was_collected_unseen_and_whose_labels_have_another() {
    let (store, mut tables) = (Store::default(), two_pods());
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    let id = agent.policy_of(1, |_| true).await.identity;
    let other = made_elsewhere(&store, &mut tables, &agent).await;
    store.made.lock().remove(&id);
    let moved = later("another identity", || {
        agent.outputs.endpoint_policies.snapshot().get(&EndpointId(1)).filter(|row| row.identity != id)
    });
    assert_eq!(moved.await.identity, other.id);
    assert!(!store.made.lock().contains_key(&id), "one is enough");
}

#[tokio::test(start_paused = true)]
async fn a_pod_leaves_a_number_that_was_collected_unseen_and_is_anothers_by_now() {
    let (store, mut tables) = (Store::default(), two_pods());
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    let id = agent.policy_of(1, |_| true).await.identity;
    let others = |app: &str| [Label::k8s("app", app)].into_iter().collect::<Labels>();
    store.made.lock().insert(id, others("elsewhere"));
    let moved = later("another identity", || {
        agent.outputs.endpoint_policies.snapshot().get(&EndpointId(1)).filter(|row| row.identity != id)
    });
    let moved = moved.await.identity;
    assert_ne!(store.made.lock()[&moved], others("elsewhere"));
    // Whose it is by now is heard as ever.
    tables.identities.insert(Identity { id, labels: others("elsewhere") });
    tables.commit();
    later("the other", || agent.outputs.identities.snapshot().get(&id).filter(|row| row.labels == others("elsewhere")))
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_collected_while_its_creation_is_in_flight_is_made_again_with_its_number() {
    let (store, mut tables) = (Store::default(), two_pods());
    *store.answers_after.lock() = Duration::from_secs(60);
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    eventually("both to be asked for", || (store.made.lock().len() == 2).then_some(())).await;
    let made = store.made.lock().clone();
    // Shown, used, and gone again, all of it before the answer comes.
    made.iter().for_each(|(id, labels)| tables.identities.insert(Identity { id: *id, labels: labels.clone() }));
    tables.commit();
    agent.policy_of(1, |_| true).await;
    agent.policy_of(2, |_| true).await;
    made.keys().for_each(|id| collect(&store, &mut tables, *id));
    later("both to be made again", || (*store.made.lock() == made).then_some(())).await;
    let used = agent.outputs.endpoint_policies.snapshot().iter().map(|row| row.identity).collect::<Vec<_>>();
    assert!(used.iter().all(|id| made.contains_key(id)), "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_before_an_identity_was_shown_leaves_no_pod_with_a_number_that_nobody_knows() {
    let (kernel, store, tables) = (fake::Kernel::new(), Store::default(), two_pods());
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    agent.policy_of(1, |_| true).await;
    agent.policy_of(2, |_| true).await;
    attach(&kernel, &agent);
    agent.kill().await;
    store.made.lock().clear();
    let agent = start(config(), kernel, store.clone(), &tables);
    for pod in [1, 2] {
        let id = agent.policy_of(pod, |_| true).await.identity;
        assert!(store.made.lock().contains_key(&id), "pod {pod}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_of_a_running_request_takes_the_place_of_an_identity_that_is_lost_meanwhile() {
    let (store, mut tables) = (Store::default(), two_pods());
    *store.answers_after.lock() = Duration::from_secs(60);
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    eventually("both to be asked for", || (store.made.lock().len() == 2).then_some(())).await;
    let made = store.made.lock().clone();
    let (id, labels) = made.first_key_value().unwrap();
    // Another agent's for the same labels is shown first, used, and collected.
    let other = Identity { id: IdentityId(if id.0 == 4711 { 4712 } else { 4711 }), labels: labels.clone() };
    tables.identities.insert(other.clone());
    tables.commit();
    let pod = eventually("a pod to have it", || {
        agent.outputs.endpoint_policies.snapshot().iter().find(|row| row.identity == other.id).cloned()
    });
    let pod = pod.await.endpoint;
    tables.identities.remove(&other.id);
    tables.commit();
    later("the answer", || agent.outputs.identities.snapshot().get(id)).await;
    // At once, and not after the patience with what is not shown.
    agent.policy_of(pod.0, |row| row.identity == *id).await;
    assert!(!store.made.lock().contains_key(&other.id), "one is enough");
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_shown_with_other_labels_before_its_creation_is_answered_is_left() {
    let (store, mut tables) = (Store::default(), two_pods());
    *store.answers_after.lock() = Duration::from_secs(60);
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    eventually("both to be asked for", || (store.made.lock().len() == 2).then_some(())).await;
    // It is collected, and an agent elsewhere draws the number.
    let id = *store.made.lock().keys().next().unwrap();
    let elsewhere: Labels = [Label::k8s("app", "elsewhere")].into_iter().collect();
    store.made.lock().insert(id, elsewhere.clone());
    tables.identities.insert(Identity { id, labels: elsewhere.clone() });
    tables.commit();
    let used = |id: IdentityId| agent.outputs.endpoint_policies.snapshot().iter().any(|row| row.identity == id);
    later("the answer", || used(id).then_some(())).await;
    later("its pod to leave it", || (!used(id)).then_some(())).await;
    let known = agent.outputs.identities.snapshot().get(&id).map(|row| row.labels.clone());
    assert_eq!(known, Some(elsewhere), "whose it is remains known");
}
