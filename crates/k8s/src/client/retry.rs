// SPDX-License-Identifier: Apache-2.0
//! Which answers of an API server are worth asking again for, at once and by the client itself. Everything else is left to the caller, who knows
//! whether to repeat a request.

use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use std::time::Duration;
use tower::BoxError;
use tower::retry::Policy;
use tower::retry::backoff::InvalidBackoff;

/// Asks again when the server is overloaded or not ready, after as long as it says, but not for what may have been done.
#[derive(Clone)]
pub(super) struct Retry(RetryPolicy);

impl Retry {
    pub(super) fn new() -> Result<Self, InvalidBackoff> {
        RetryPolicy::new(Duration::from_millis(500), Duration::from_secs(5), 3, true).map(Self)
    }
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Retry {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        // With 504 the server says that something behind it was too slow, which may still be doing it.
        let is_unclear = matches!(result, Ok(response) if response.status() == StatusCode::GATEWAY_TIMEOUT);
        if is_unclear && request.method() != Method::GET {
            return None;
        }
        self.0.retry(request, result)
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        <RetryPolicy as Policy<Request<Body>, Response<B>, BoxError>>::clone_request(&mut self.0, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::Instant;
    use tower::{ServiceBuilder, ServiceExt};

    /// How often a server is asked that always answers so, and for how long.
    async fn asked(method: Method, code: u16, after: Option<&'static str>) -> (usize, Duration) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let server = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = Response::builder().status(code);
            let answer = after.into_iter().fold(answer, |answer, after| answer.header("retry-after", after));
            async move { Ok::<_, BoxError>(answer.body(Body::empty()).unwrap()) }
        });
        let service = ServiceBuilder::new().layer(tower::retry::RetryLayer::new(Retry::new().unwrap())).service(server);
        let request = Request::builder().method(method).uri("/x").body(Body::from(b"{}".to_vec())).unwrap();
        let begun = Instant::now();
        assert_eq!(service.oneshot(request).await.unwrap().status(), code);
        (count.load(Ordering::SeqCst), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_refuses_is_asked_once() {
        for code in [200, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 500] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(asked(method, code, None).await.0, 1, "{code}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_overloaded_is_asked_again() {
        for code in [429, 503] {
            for method in [Method::GET, Method::POST] {
                let (times, took) = asked(method, code, None).await;
                assert!(times == 4 && took < Duration::from_secs(15), "{code}: {times} times in {took:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_overloaded_is_given_the_time_that_it_wants() {
        // The library compares with a clock that is not paused, so that only the first wait is as it would be.
        let (times, took) = asked(Method::POST, 429, Some("20")).await;
        assert!(times == 4 && took >= Duration::from_secs(20), "{times} times in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_done_is_not_done_again() {
        assert_eq!(asked(Method::GET, 504, None).await.0, 4);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(asked(method, 504, Some("1")).await.0, 1);
        }
    }
}
