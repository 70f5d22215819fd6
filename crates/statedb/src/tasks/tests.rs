// SPDX-License-Identifier: Apache-2.0
//! What supervision promises.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Tasks;

fn names(tasks: &Tasks) -> Vec<String> {
    tasks.list().into_iter().map(|task| task.name).collect()
}

#[tokio::test]
async fn a_panic_ends_the_process_and_names_the_task() {
    let tasks = Tasks::new(CancellationToken::new());
    let token = tasks.token();
    tasks.spawn("steady", std::future::pending());
    tasks.spawn("shaky", async { panic!("boom {}", 7) });
    let failure = tasks.run_until_failure().await.unwrap_err();
    assert_eq!(failure.to_string(), "task shaky failed: panic: boom 7");
    assert!(token.is_cancelled());
}

#[tokio::test]
async fn an_error_of_a_fallible_task_ends_the_process() {
    let tasks = Tasks::new(CancellationToken::new());
    tasks.spawn_fallible("server", async { Err("address in use") });
    let failure = tasks.run_until_failure().await.unwrap_err();
    assert_eq!((failure.task.as_str(), failure.message.as_str()), ("server", "address in use"));
}

#[tokio::test]
async fn a_task_that_returns_leaves_the_list_and_nothing_else_happens() {
    let tasks = Tasks::new(CancellationToken::new());
    let (done, finished) = tokio::sync::oneshot::channel();
    tasks.spawn("steady", std::future::pending());
    tasks.spawn("once", async { done.send(()).unwrap() });
    finished.await.unwrap();
    while names(&tasks).len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&tasks), ["steady"]);
    tasks.token().cancel();
    assert_eq!(tasks.run_until_failure().await, Ok(()));
}

#[tokio::test]
async fn tasks_end_in_reverse_start_order_and_may_drain() {
    let tasks = Tasks::new(CancellationToken::new());
    let order = Arc::new(Mutex::new(Vec::new()));
    for name in ["first", "second", "third"] {
        let order = Arc::clone(&order);
        tasks.spawn_draining(name, |stop| async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            order.lock().push(name);
        });
    }
    assert_eq!(names(&tasks), ["first", "second", "third"]);
    tasks.token().cancel();
    assert_eq!(tasks.run_until_failure().await, Ok(()));
    assert_eq!(*order.lock(), ["third", "second", "first"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_does_not_hold_up_the_others() {
    let tasks = Tasks::new(CancellationToken::new());
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    tasks.spawn_draining("polite", |stop| async move {
        stop.cancelled().await;
        seen.lock().push("polite");
    });
    tasks.spawn_draining("stubborn", |_| std::future::pending());
    tasks.token().cancel();
    assert_eq!(tasks.run_until_failure().await, Ok(()));
    assert_eq!(*order.lock(), ["polite"]);
}

#[tokio::test]
async fn what_a_task_logs_is_logged_in_its_span() {
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry());
    let (sender, seen) = tokio::sync::oneshot::channel();
    Tasks::new(CancellationToken::new()).spawn("a", async move {
        sender.send(tracing::Span::current().metadata().map(tracing::Metadata::name)).unwrap();
    });
    assert_eq!(seen.await.unwrap(), Some("task"));
}
