// SPDX-License-Identifier: Apache-2.0
//! Requests that are none, on every method.

use super::{DEADLINE, Node, answers, until};
use crate::proto::observer::observer_server;
use crate::proto::peer::peer_server;
use bytes::{Buf, BufMut};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// Bytes as they are, in place of messages.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// What is no message of any kind: a length that is longer than what follows, none at all, a kind of value that there is not, a number without an
/// end, a field without a number, an end of a group that was not begun, and each after a field that could be one.
const GARBAGE: [&[u8]; 8] = [
    &[0x0a, 0xff, 0xff, 0xff, 0x7f],
    &[0x0a],
    &[0x0f, 0x01],
    &[0x80; 11],
    &[0x00, 0x01],
    &[0x0c],
    &[0xff; 200],
    &[0xa0, 0x06, 0x01, 0x0a, 0xff, 0xff, 0xff, 0x7f],
];

/// Methods of all services, and one that there is not.
fn methods() -> Vec<String> {
    let of = |service: &'static str, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("/{service}/{name}")).collect()
    };
    let observer = ["GetFlows", "GetAgentEvents", "GetDebugEvents", "GetNodes", "GetNamespaces", "ServerStatus", "No"];
    [
        of(observer_server::SERVICE_NAME, &observer),
        of(peer_server::SERVICE_NAME, &["Notify"]),
        of("grpc.health.v1.Health", &["Check", "Watch"]),
        of("grpc.reflection.v1.ServerReflection", &["ServerReflectionInfo"]),
        of("grpc.reflection.v1alpha.ServerReflection", &["ServerReflectionInfo"]),
    ]
    .concat()
}

#[tokio::test]
async fn what_is_no_request_is_refused_on_every_method_and_costs_nobody_anything() {
    let node = Node::start(None);
    let server = node.local();
    until("an answer", async || answers(&server).await).await;
    let channel = server.connect().await.unwrap();
    for method in methods() {
        for garbage in GARBAGE {
            let mut client = Grpc::new(channel.clone());
            client.ready().await.unwrap();
            let path = method.parse().unwrap();
            let answer = timeout(DEADLINE, async {
                let mut stream = client.server_streaming(Request::new(garbage.to_vec()), path, Raw).await?.into_inner();
                let first = stream.message().await?;
                assert_eq!(first, None, "{method} answers {garbage:x?}");
                Ok::<(), Status>(())
            });
            // A conversation that never began may also end without a word.
            if let Err(said) = answer.await.unwrap_or_else(|_| panic!("{method} does not end")) {
                let want = [Code::Internal, Code::InvalidArgument, Code::Unimplemented, Code::Unknown];
                assert!(want.contains(&said.code()), "{method}: {said:?}");
            }
        }
        assert!(answers(&server).await, "after garbage for {method}");
    }
}
