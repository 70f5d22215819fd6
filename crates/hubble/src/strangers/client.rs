// SPDX-License-Identifier: Apache-2.0
//! A call off the wire: whatever the body of a request, it is answered with a status, and one that does not follow ends.

use super::{BARE, framed, messages};
use crate::proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use std::time::Duration;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

/// Frames that are listened to.
const MOST: usize = 10_000;

/// What is called, and how.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The service and the method.
    pub path: &'static str,
    message: &'a [u8],
    bare: bool,
}

impl<'a> Call<'a> {
    /// Of these calls, the first byte names one. The rest is the request, or with the highest bit set the body as it comes.
    #[must_use]
    pub fn parse(calls: &[&'static str], data: &'a [u8]) -> Option<Self> {
        let (first, message) = data.split_first()?;
        let path = *calls.iter().cycle().nth(usize::from(first & !BARE))?;
        Some(Self { path, message, bare: first & BARE != 0 })
    }

    /// Whether an answer ends by itself. Of a body that is not framed that is not known.
    #[must_use]
    pub fn ends(&self) -> bool {
        !self.bare && !self.window().0
    }

    /// How many answers are asked for at most.
    #[must_use]
    pub fn most(&self) -> u64 {
        match self.window() {
            (false, number) if !self.bare && number > 0 => number,
            _ => u64::MAX,
        }
    }

    /// Whether it follows, and the number that it wants.
    fn window(&self) -> (bool, u64) {
        match self.path.rsplit('/').next() {
            Some("GetFlows") => GetFlowsRequest::decode(self.message).map_or((false, 0), |r| (r.follow, r.number)),
            Some("GetAgentEvents") => {
                GetAgentEventsRequest::decode(self.message).map_or((false, 0), |r| (r.follow, r.number))
            }
            Some("GetDebugEvents") => {
                GetDebugEventsRequest::decode(self.message).map_or((false, 0), |r| (r.follow, r.number))
            }
            Some("Notify" | "Watch") => (true, 0),
            _ => (false, 0),
        }
    }

    fn request(&self) -> http::Request<Body> {
        let body = if self.bare { self.message.to_vec() } else { framed(self.message) };
        let request = http::Request::post(format!("http://server/{}", self.path));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        request.body(Body::new(Full::new(Bytes::from(body)))).expect("a request")
    }

    /// Calls, and listens for so long. Returns the messages that were answered.
    ///
    /// # Panics
    ///
    /// The answer has no status at its end, or has none in that time although it `ends`.
    pub async fn ask(&self, routes: &Routes, ends: bool, patience: Duration) -> Vec<Vec<u8>> {
        let path = self.path;
        let answer = routes.clone().oneshot(self.request()).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let (head, mut body) = answer.into_parts();
        let mut has_status = head.headers.contains_key("grpc-status");
        let mut received = Vec::new();
        let listened = tokio::time::timeout(patience, async {
            for _ in 0..MOST {
                let Some(frame) = body.frame().await else { return true };
                let frame = frame.expect("a frame");
                has_status |= frame.trailers_ref().is_some_and(|trailers| trailers.contains_key("grpc-status"));
                received.extend(frame.into_data().unwrap_or_default());
            }
            false
        });
        let ended = listened.await.unwrap_or_default();
        assert!(ended || !ends, "{path} does not end");
        assert!(has_status || !ended, "{path} ends without a status");
        messages(&received).map(<[u8]>::to_vec).collect()
    }
}
