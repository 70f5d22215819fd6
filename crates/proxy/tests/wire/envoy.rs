// SPDX-License-Identifier: Apache-2.0
//! What CiliumEnvoyConfigs ask for besides what Gateway API does: rate limits, retries at a time, answers and paths letter by letter.

use crate::backend::Backend;
use crate::client::{get, status, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use http::{Response, StatusCode};
use http_body_util::Full;
use l7::{
    Answer, Cluster, ClusterLimits, Filters, HeaderChanges, HttpForward, Object, PathChange, PathMatch, RateLimit,
    Retry, RetryBudget, Rewrite, Route, RouteAction,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Two tokens, none of which comes back while a test runs.
fn limit(name: &str) -> RateLimit {
    RateLimit {
        name: name.into(),
        burst: 2,
        requests: 1,
        interval: Duration::from_secs(86_400),
        status: 429,
        headers: vec![("x-limited".into(), "yes".into())],
    }
}

fn limited(name: &str, path: &str, by: &str) -> Object {
    Route { rate_limit: Some(by.into()), ..route(name, path, RouteAction::Forward(forward("c"))) }.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_share_the_tokens_of_the_limit_that_they_name_and_changes_of_other_things_bring_none_back() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    objects[1] = limited("one", "/one", "l");
    objects.extend([limited("two", "/two", "l"), limited("own", "/own", "m"), limited("lost", "/lost", "gone")]);
    objects.extend([limit("l").into(), limit("m").into()]);
    objects.push(route("free", "/free", RouteAction::Forward(forward("c"))).into());
    let mut world = World::of(objects.clone()).await;
    let mut answers = Vec::new();
    for path in ["/one", "/two", "/one", "/two", "/own", "/free"] {
        answers.push(status(&get(address, "h", path, "").await));
    }
    assert_eq!(answers, [200, 200, 429, 429, 200, 200]);
    let refused = get(address, "h", "/one", "").await;
    assert_eq!((value(&refused, "x-limited"), backend.requests()), (Some("yes"), 4));
    assert_eq!(status(&get(address, "h", "/lost", "").await), 500, "what counts its requests is not there");
    let grpc = get(address, "h", "/one", "content-type: application/grpc\r\n").await;
    assert_eq!(value(&grpc, "grpc-status"), Some("14"));

    objects[1] = Route { name: "one".into(), ..route("x", "/one/more", RouteAction::Forward(forward("c"))) }.into();
    world.publish(objects.clone()).await;
    assert_eq!(status(&get(address, "h", "/two", "").await), 429);
    objects.push(RateLimit { burst: 3, ..limit("l") }.into());
    world.publish(objects).await;
    assert_eq!(status(&get(address, "h", "/two", "").await), 200, "another limit begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_retries_of_a_cluster_so_many_are_under_way_at_a_time() {
    let address = free();
    let (held, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let attempts = Arc::new(AtomicUsize::new(0));
    let backend = Backend::answering({
        let (held, asked) = (Arc::clone(&held), Arc::clone(&asked));
        move |request| {
            let (held, asked, attempts) = (Arc::clone(&held), Arc::clone(&asked), Arc::clone(&attempts));
            async move {
                // Of a request to /held, the second attempt waits.
                if request.uri().path() == "/held" && attempts.fetch_add(1, SeqCst) == 1 {
                    asked.add_permits(1);
                    held.acquire().await.unwrap().forget();
                }
                let mut response = Response::new(Full::from(""));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
        }
    })
    .await;
    let rule = Retry { attempts: 1, statuses: vec![503], backoff: Duration::ZERO, budget: RetryBudget::default() };
    let mut objects = simple(address, backend.address);
    objects[1] =
        route("r", "/", RouteAction::Forward(HttpForward { retry: Some(Box::new(rule)), ..forward("c") })).into();
    let limits = ClusterLimits { retries: Some(1), ..ClusterLimits::default() };
    objects[2] = Cluster { limits, ..cluster("c") }.into();
    let _world = World::of(objects).await;
    let first = tokio::spawn(async move { get(address, "h", "/held", "").await });
    // Its first attempt has been answered, and its second has come.
    asked.acquire().await.unwrap().forget();
    assert_eq!(status(&get(address, "h", "/", "").await), 503);
    assert_eq!(backend.requests(), 3, "there is one retry at a time, and it is the other's");
    held.add_permits(1);
    assert_eq!(status(&first.await.unwrap()), 503);
    assert_eq!(status(&get(address, "h", "/", "").await), 503);
    assert_eq!(backend.requests(), 5, "then it can be had again");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_cluster_has_all_its_connections_some_requests_wait_and_others_are_refused() {
    let address = free();
    let (held, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let backend = Backend::answering({
        let (held, asked) = (Arc::clone(&held), Arc::clone(&asked));
        move |_| {
            let (held, asked) = (Arc::clone(&held), Arc::clone(&asked));
            async move {
                asked.add_permits(1);
                held.acquire().await.unwrap().forget();
                Response::new(Full::from(""))
            }
        }
    })
    .await;
    let mut objects = simple(address, backend.address);
    let limits = ClusterLimits { connections: 1, waiting: 2, ..ClusterLimits::default() };
    objects[2] = Cluster { limits, ..cluster("c") }.into();
    let _world = World::of(objects).await;
    let ask = move || tokio::spawn(async move { status(&get(address, "h", "/", "").await) });
    let first = ask();
    asked.acquire().await.unwrap().forget();
    // Of four more two find room to wait, and the others are refused at once. They are of two workers, each with connections of its own.
    let others = [ask(), ask(), ask(), ask()];
    let refused = async {
        while others.iter().filter(|one| one.is_finished()).count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, refused).await.unwrap();
    held.add_permits(3);
    let mut answers = Vec::new();
    for one in std::iter::once(first).chain(others) {
        answers.push(timeout(DEADLINE, one).await.unwrap().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 200, 200, 503, 503]);
    assert_eq!(backend.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn beginnings_are_matched_and_replaced_letter_by_letter_and_a_route_may_answer_itself() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut given = route("given", "/given", RouteAction::Answer(Answer { status: 418, body: "teapot".into() }));
    let response = HeaderChanges { set: vec![("content-type".into(), "text/html".into())], ..HeaderChanges::default() };
    given.filters = Filters { response, ..Filters::default() }.into();
    objects.push(given.into());
    let changed = |name: &str, start: &str, path: PathChange| -> Object {
        let mut route = route(name, start, RouteAction::Forward(forward("c")));
        Arc::make_mut(&mut route.matches)[0].path = PathMatch::Start(start.into());
        let rewrite = Rewrite { path: Some(path), host: None };
        Route { filters: Filters { rewrite, ..Filters::default() }.into(), ..route }.into()
    };
    objects.push(changed("start", "/ab", PathChange::Start("/x".into())));
    let replace = |pattern: &str, with: &str| PathChange::Replace { pattern: pattern.into(), with: with.into() };
    objects.push(changed("replace", "/v", replace("^/v[0-9]+/(.*)$", "/\\1")));
    objects.push(changed("broken", "/broken", replace("^/", "")));
    objects.push(changed("up", "/up", PathChange::Start("/".into())));
    objects.push(changed("encoded", "/e", replace("^/e", "/%2e")));
    let _world = World::of(objects).await;
    for (path, wanted) in
        [("/abc?q=1", "/xc?q=1"), ("/ab", "/x"), ("/a", "/a"), ("/v3/b/c?q", "/b/c?q"), ("/v/b", "/v/b")]
    {
        let answer = get(address, "h", path, "").await;
        assert_eq!(value(&answer, "asked"), Some(format!("GET {wanted} HTTP/1.1").as_str()), "{path}");
    }
    assert_eq!(status(&get(address, "h", "/broken", "").await), 404, "what it becomes is no path");
    for up in ["/up../secret", "/up..", "/e./secret"] {
        assert_eq!(status(&get(address, "h", up, "").await), 404, "{up} would lead out of what is written");
    }
    assert_eq!(value(&get(address, "h", "/up..x", "").await, "asked"), Some("GET /..x HTTP/1.1"));
    let answer = get(address, "h", "/given/x", "").await;
    assert_eq!((status(&answer), value(&answer, "content-type")), (418, Some("text/html")));
    assert!(answer.ends_with("teapot"), "{answer}");
}
