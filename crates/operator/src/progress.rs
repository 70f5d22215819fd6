// SPDX-License-Identifier: Apache-2.0
//! Whether the leader makes progress. If it does not, another may be able to.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a table may be stale because the API server does not respond.
const WATCH_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How long a controller's pass may take.
const PASS_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often progress is checked.
const LOOK: Duration = Duration::from_secs(10);

/// Running passes, and watches. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    client: k8s::Client,
    passes: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

impl Progress {
    pub(crate) fn new(client: k8s::Client) -> Self {
        Self { client, passes: Arc::default() }
    }

    /// Runs a controller's pass.
    pub(crate) async fn watch<T>(&self, controller: &'static str, pass: impl Future<Output = T>) -> T {
        self.passes.lock().insert(controller, Instant::now());
        let result = pass.await;
        self.passes.lock().remove(controller);
        result
    }

    /// What is stuck. A refusal by the API server does not count: it would refuse another operator too.
    pub(crate) fn stuck(&self) -> Option<String> {
        let too_long = |begun: &Instant| begun.elapsed() >= PASS_PATIENCE;
        let pass = self.passes.lock().iter().find(|(_, begun)| too_long(begun)).map(|(name, _)| *name);
        let watch = self.client.failing_watches(WATCH_PATIENCE).into_iter().find(|failure| !failure.refused);
        let pass = pass.map(|name| format!("controller {name} has come to no end for {} s", PASS_PATIENCE.as_secs()));
        pass.or_else(|| watch.map(|failure| failure.to_string()))
    }

    /// Returns once something is stuck, with its name.
    pub(crate) async fn until_stuck(&self) -> String {
        loop {
            if let Some(what) = self.stuck() {
                return what;
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::k8s_openapi::api::core::v1::ConfigMap;
    use k8s::kube;
    use k8s::kube::client::Body;

    #[derive(Clone, Debug, PartialEq)]
    struct Nothing;

    impl statedb::Row for Nothing {
        type Key = ();
        fn key(&self) {}
    }

    /// A client whose requests end as `answer` says.
    fn client(answer: impl Fn() -> kube::Error + Clone + Send + 'static) -> k8s::Client {
        let service = tower::service_fn(move |_: axum::http::Request<Body>| {
            let error = answer();
            async move { Err::<axum::http::Response<Body>, _>(error) }
        });
        kube::Client::new(service, "default").into()
    }

    fn away() -> kube::Error {
        kube::Error::Service("no answer".into())
    }

    fn refusal() -> kube::Error {
        let status = kube::core::Status { code: 403, ..kube::core::Status::default() };
        kube::Error::Api(Box::new(status))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_without_end_is_stuck_and_one_that_ends_is_not() {
        let progress = Progress::new(client(away));
        progress.watch("quick", sleep(PASS_PATIENCE * 2)).await;
        assert_eq!(progress.stuck(), None);
        let endless = progress.clone();
        tokio::spawn(async move { endless.watch("endless", std::future::pending::<()>()).await });
        let what = progress.until_stuck().await;
        assert!(what.contains("controller endless"), "{what}");
    }

    async fn after_an_hour(answer: impl Fn() -> kube::Error + Clone + Send + 'static) -> Option<String> {
        let client = client(answer);
        let progress = Progress::new(client.clone());
        let (writer, _reader) = statedb::table::<Nothing>("nothing");
        let _task = tokio::spawn(client.reflect(client.all::<ConfigMap>(), writer, |_| None::<Nothing>));
        sleep(Duration::from_secs(3600)).await;
        progress.stuck()
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_stands_still_is_stuck_unless_the_api_server_refuses_it() {
        let what = after_an_hour(away).await;
        assert!(what.is_some_and(|what| what.contains("ConfigMap not followed")));
        assert_eq!(after_an_hour(refusal).await, None);
    }
}
