// SPDX-License-Identifier: Apache-2.0
//! Elections between nodes in memory, on a paused clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod cluster;

use super::*;
use cluster::{Cluster, LEASE, Mood, TIMING};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Longer than any takeover.
const LONG: Duration = Duration::from_secs(40);
const DOWN: &str = "l2.cilium.io/devices-down";
const WANTED: &str = "l2.cilium.io/wanted-by";

#[tokio::test(start_paused = true)]
async fn one_of_several_candidates_answers_and_keeps_answering() {
    let cluster = Cluster::of(3).await;
    let first = cluster.until_answered().await;
    cluster.watch_for(LONG).await;
    assert_eq!(cluster.answering(), [first], "nobody else has taken over");
    assert_eq!(cluster.holder(), format!("node{first}"));
}

#[tokio::test(start_paused = true)]
async fn who_is_stopped_is_silent_before_another_answers_and_that_does_not_wait_for_the_lease() {
    let mut cluster = Cluster::of(2).await;
    let first = cluster.until_answered().await;
    cluster.watch_for(TIMING.renew).await;
    let stopped = Instant::now();
    cluster.nodes[first].stop().await;
    assert_eq!(cluster.answering(), [0; 0]);
    assert_ne!(cluster.until_answered().await, first);
    assert!(stopped.elapsed() < TIMING.retry, "{:?}", stopped.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_killed_holder_falls_silent_by_itself_and_another_takes_over() {
    let mut cluster = Cluster::of(2).await;
    let first = cluster.until_answered().await;
    let killed = Instant::now();
    cluster.nodes[first].kill().await;
    assert_eq!(cluster.answering(), [first], "the programs go on");
    let second = cluster.until_answered_by_another(first).await;
    assert_ne!(second, first);
    assert!(killed.elapsed() <= TIMING.lease + TIMING.retry, "{:?}", killed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_again_keeps_what_it_held() {
    let mut cluster = Cluster::of(2).await;
    let first = cluster.until_answered().await;
    cluster.nodes[first].kill().await;
    cluster.nodes[first].start();
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        cluster.step().await;
        assert_eq!(cluster.answering(), [first]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_is_silent_before_another_answers() {
    for mood in [Mood::Hanging, Mood::Failing] {
        let cluster = Cluster::of(2).await;
        let first = cluster.until_answered().await;
        cluster.nodes[first].set_mood(mood);
        let second = cluster.until_answered_by_another(first).await;
        cluster.nodes[first].set_mood(Mood::Well);
        cluster.watch_for(LONG).await;
        assert_eq!(cluster.answering(), [second], "who comes back does not take it back");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_nobody_answers_after_the_renew_deadline_and_then_one_does_again() {
    let cluster = Cluster::of(2).await;
    cluster.until_answered().await;
    (0..2).for_each(|n| cluster.nodes[n].set_mood(Mood::Hanging));
    cluster.watch_for(TIMING.renew).await;
    assert_eq!(cluster.answering(), [0; 0]);
    (0..2).for_each(|n| cluster.nodes[n].set_mood(Mood::Well));
    cluster.until_answered().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_deletes_stays_its_holders() {
    let cluster = Cluster::of(3).await;
    let first = cluster.until_answered().await;
    cluster.watch_for(TIMING.retry).await;
    cluster.delete_lease();
    cluster.watch_for(LONG).await;
    assert_eq!(cluster.answering(), [first]);
    assert_eq!(cluster.holder(), format!("node{first}"));
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_is_given_to_another_falls_silent() {
    let cluster = Cluster::of(1).await;
    cluster.until_answered().await;
    cluster.give_lease("somebody", 15);
    cluster.watch_for(TIMING.retry).await;
    assert_eq!(cluster.answering(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_answer_leaves_the_lease_to_another() {
    let mut cluster = Cluster::of(0).await;
    cluster.add_broken_node();
    cluster.watch_for(TIMING.renew / 2).await;
    assert_eq!((cluster.holder().as_str(), cluster.answering()), ("node0", vec![]));
    cluster.add_node();
    assert_eq!(cluster.until_answered().await, 1);
    cluster.watch_for(LONG).await;
    assert_eq!(cluster.answering(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_a_usable_duration_lasts_as_long_as_ours() {
    for seconds in [0, -1] {
        let mut cluster = Cluster::of(0).await;
        cluster.give_lease("somebody", seconds);
        cluster.add_node();
        let begun = Instant::now();
        cluster.until_answered().await;
        assert!(begun.elapsed() >= TIMING.lease, "{seconds}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_lease_is_what_others_wrote_and_changes_of_holder_are_counted() {
    let mut cluster = Cluster::of(1).await;
    cluster.until_answered().await;
    cluster.watch_for(TIMING.renew).await;
    cluster.nodes[0].stop().await;
    cluster.note("kept", "yes");
    cluster.nodes[0].start();
    cluster.until_answered().await;
    let lease = cluster.lease().unwrap();
    assert_eq!(lease.metadata.annotations.unwrap()["kept"], "yes");
    let spec = lease.spec.unwrap();
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(1), Some(3)));
    assert_eq!(lease.metadata.name.as_deref(), Some(LEASE));
}

#[tokio::test(start_paused = true)]
async fn who_loses_one_of_its_devices_gives_the_lease_to_a_node_that_has_it() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.until_answered().await;
    cluster.nodes[(first + 1) % 3].set_down(&["eth0"]);
    cluster.watch_for(TIMING.renew).await;
    assert_eq!(cluster.answering(), [first], "the others do not matter");
    cluster.nodes[first].set_down(&["eth1"]);
    let lost = Instant::now();
    let second = cluster.until_answered_by_another(first).await;
    assert_eq!(second, (first + 2) % 3, "who lacks another device does no better");
    assert!(lost.elapsed() < 2 * TIMING.retry, "{:?}", lost.elapsed());
    cluster.nodes[first].set_down(&[]);
    cluster.watch_for(LONG).await;
    assert_eq!(cluster.answering(), [second], "it does not move back");
    let notes = cluster.lease().unwrap().metadata.annotations.unwrap();
    let keys: Vec<_> = notes.keys().map(String::as_str).collect();
    assert_eq!((keys, notes["l2.cilium.io/addresses"].as_str()), (vec!["l2.cilium.io/addresses"], "192.0.2.240"));
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_each_lack_a_device_who_has_the_lease_keeps_it_until_the_other_is_whole() {
    let mut cluster = Cluster::of(2).await;
    let first = cluster.until_answered().await;
    let second = 1 - first;
    cluster.nodes[second].set_down(&["eth0"]);
    cluster.nodes[first].set_down(&["eth1"]);
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        cluster.step().await;
        assert_eq!(cluster.answering(), [first]);
    }
    assert_eq!(cluster.lease().unwrap().metadata.annotations.unwrap()[DOWN], "eth1");
    cluster.nodes[second].set_down(&[]);
    assert_eq!(cluster.until_answered_by_another(first).await, second);
    cluster.watch_for(LONG).await;
    assert_eq!(cluster.answering(), [second]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_lease_and_dies_leaves_it_to_who_gave_it_up() {
    let mut cluster = Cluster::of(2).await;
    let first = cluster.until_answered().await;
    cluster.nodes[1 - first].kill().await;
    cluster.nodes[first].set_down(&["eth1"]);
    cluster.watch_for(TIMING.renew).await;
    cluster.note(WANTED, "gone");
    cluster.watch_for(TIMING.retry).await;
    assert_eq!(cluster.answering(), [0; 0]);
    assert_eq!(cluster.until_answered().await, first);
    cluster.note(WANTED, "gone");
    let until = Instant::now() + LONG / 2;
    while Instant::now() < until {
        cluster.step().await;
        assert_eq!(cluster.answering(), [first], "not again soon");
    }
    // One whose devices are all up does not give way.
    cluster.nodes[first].set_down(&[]);
    cluster.watch_for(TIMING.renew).await;
    cluster.note(WANTED, "somebody");
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        cluster.step().await;
        assert_eq!(cluster.answering(), [first]);
    }
    assert!(!cluster.lease().unwrap().metadata.annotations.unwrap().contains_key(WANTED));
}

#[tokio::test(start_paused = true)]
async fn who_lacks_no_device_keeps_a_lease_that_another_asks_for() {
    let cluster = Cluster::of(1).await;
    cluster.until_answered().await;
    cluster.note(WANTED, "somebody");
    let until = Instant::now() + TIMING.lease;
    while Instant::now() < until {
        cluster.step().await;
        assert_eq!(cluster.answering(), [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_tells_at_once_of_a_device_that_goes_down_or_comes_up() {
    let mut cluster = Cluster::of(1).await;
    cluster.until_answered().await;
    // A renewal may coincide with one of these changes, not with all.
    for _ in 0..10 {
        cluster.nodes[0].set_down(&["eth1"]);
        cluster.step().await;
        assert_eq!(cluster.noted(DOWN).as_deref(), Some("eth1"));
        cluster.nodes[0].set_down(&[]);
        cluster.step().await;
        assert_eq!(cluster.noted(DOWN), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_released_tells_of_no_device_of_who_had_it() {
    let mut cluster = Cluster::of(1).await;
    cluster.until_answered().await;
    cluster.nodes[0].set_down(&["eth1"]);
    cluster.watch_for(TIMING.renew).await;
    assert_eq!(cluster.noted(DOWN).as_deref(), Some("eth1"));
    cluster.nodes[0].stop().await;
    assert_eq!((cluster.holder().as_str(), cluster.noted(DOWN)), ("", None));
    assert!(cluster.lease().is_some());
}

/// Whatever happens to three nodes and their ways to the API server.
#[tokio::test(start_paused = true)]
async fn never_do_two_nodes_answer_at_once_and_at_last_one_does() {
    for seed in 0..20 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::of(3).await;
        for _ in 0..60 {
            let node = chance.random_range(0..3);
            let down: &[&'static str] = [&[][..], &["eth0"], &["eth1"]].choose(&mut chance).unwrap();
            match chance.random_range(0..12) {
                10.. => cluster.nodes[node].set_down(down),
                0 => cluster.nodes[node].kill().await,
                1 => cluster.nodes[node].stop().await,
                2..5 => cluster.nodes[node].start(),
                _ => {
                    let moods = [Mood::Well, Mood::Slow, Mood::Hanging, Mood::Failing, Mood::Blind];
                    cluster.nodes[node].set_mood(*moods.choose(&mut chance).unwrap());
                }
            }
            // The check is in every step.
            cluster.watch_for(Duration::from_millis(chance.random_range(0..3000))).await;
        }
        for node in &mut cluster.nodes {
            node.set_mood(Mood::Well);
            node.start();
        }
        cluster.until_answered().await;
        for node in &mut cluster.nodes {
            node.stop().await;
        }
        // What a killed agent answered may outlive the stop of the next.
        cluster.watch_for(TIMING.renew).await;
        assert_eq!(cluster.answering(), [0; 0], "seed {seed}");
    }
}
