// SPDX-License-Identifier: Apache-2.0
//! Much of something.

use crate::backend::Backend;
use crate::client::{connect, get, read_until, status, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{PathMatch, RouteAction};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

const GIBIBYTE: usize = 1 << 30;
const BLOCK: usize = 1 << 18;

/// What this process has ever had resident, in MiB.
fn peak() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() >> 10
}

async fn send(to: &mut (impl AsyncWrite + Unpin)) {
    let block = vec![b'x'; BLOCK];
    for _ in 0..GIBIBYTE / BLOCK {
        to.write_all(&block).await.unwrap();
    }
}

async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let mut block = vec![0; BLOCK];
    let mut left = GIBIBYTE;
    while left > 0 {
        let most = left.min(BLOCK);
        let some = from.read(&mut block[..most]).await.unwrap();
        assert_ne!(some, 0, "{left} bytes are missing");
        left -= some;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_passes_both_ways_and_is_not_kept() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut Byte(&mut stream), "\r\n\r\n").await;
        drain(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {GIBIBYTE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        send(&mut stream).await;
    })
    .await;
    let _world = World::of(simple(address, backend.address)).await;
    let before = peak();
    let mut client = connect(address).await;
    let passing = async {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {GIBIBYTE}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        send(&mut client).await;
        let head = read_until(&mut Byte(&mut client), "\r\n\r\n").await;
        assert_eq!((status(&head), value(&head, "content-length")), (200, Some(&*GIBIBYTE.to_string())));
        drain(&mut client).await;
    };
    timeout(DEADLINE * 6, passing).await.expect("it passes in time");
    // Other tests take some, too.
    assert!(peak() - before < GIBIBYTE >> 20, "{} MiB more than before", peak() - before);
}

/// Gives a byte at a time, so that nothing of what follows is read.
struct Byte<'a, T>(&'a mut T);

impl<T: AsyncRead + Unpin> AsyncRead for Byte<'_, T> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let mut one = [0];
        let mut small = tokio::io::ReadBuf::new(&mut one);
        let polled = std::pin::Pin::new(&mut *self.0).poll_read(cx, &mut small);
        buf.put_slice(small.filled());
        polled
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_explodes_is_a_fault_of_its_route_and_of_nothing_else() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let regex = |name: &str, text: &str| {
        let mut route = route(name, "/", RouteAction::Forward(forward("c")));
        Arc::make_mut(&mut route.matches)[0].path = PathMatch::Regex(text.into());
        route
    };
    let mut objects = simple(address, backend.address);
    objects.push(regex("huge", "((((a{1,100}){1,100}){1,100}){1,100})").into());
    // Nested repetitions take exponential time where they are tried one after the other.
    objects.push(regex("slow", "/(a+)+b").into());
    let told = world.publish(objects).await;
    assert_eq!(told.faults.len(), 1, "{told:?}");
    assert!(&*told.faults[0].object.name == "huge" && told.faults[0].reason.contains("too large"), "{told:?}");
    let path = format!("/{}", "a".repeat(8000));
    assert_eq!(status(&get(address, "h", &path, "").await), 200);
}
