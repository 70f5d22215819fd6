// SPDX-License-Identifier: Apache-2.0
//! A server that answers whatever bytes say: messages that are none, none at all, ends that come in the middle or never.

use super::{BARE, framed, messages};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};

/// Bytes on their way.
const PIPE: usize = 64 << 10;
/// Between two rounds of an answer without an end, so that time goes on.
const PAUSE: Duration = Duration::from_millis(200);

/// An answer to a call.
#[derive(Clone, Debug)]
pub struct Answer {
    frames: Vec<Bytes>,
    ending: Ending,
}

/// What follows the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// A status that says that all is well.
    Good,
    /// One that says that it is not.
    Refused,
    /// No status.
    Cut,
    /// The stream is reset.
    Broken,
    /// Nothing at all.
    Never,
    /// The same frames, for ever.
    Again,
}

const ENDINGS: [Ending; 6] = [Ending::Good, Ending::Refused, Ending::Cut, Ending::Broken, Ending::Never, Ending::Again];

type Frames = BoxStream<'static, Result<Frame<Bytes>, io::Error>>;

impl Answer {
    /// The first byte says how it ends. Messages follow, each after a byte with its length, or with the highest bit set one frame as it comes.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let (first, mut rest) = data.split_first().unwrap_or((&0, &[]));
        let ending = ENDINGS.into_iter().cycle().nth(usize::from(first & !BARE)).unwrap_or(Ending::Good);
        if first & BARE != 0 {
            // Ends of one round and beginnings of the next would make messages that nobody has read here.
            let ending = if ending == Ending::Again { Ending::Never } else { ending };
            return Self { frames: vec![Bytes::copy_from_slice(rest)], ending };
        }
        let mut frames = Vec::new();
        while let Some((length, after)) = rest.split_first() {
            let (message, after) = after.split_at(usize::from(*length).min(after.len()));
            frames.push(framed(message).into());
            rest = after;
        }
        Self { frames, ending }
    }

    /// Messages that are well, and an end that is.
    #[must_use]
    pub fn of(all: &[Vec<u8>]) -> Self {
        Self { frames: all.iter().map(|message| framed(message).into()).collect(), ending: Ending::Good }
    }

    /// The same, without an end.
    #[must_use]
    pub fn for_ever(self) -> Self {
        Self { ending: Ending::Never, ..self }
    }

    /// Whether it goes on and on.
    #[must_use]
    pub fn floods(&self) -> bool {
        self.ending == Ending::Again
    }

    /// What it says, as far as it is messages.
    #[must_use]
    pub fn messages(&self) -> Vec<Vec<u8>> {
        messages(&self.frames.concat()).map(<[u8]>::to_vec).collect()
    }

    fn response(self) -> http::Response<Body> {
        let response = http::Response::builder().header("content-type", "application/grpc");
        response.body(Body::new(StreamBody::new(self.stream()))).expect("a response")
    }

    fn stream(self) -> Frames {
        let Self { frames, ending } = self;
        let once = stream::iter(frames.clone()).map(|bytes| Ok::<_, io::Error>(Frame::data(bytes)));
        match ending {
            Ending::Good => once.chain(stream::iter([Ok(status("0"))])).boxed(),
            Ending::Refused => once.chain(stream::iter([Ok(status("13"))])).boxed(),
            Ending::Cut => once.boxed(),
            Ending::Broken => once.chain(stream::iter([Err(io::Error::other("broken on purpose"))])).boxed(),
            Ending::Never => once.chain(stream::pending()).boxed(),
            Ending::Again => again(frames).boxed(),
        }
    }
}

fn status(code: &'static str) -> Frame<Bytes> {
    let code = http::HeaderValue::from_static(code);
    Frame::trailers(http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code)]))
}

fn again(frames: Vec<Bytes>) -> impl Stream<Item = Result<Frame<Bytes>, io::Error>> {
    let rounds = stream::unfold(frames, async |frames| {
        tokio::time::sleep(PAUSE).await;
        Some((stream::iter(frames.clone()).map(|bytes| Ok(Frame::data(bytes))), frames))
    });
    rounds.flatten()
}

/// A connection to a server that answers each path so. The server ends with it.
///
/// # Errors
///
/// Never but without a runtime.
pub async fn connect(
    answer: impl Fn(&str) -> Answer + Clone + Send + 'static,
) -> Result<Channel, tonic::transport::Error> {
    let (client, server) = tokio::io::duplex(PIPE);
    let service = tower::service_fn(move |request: http::Request<Incoming>| {
        let response = answer(request.uri().path()).response();
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
    // It ends when the client goes.
    drop(tokio::spawn(connection));
    let mut client = Some(client);
    let connector = tower::service_fn(move |_: http::Uri| {
        let client = client.take().map(TokioIo::new).ok_or_else(|| io::Error::other("it is there once"));
        std::future::ready(client)
    });
    Endpoint::from_static("http://server").connect_with_connector(connector).await
}
