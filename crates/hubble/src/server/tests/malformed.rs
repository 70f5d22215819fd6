// SPDX-License-Identifier: Apache-2.0
//! Requests that are none, on every method.

use super::{DEADLINE, Node, answers, until};
use crate::proto::observer::observer_server;
use crate::proto::peer::peer_server;
use bytes::{Buf, BufMut};
use proptest::prelude::{Strategy, any};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
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
    let mut random = TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 1..200).prop_map(|mut bytes| {
        // A field whose length is longer than what follows: no message has that, and what comes before may be anything.
        bytes.extend([0x0a, 0xff, 0xff, 0xff, 0x7f]);
        bytes
    });
    for method in methods() {
        for _ in 0..20 {
            let garbage = bytes.new_tree(&mut random).unwrap().current();
            let mut client = Grpc::new(channel.clone());
            client.ready().await.unwrap();
            let path = method.parse().unwrap();
            let answer = timeout(DEADLINE, async {
                let mut stream = client.server_streaming(Request::new(garbage), path, Raw).await?.into_inner();
                while stream.message().await?.is_some() {}
                Ok::<(), Status>(())
            });
            let said = answer.await.unwrap_or_else(|_| panic!("{method} does not answer")).unwrap_err();
            let want = [Code::Internal, Code::InvalidArgument, Code::Unimplemented, Code::Unknown];
            assert!(want.contains(&said.code()), "{method}: {said:?}");
        }
        assert!(answers(&server).await, "after garbage for {method}");
    }
}
