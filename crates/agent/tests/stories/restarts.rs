// SPDX-License-Identifier: Apache-2.0
//! An agent ends, with everything done or the half of it, and the next one goes on.

use crate::apiserver::Mood;
use crate::world::{DENY_ALL, World, eventually, settle};
use abi::maps;
use axum::http::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_restart_changes_nothing_in_the_kernel_and_no_object() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(DENY_ALL);
    world.add("web", "web").await;
    settle().await;
    let before = (world.maps(), world.node.hooks.attached(), world.api.version());
    world.api.writes();
    world.restart().await;
    settle().await;
    assert_eq!((world.maps(), world.node.hooks.attached(), world.api.version()), before);
    assert_eq!(world.api.writes(), ["PATCH ciliumnodes node1"], "which says once more what it has said");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_its_policy_is_not_open_until_the_next_agent_knows_all_policies() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(DENY_ALL);
    let web = world.add("web", "web").await;
    eventually("the policy", async || !world.lets_in(&web, 2, 80)).await;
    settle().await;
    let whole = world.maps();
    world.kill().await;
    // The process ended after it had noted the endpoint on disk, and before the kernel had its policy.
    let (policies, endpoints) =
        (world.node.maps.trie::<maps::Policies>().unwrap(), world.node.maps.map::<maps::Endpoints>().unwrap());
    policies.keys().unwrap().iter().for_each(|key| assert!(policies.remove(key).unwrap()));
    assert!(endpoints.remove(&web.ifindex).unwrap());
    world.api.set_mood(Mood::Withholding("networkpolicies"));
    world.start().await;
    settle().await;
    assert!(world.endpoint(&web).is_none() || !world.lets_in(&web, 2, 80));
    world.api.set_mood(Mood::Well);
    eventually("all maps", async || world.maps() == whole).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_know_the_identities_yet_makes_none() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.add("web", "web").await;
    settle().await;
    let whole = world.maps();
    world.kill().await;
    world.api.set_mood(Mood::Withholding("ciliumidentities"));
    world.start().await;
    settle().await;
    world.schedule("new", "web");
    world.try_add("new").await.unwrap_err();
    world.api.set_mood(Mood::Well);
    eventually("the agent to be ready", async || world.healthz().await == StatusCode::OK).await;
    settle().await;
    assert_eq!(world.maps(), whole);
    world.add("new", "web").await;
    assert_eq!(world.api.all("ciliumidentities").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_went_while_no_agent_ran_is_made_anew() {
    let mut world = World::new().await;
    world.start_ready().await;
    let web = world.add("web", "web").await;
    settle().await;
    world.kill().await;
    let identity = world.api.all("ciliumidentities").remove(0);
    world.api.delete("ciliumidentities", identity["metadata"]["name"].as_str().unwrap());
    world.api.set_mood(Mood::Withholding("ciliumidentities"));
    world.start().await;
    settle().await;
    world.api.set_mood(Mood::Well);
    eventually("another identity", async || world.api.all("ciliumidentities").len() == 1).await;
    let identity: u32 = world.api.all("ciliumidentities")[0]["metadata"]["name"].as_str().unwrap().parse().unwrap();
    eventually("the pod to have it", async || world.ipcache(&web.ip.to_string()).is_some_and(|(id, _)| id == identity))
        .await;
}

#[tokio::test(start_paused = true)]
async fn pods_whose_state_on_disk_is_lost_are_recovered_from_the_kernel() {
    let mut world = World::new().await;
    world.start_ready().await;
    let web = world.add("web", "web").await;
    settle().await;
    let whole = world.maps();
    world.kill().await;
    std::fs::remove_dir_all(world.state()).unwrap();
    world.start_ready().await;
    settle().await;
    assert_eq!(world.maps(), whole);
    let other = world.add("other", "web").await;
    assert_ne!(other.ip, web.ip, "the address is still taken");
    // Its container is not known any more, so it is missed, and not removed at once.
    world.del(&web).await;
    eventually("it to be missed", async || world.endpoint(&web).is_none() && !world.is_local(web.ip)).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_file_is_lost_keeps_the_agent_from_nothing_while_the_api_server_is_away() {
    let mut world = World::new().await;
    world.start_ready().await;
    let (web, other) = (world.add("web", "web").await, world.add("other", "web").await);
    settle().await;
    let whole = world.maps();
    let file = world.state().join(world.endpoint(&web).unwrap().id.to_string()).join("ep_config.json");
    world.kill().await;
    std::fs::write(file, "{").unwrap();
    world.api.set_mood(Mood::Away);
    tokio::time::timeout(Duration::from_secs(60), world.start()).await.unwrap();
    let (code, endpoints) = world.ask(Method::GET, "/v1/endpoint", Value::Null).await;
    assert_eq!((code, endpoints.as_array().unwrap().len()), (StatusCode::OK, 1));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.maps(), whole, "nothing is pruned");
    world.api.set_mood(Mood::Well);
    eventually("the agent to be ready", async || world.healthz().await == StatusCode::OK).await;
    settle().await;
    assert_eq!(world.maps(), whole);
    for (name, pod) in [("web", &web), ("other", &other)] {
        assert!(world.endpoint(pod).is_some() && world.api.get("ciliumendpoints", &format!("shop/{name}")).is_some());
    }
    world.del(&other).await;
    eventually("it to go", async || world.endpoint(&other).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_went_while_no_agent_ran_is_forgotten() {
    let mut world = World::new().await;
    world.start_ready().await;
    let (web, stays) = (world.add("web", "web").await, world.add("stays", "web").await);
    settle().await;
    world.kill().await;
    world.api.delete("pods", "shop/web");
    world.node.network.netlink().delete_link(web.ifindex).await.unwrap();
    world.start().await;
    eventually("the kernel to forget", async || world.endpoint(&web).is_none() && !world.is_local(web.ip)).await;
    eventually("others to be told", async || world.api.get("ciliumendpoints", "shop/web").is_none()).await;
    assert!(world.endpoint(&stays).is_some() && world.is_local(stays.ip));
    let (code, endpoints) = world.ask(Method::GET, "/v1/endpoint", Value::Null).await;
    assert_eq!((code, endpoints.as_array().unwrap().len()), (StatusCode::OK, 1));
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_no_agent_ran_is_made_up_for() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(DENY_ALL);
    let web = world.add("web", "web").await;
    eventually("the policy", async || !world.lets_in(&web, 2, 80)).await;
    world.kill().await;
    world.api.delete("networkpolicies", "shop/web");
    assert!(!world.lets_in(&web, 2, 80), "without an agent nothing changes");
    world.start().await;
    eventually("the policy to go", async || world.lets_in(&web, 2, 80)).await;
}
