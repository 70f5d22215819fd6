// SPDX-License-Identifier: Apache-2.0
//! The requests of one watch: which ones prove that it works, and which list versions are acceptable.

use super::progress::{Acceptable, Progress};
use crate::client::is_watch;
use hyper::{Request, StatusCode, Uri};
use kube::client::Body;
use std::sync::Arc;

/// The watcher's request for any version, which the API server answers from its cache.
const ANY: &str = "resourceVersion=0";

/// The same client, recording the outcome of requests. Lists come from the cache, but never from a version before the
/// table's: a lagging server would take the table back in time.
pub(super) fn observed(client: kube::Client, progress: Arc<Progress>) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (client, progress) = (client.clone(), progress.clone());
        let watch = is_watch(request.uri());
        if watch {
            version(request.uri()).into_iter().for_each(|version| progress.reached(version));
        } else if let Some(uri) = narrowed(request.uri(), &progress.acceptable()) {
            *request.uri_mut() = uri;
        }
        async move {
            if watch {
                tokio::time::sleep(progress.pause()).await;
            }
            let answer = client.send(request).await?;
            match (answer.status().is_success(), watch) {
                (true, true) => progress.opened(),
                (false, false) if is_about_version(answer.status()) => progress.unavailable(),
                _ => {}
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    kube::Client::new(service, namespace)
}

/// Whether a list may have failed because of the requested version: it is too new (504, also after etcd was restored
/// from a backup), gone (410), or malformed (400). Other failures say nothing about it.
fn is_about_version(status: StatusCode) -> bool {
    matches!(status, StatusCode::GATEWAY_TIMEOUT | StatusCode::GONE | StatusCode::BAD_REQUEST)
}

fn version(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="))
}

/// Rewrites a list of any version to an acceptable one; none if it is one already, or another kind of request.
fn narrowed(uri: &Uri, acceptable: &Acceptable) -> Option<Uri> {
    let pairs: Vec<&str> = uri.query()?.split('&').collect();
    pairs.contains(&ANY).then_some(())?;
    let query: Vec<_> = match acceptable {
        Acceptable::Any => return None,
        Acceptable::NotBefore(version) => {
            let version = format!("resourceVersion={version}");
            pairs.into_iter().map(|pair| if pair == ANY { version.clone() } else { pair.to_owned() }).collect()
        }
        Acceptable::Newest => {
            pairs.into_iter().filter(|pair| !pair.starts_with("resourceVersion")).map(str::to_owned).collect()
        }
    };
    format!("{}?{}", uri.path(), query.join("&")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(uri: &'static str, acceptable: &Acceptable) -> Option<String> {
        narrowed(&Uri::from_static(uri), acceptable).map(|uri| uri.to_string())
    }

    #[test]
    fn only_a_list_of_any_version_is_turned_to_one_that_is_acceptable() {
        let any = "/api/v1/pods?limit=500&resourceVersion=0&resourceVersionMatch=NotOlderThan";
        let newest = "/api/v1/pods?limit=500&resourceVersion=77&resourceVersionMatch=NotOlderThan";
        let not_before = Acceptable::NotBefore("77".into());
        assert_eq!(turned(any, &not_before).as_deref(), Some(newest));
        assert_eq!(turned(any, &Acceptable::Newest).as_deref(), Some("/api/v1/pods?limit=500"));
        assert_eq!(turned(any, &Acceptable::Any), None);
        for acceptable in [not_before, Acceptable::Newest] {
            assert_eq!(turned("/api/v1/pods?limit=500&continue=x", &acceptable), None);
            assert_eq!(turned("/api/v1/pods?limit=500&resourceVersion=01", &acceptable), None);
        }
    }
}
