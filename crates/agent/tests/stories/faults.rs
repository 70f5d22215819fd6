// SPDX-License-Identifier: Apache-2.0
//! An API server that is away, hangs, fails or lies, and maps that fail.

use crate::apiserver::Mood;
use crate::world::{Attached, DENY_ALL, World, eventually, settle};
use axum::http::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_at_start_what_is_in_the_kernel_stays() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(DENY_ALL);
    let web = world.add("web", "web").await;
    eventually("the policy", async || !world.lets_in(&web, 2, 80)).await;
    settle().await;
    let (maps, attached) = (world.maps(), world.node.hooks.attached());
    world.kill().await;
    world.api.set_mood(Mood::Away);
    world.start().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((world.maps(), world.node.hooks.attached()), (maps, attached));
    assert_eq!(world.healthz().await, StatusCode::SERVICE_UNAVAILABLE);
    let (code, _) = world.try_add("new").await.unwrap_err();
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);

    world.api.set_mood(Mood::Well);
    eventually("the agent to be ready", async || world.healthz().await == StatusCode::OK).await;
    let new = world.add("new", "web").await;
    assert!(!world.lets_in(&new, 2, 80));
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_hangs_pods_of_a_known_identity_start_and_the_agent_says_so() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.add("one", "web").await;
    // The pod is known to the agent when the trouble begins.
    world.schedule("two", "web");
    settle().await;
    world.api.set_mood(Mood::Hanging);
    let two = world.try_add("two").await.unwrap();
    assert!(world.is_local(two.ip));
    eventually("it to be noticed", async || world.healthz().await != StatusCode::OK).await;
    world.api.apply(DENY_ALL);
    settle().await;
    assert!(world.lets_in(&two, 2, 80), "nobody has told of it");

    world.api.set_mood(Mood::Well);
    eventually("the policy", async || !world.lets_in(&two, 2, 80)).await;
    eventually("others to be told", async || world.api.get("ciliumendpoints", "shop/two").is_some()).await;
    eventually("all to be well", async || world.healthz().await == StatusCode::OK).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_read_but_not_written_the_agent_says_so() {
    for mood in [Mood::HangingWrites, Mood::FailingWrites(500)] {
        let mut world = World::new().await;
        world.start_ready().await;
        world.api.set_mood(mood);
        world.schedule("web", "web");
        eventually("it to be noticed", async || {
            // The kubelet tries on.
            world.try_add("web").await.unwrap_err();
            world.healthz().await == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        let (_, status) = world.ask(Method::GET, "/v1/healthz", Value::Null).await;
        let why = status["kubernetes"]["msg"].as_str().unwrap();
        assert!(why.starts_with("ciliumidentities not written for "), "{why}");
        world.api.set_mood(Mood::Well);
        world.add_at_last("web", "web").await;
        assert_eq!(world.healthz().await, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_one_object_does_not_make_the_agent_unready() {
    let mut world = World::new().await;
    world.start_ready().await;
    for mood in [Mood::FailingWrites(403), Mood::Refusing("ciliumidentities")] {
        world.api.set_mood(mood);
        world.schedule("web", "web");
        for _ in 0..60 {
            world.try_add("web").await.unwrap_err();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(world.healthz().await, StatusCode::OK);
        }
        world.api.delete("pods", "shop/web");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_identity_cannot_be_made_gets_no_network_until_it_can() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.schedule("web", "web");
    settle().await;
    let before = world.maps();
    world.api.set_mood(Mood::Failing(500));
    let (code, why) = world.try_add("web").await.unwrap_err();
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{why}");
    assert_eq!(world.maps()["Endpoints"], before["Endpoints"]);
    assert_eq!(world.maps()["Locals"], before["Locals"]);
    world.api.set_mood(Mood::Well);
    settle().await;
    let web = world.try_add("web").await.unwrap();
    assert_eq!(world.api.all("ciliumidentities").len(), 1);
    assert!(world.endpoint(&web).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_an_event_of_the_pod() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.set_mood(Mood::Refusing("ciliumidentities"));
    world.schedule("web", "web");
    // The kubelet tries on.
    for _ in 0..5 {
        world.try_add("web").await.unwrap_err();
        settle().await;
    }
    let notes = |reason| -> Vec<String> {
        let all = world.api.all("events").into_iter().filter(|event| event["reason"] == reason);
        all.map(|event| event["note"].as_str().unwrap().to_owned()).collect()
    };
    let [note] = <[String; 1]>::try_from(notes("IdentityRefused")).unwrap();
    assert!(note.starts_with("No security identity for this pod: the API server rejects CiliumIdentity "), "{note}");
    assert!(note.contains("it is too long"), "{note}");
    assert_eq!(world.api.all("events")[0]["regarding"]["uid"], "uid-web");

    world.api.set_mood(Mood::Refusing("ciliumendpoints"));
    world.add_at_last("other", "other").await;
    eventually("the event", async || notes("CiliumEndpointRefused").len() == 1).await;
    let note = notes("CiliumEndpointRefused").remove(0);
    assert!(note.starts_with("Other nodes do not know this pod: CiliumEndpoint shop/other: create failed: "), "{note}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_refused_is_not_asked_for_when_its_pod_is_gone() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.set_mood(Mood::Refusing("ciliumidentities"));
    world.schedule("job", "job");
    world.try_add("job").await.unwrap_err();
    world.api.delete("pods", "shop/job");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.api.refused(), 1);
    // The next one with these labels is not held up by it.
    world.api.set_mood(Mood::Well);
    world.add("job", "job").await;
}

#[tokio::test(start_paused = true)]
async fn that_no_address_is_left_is_an_event_of_the_pod() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.schedule("late", "web");
    while world.ask(Method::POST, "/v1/ipam?owner=shop%2Fother", Value::Null).await.0.is_success() {}
    for _ in 0..3 {
        world.try_add("late").await.unwrap_err();
    }
    settle().await;
    let events = world.api.all("events");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["reason"], &events[0]["regarding"]["name"]), (&"AddressesExhausted".into(), &"late".into()));
    let note = events[0]["note"].as_str().unwrap();
    assert!(note.contains("pool 10.1.0.0/24 is exhausted"), "{note}");
}

#[tokio::test(start_paused = true)]
async fn stale_lists_and_events_that_come_twice_lead_to_the_present() {
    let mut world = World::new().await;
    world.start_ready().await;
    let web = world.add("web", "web").await;
    world.kill().await;
    // From here on lists are of this moment, in which there was no policy, and one more pod.
    world.schedule("gone", "web");
    world.api.set_mood(Mood::Lying);
    world.api.apply(DENY_ALL);
    world.api.delete("pods", "shop/gone");
    world.start().await;
    eventually("the policy", async || !world.lets_in(&web, 2, 80)).await;
    settle().await;
    let (_, pods) = world.ask(Method::GET, "/v1/statedb/dump/k8s-pods", Value::Null).await;
    assert_eq!(pods.as_array().unwrap().len(), 1, "{pods}");
    let new = world.add("new", "web").await;
    assert!(!world.lets_in(&new, 2, 80));
    world.api.delete("networkpolicies", "shop/web");
    eventually("its end", async || world.lets_in(&web, 2, 80) && world.lets_in(&new, 2, 80)).await;
}

#[tokio::test(start_paused = true)]
async fn a_running_agent_is_not_taken_back_in_time() {
    let (world, web) = denied_by_one_that_lies().await;
    world.api.forget_events();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!world.lets_in(&web, 2, 80), "a list of the past was believed");
    }
}

#[tokio::test(start_paused = true)]
async fn nor_by_one_that_lags_behind_after_it_has_failed() {
    let (world, web) = denied_by_one_that_lies().await;
    for code in [503, 504] {
        world.api.set_mood(Mood::Failing(code));
        world.api.forget_events();
        settle().await;
        world.api.set_mood(Mood::Lying);
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!world.lets_in(&web, 2, 80), "after a {code}, a list of the past was believed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn maps_that_fail_now_and_then_hold_in_the_end_what_they_would_otherwise() {
    let mut calm = World::new().await;
    tell(&mut calm).await;
    // Numbers of identities and endpoints are drawn.
    let sizes = |world: &World| world.maps().into_iter().map(|(map, entries)| (map, entries.len())).collect::<Vec<_>>();
    for seed in 0..5 {
        let mut world = World::with_failing_maps(seed).await;
        let web = tell(&mut world).await;
        assert_eq!(sizes(&world), sizes(&calm), "seed {seed}");
        assert!(world.is_local(web.ip) && !world.lets_in(&web, 2, 80) && world.lets_out(&web, 2, 80), "seed {seed}");
    }
}

/// A pod that nobody may reach, by a policy that has come since the API server shows lists of the past.
async fn denied_by_one_that_lies() -> (World, Attached) {
    let mut world = World::new().await;
    world.start_ready().await;
    let web = world.add("web", "web").await;
    settle().await;
    world.api.set_mood(Mood::Lying);
    world.api.apply(DENY_ALL);
    eventually("the policy", async || !world.lets_in(&web, 2, 80)).await;
    (world, web)
}

/// A policy, two pods of which one goes, and a restart.
async fn tell(world: &mut World) -> Attached {
    world.start_ready().await;
    world.api.apply(DENY_ALL);
    let (web, other) = (world.add_at_last("web", "web").await, world.add_at_last("other", "other").await);
    eventually("the policy", async || !world.lets_in(&web, 2, 80)).await;
    world.del(&other).await;
    world.api.delete("pods", "shop/other");
    settle().await;
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(1200)).await;
    web
}

#[tokio::test(start_paused = true)]
async fn while_nothing_can_be_written_to_disk_pods_are_refused_and_nothing_is_left_of_them() {
    let mut world = World::new().await;
    world.start_ready().await;
    let web = world.add("web", "web").await;
    settle().await;
    let before = (world.maps(), world.node.hooks.attached());
    // No file can be made where there is no folder, whoever asks.
    let (state, aside) = (world.state(), world.state().with_extension("aside"));
    std::fs::rename(&state, &aside).unwrap();
    std::fs::write(&state, "").unwrap();
    world.schedule("late", "web");
    let (code, why) = world.try_add("late").await.unwrap_err();
    assert!(code.is_server_error(), "{code} {why}");
    settle().await;
    assert_eq!((world.maps(), world.node.hooks.attached()), before);
    assert!(world.api.get("ciliumendpoints", "shop/late").is_none());

    std::fs::remove_file(&state).unwrap();
    std::fs::rename(&aside, &state).unwrap();
    let late = world.add_at_last("late", "web").await;
    settle().await;
    let after = world.maps();
    world.restart().await;
    settle().await;
    assert_eq!(world.maps(), after);
    assert!(world.is_local(web.ip) && world.is_local(late.ip));
}
