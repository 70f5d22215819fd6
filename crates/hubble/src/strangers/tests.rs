// SPDX-License-Identifier: Apache-2.0
//! That strangers say what bytes say.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::{Answer, connect};
use crate::proto::observer::GetNamespacesRequest;
use crate::proto::observer::observer_client::ObserverClient;
use crate::proto::observer::{GetNamespacesResponse, Namespace};
use prost::Message;
use tonic::Code;

async fn asked(answer: Answer) -> Result<GetNamespacesResponse, Code> {
    let channel = connect(move |_| answer.clone()).await.unwrap();
    let answer = ObserverClient::new(channel).get_namespaces(GetNamespacesRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.code())
}

#[tokio::test]
async fn a_server_in_memory_answers_what_bytes_say() {
    let shop = Namespace { namespace: "shop".to_owned(), ..Namespace::default() };
    let message = GetNamespacesResponse { namespaces: vec![shop] };
    let bytes = message.encode_to_vec();
    let lengthy = |ending: u8| [&[ending, u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat();
    assert_eq!(asked(Answer::parse(&lengthy(0))).await, Ok(message.clone()));
    assert_eq!(asked(Answer::of(std::slice::from_ref(&bytes))).await, Ok(message));
    assert_eq!(asked(Answer::parse(&lengthy(1))).await, Err(Code::Internal));
    assert_eq!(Answer::parse(&lengthy(5)).messages(), [bytes.as_slice()]);
    assert!(Answer::parse(&lengthy(5)).floods());
    for garbage in [&[0x80, 0, 0, 0, 0, 1, 0xff][..], &[0, 1, 0xff], &[3], &[]] {
        assert!(asked(Answer::parse(garbage)).await.is_err(), "{garbage:?}");
    }
}
