// SPDX-License-Identifier: Apache-2.0
//! The requests of one watch: which of them tell that it works, and from which version its lists may be.

use super::progress::Progress;
use crate::client::is_watch;
use hyper::{Request, Uri};
use kube::client::Body;
use std::sync::Arc;

/// What the watcher asks for where any version will do. The API server answers that from its cache.
const ANY: &str = "resourceVersion=0";

/// The same client, with what becomes of its requests noted. Lists are from the cache, but never from a version before
/// that from which the watch was last to go on: a server that lags behind would take the table back in time.
pub(super) fn observed(client: kube::Client, progress: Arc<Progress>) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (client, progress) = (client.clone(), progress.clone());
        let watch = is_watch(request.uri());
        if watch {
            progress.set_newest(version(request.uri()));
        } else if let Some(uri) = progress.newest().and_then(|newest| not_before(request.uri(), &newest)) {
            *request.uri_mut() = uri;
        }
        async move {
            let answer = client.send(request).await?;
            match (answer.status().is_success(), watch) {
                (true, true) => progress.worked(),
                // Perhaps there is no such version any more: then any is right.
                (false, false) => progress.set_newest(None),
                _ => {}
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    kube::Client::new(service, namespace)
}

fn version(uri: &Uri) -> Option<String> {
    let version = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="))?;
    Some(version.to_owned())
}

/// The list of any version turned to one not before `newest`; nothing if it is another kind of request.
fn not_before(uri: &Uri, newest: &str) -> Option<Uri> {
    let pairs: Vec<&str> = uri.query()?.split('&').collect();
    pairs.contains(&ANY).then_some(())?;
    let newest = format!("resourceVersion={newest}");
    let query: Vec<&str> = pairs.into_iter().map(|pair| if pair == ANY { newest.as_str() } else { pair }).collect();
    format!("{}?{}", uri.path(), query.join("&")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(uri: &'static str) -> Option<String> {
        not_before(&Uri::from_static(uri), "77").map(|uri| uri.to_string())
    }

    #[test]
    fn only_a_list_of_any_version_is_turned_to_one_not_before_the_newest() {
        let any = "/api/v1/pods?limit=500&resourceVersion=0&resourceVersionMatch=NotOlderThan";
        let newest = "/api/v1/pods?limit=500&resourceVersion=77&resourceVersionMatch=NotOlderThan";
        assert_eq!(turned(any).as_deref(), Some(newest));
        assert_eq!(turned("/api/v1/pods?limit=500&continue=x"), None);
        assert_eq!(turned("/api/v1/pods?limit=500&resourceVersion=01"), None);
    }
}
