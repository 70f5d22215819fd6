// SPDX-License-Identifier: Apache-2.0
//! Clients that connect and say nothing, or that fall silent.

use super::{Authority, DEADLINE, Node, answers, asks, until};
use crate::client::Server;
use crate::fixture;
use crate::proto::observer::observer_client::ObserverClient;
use crate::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use crate::server::Times;
use crate::server::greeting::CLIENTS;
use crate::server::places::MOST;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tonic::Streaming;

const NEVER: Duration = Duration::from_secs(3600);
/// What a client of HTTP/2 says first (RFC 9113, section 3.4): the preface, and settings without any.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A node that is reached over the network with or without TLS, or on its socket.
struct Way {
    node: Node,
    local: bool,
    server: Server,
}

impl Way {
    /// All of them, when they serve.
    async fn all(times: Times) -> [Self; 3] {
        let authority = Authority::new();
        let [tls, plain, local] = [true, false, true].map(|tls| Node::with(Some(&authority), tls, times));
        let ways = [
            Self { server: tls.server(&authority, Some(&authority)), node: tls, local: false },
            Self { server: plain.plain(), node: plain, local: false },
            Self { server: local.local(), node: local, local: true },
        ];
        for way in &ways {
            until("an answer", async || answers(&way.server).await).await;
        }
        ways
    }

    /// A connection on which nothing was said.
    async fn connect(&self) -> Box<dyn Stream> {
        if !self.local {
            return Box::new(TcpStream::connect(self.node.listen).await.unwrap());
        }
        let path = self.node.dir.path().join("hubble.sock");
        loop {
            // The queue of a socket is short, and a full one is an error.
            match UnixStream::connect(&path).await {
                Ok(stream) => return Box::new(stream),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

impl Way {
    /// Waits until a follower gets a flow; where it is when the first one comes is not known.
    async fn is_heard(&self, following: &mut Streaming<GetFlowsResponse>) {
        let heard = async {
            loop {
                self.node.outputs.sink.push(&fixture::denied_syn());
                if let Ok(said) = timeout(Duration::from_millis(10), following.message()).await {
                    return said.unwrap().unwrap();
                }
            }
        };
        timeout(DEADLINE, heard).await.expect("one that follows hears nothing any more");
    }
}

/// Reads what there is until the other side closes.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut heard = Vec::new();
    // Closed with or without a word.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut heard)).await.expect("the connection stays open");
}

#[tokio::test]
async fn any_number_of_silent_clients_does_not_keep_others_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(16384), most).unwrap();
    for way in Way::all(Times { greeting: NEVER, silence: NEVER, ..Times::default() }).await {
        let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
        let client = ObserverClient::new(way.server.connect().await.unwrap()).get_flows(request).await;
        let mut following = client.unwrap().into_inner();
        let mut silent = Vec::new();
        for _ in 0..=CLIENTS {
            silent.push(way.connect().await);
        }
        assert!(answers(&way.server).await, "{:?}", way.server);
        closed(silent.remove(0)).await;
        way.is_heard(&mut following).await;
    }
}

/// They answer pings, so nobody takes them for dead.
#[tokio::test]
async fn any_number_of_clients_that_ask_for_nothing_is_bounded_and_keeps_nobody_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(16384), most).unwrap();
    let [_, plain, _] = Way::all(Times { greeting: NEVER, silence: NEVER, ..Times::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..=MOST {
        let mut stream = plain.connect().await;
        stream.write_all(BEGIN).await.unwrap();
        // What the server says first: it has heard the beginning, so it waits for requests.
        stream.read_exact(&mut [0; 9]).await.unwrap();
        idle.push(stream);
    }
    assert!(answers(&plain.server).await);
    closed(idle.remove(0)).await;
    let mut last = idle.pop().unwrap();
    assert!(timeout(Duration::from_millis(50), last.read_to_end(&mut Vec::new())).await.is_err(), "the youngest stays");
}

#[tokio::test]
async fn who_does_not_begin_in_time_is_cut_off() {
    let times = Times { greeting: Duration::from_millis(200), silence: NEVER, ..Times::default() };
    for way in Way::all(times).await {
        let open = way.server.connect().await.unwrap();
        closed(way.connect().await).await;
        let mut half = way.connect().await;
        half.write_all(&BEGIN[..20]).await.unwrap();
        closed(half).await;
        assert!(asks(open).await, "one that had begun");
    }
}

#[tokio::test]
async fn who_does_not_answer_any_more_is_cut_off() {
    let times = Times { greeting: NEVER, silence: Duration::from_secs(1), ..Times::default() };
    let [_, plain, local] = Way::all(times).await;
    for way in [plain, local] {
        let open = way.server.connect().await.unwrap();
        let mut dead = way.connect().await;
        dead.write_all(BEGIN).await.unwrap();
        closed(dead).await;
        assert!(asks(open).await, "one that answers");
    }
}
