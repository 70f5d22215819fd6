// SPDX-License-Identifier: Apache-2.0
//! Clients that mean harm in HTTP/2: floods of frames, bombs, and answers that nobody reads.

use crate::attacks::{limited, refused, serves};
use crate::backend::Backend;
use crate::client::{connect, get, read_all, status};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::Limits;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: h`, by HPACK's static table.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'h'];

/// Writes until the proxy has had enough.
async fn flood(address: SocketAddr, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut client = connect(address).await;
    client.write_all(PREFACE).await.unwrap();
    let (mut reader, mut writer) = client.into_split();
    let reading = tokio::spawn(async move { read_all(&mut reader).await });
    let mut turn = 0;
    let write = async {
        while turn < 200_000 && writer.write_all(&next(turn)).await.is_ok() {
            turn += 1;
        }
    };
    timeout(DEADLINE, write).await.expect("an end in time");
    reading.abort();
    turn
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_http2_frames_end_their_connection_only() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    // Rapid reset: a request and its end, again and again.
    let resets =
        flood(address, |turn| [frame(1, 5, 2 * turn + 1, GET), frame(3, 0, 2 * turn + 1, &[0, 0, 0, 8])].concat())
            .await;
    assert!(resets < 100_000, "{resets} requests were begun and reset");
    // The same by faults, for which the proxy has to reset the stream itself.
    let faults =
        flood(address, |turn| [frame(1, 4, 2 * turn + 1, GET), frame(8, 0, 2 * turn + 1, &[0; 4])].concat()).await;
    assert!(faults < 100_000, "{faults} requests were begun and broken");
    // Headers that never end.
    let endless = flood(address, |turn| match turn {
        0 => frame(1, 1, 1, GET),
        _ => frame(9, 0, 1, &[&[0x40, 1, b'x', 100][..], &[b'y'; 100]].concat()),
    })
    .await;
    assert!(endless < 100_000, "{endless} CONTINUATION frames");
    let empty = flood(address, |turn| if turn == 0 { frame(1, 1, 1, GET) } else { frame(9, 0, 1, &[]) }).await;
    assert!(empty < 100_000, "{empty} empty CONTINUATION frames");
    serves(address).await;
    assert!(world.metrics().await.contains("reason=\"http2-enhance-your-calm\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http2_refuses_by_itself_is_counted() {
    let (address, backend) = (free(), Backend::silent().await);
    let limits = |limits: &mut Limits| (limits.streams, limits.header_bytes) = (2, 16 << 10);
    let world = World::of(limited(address, backend.address, limits)).await;
    let many: Vec<u8> = (0..5).flat_map(|turn| frame(1, 5, 2 * turn + 1, GET)).collect();
    let mut client = connect(address).await;
    client.write_all(&[PREFACE, &many].concat()).await.unwrap();
    world.metric_is(&refused(address, "http2-refused-stream", 3)).await;
    // A window of more than there can be.
    client.write_all(&[frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])].concat()).await.unwrap();
    world.metric_is(&refused(address, "http2-flow-control-error", 1)).await;
    // Headers that are larger than they may be, and not by far.
    let value = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &[b'y'; 3000], &[0xbe; 9]].concat();
    let mut client = connect(address).await;
    client.write_all(&[PREFACE, &frame(1, 5, 1, &[GET, &value].concat())].concat()).await.unwrap();
    world.metric_is(&refused(address, "headers-too-large", 1)).await;
    // A frame that is for no stream.
    let mut client = connect(address).await;
    client.write_all(&[PREFACE, &frame(0, 0, 0, b"x")].concat()).await.unwrap();
    world.metric_is(&refused(address, "http2-protocol-error", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_cost_those_who_do_nothing() {
    const ROOM: usize = 8 << 20;
    let address = free();
    let large = http_body_util::Full::from(vec![b'x'; 1 << 20]);
    let backend = Backend::answering(move |_| {
        let large = large.clone();
        async move { http::Response::new(large) }
    })
    .await;
    let mut world = World::configured(|config| config.unread_bytes = ROOM).await;
    assert_eq!(world.publish(simple(address, backend.address)).await.faults, []);
    // Windows as large as can be: what is sent waits for the connection only. Others have none at all.
    for window in [0x3fff_ffff_u32, 0] {
        let opening = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat()),
            &frame(8, 0, 0, &0x3fff_ffff_u32.to_be_bytes()),
            &(0..100).flat_map(|turn| frame(1, 5, 2 * turn + 1, GET)).collect::<Vec<u8>>(),
        ]
        .concat();
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut client = connect(address).await;
            client.write_all(&opening).await.unwrap();
            held.push(client);
        }
        let displaced = async {
            let line = format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"unread\"}} ");
            let goal = if window == 0 { 6 } else { 3 };
            while world.metrics().await.lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or(0) < goal {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, displaced).await.expect("they make room");
        let unread = async {
            let now =
                |text: &str| text.lines().find_map(|l| l.strip_prefix("cilium_proxy_unread_bytes ")?.parse().ok());
            while now(&world.metrics().await).unwrap_or(usize::MAX) > ROOM {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, unread).await.expect("there is no more than there is room for");
        let answer = get(address, "h", "/", "").await;
        assert_eq!((status(&answer), answer.len() > 1 << 20), (200, true));
        drop(held);
    }
    world.metric_is("cilium_proxy_unread_bytes 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settings_or_ping_flood_whose_answers_nobody_reads_is_not_kept() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(limited(address, backend.address, |limits| limits.idle = Duration::from_millis(500))).await;
    for one in [frame(4, 0, 0, &[]), frame(6, 0, 0, &[0; 8])] {
        let mut client = connect(address).await;
        client.write_all(PREFACE).await.unwrap();
        let many = one.repeat(1000);
        // It stops to read when its answers are not read, and ends the connection in time.
        let write = async { while client.write_all(&many).await.is_ok() {} };
        timeout(DEADLINE, write).await.expect("the connection is ended");
        serves(address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_bomb_is_431_or_the_end() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    // A large header goes into HPACK's table once, and is then named thousands of times.
    let value = vec![b'y'; 3000];
    let indexed = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &value].concat();
    let bomb = [GET, &indexed, &[0xbe; 10_000]].concat();
    let mut client = connect(address).await;
    client.write_all(&[PREFACE, &frame(1, 5, 1, &bomb)].concat()).await.unwrap();
    client.shutdown().await.unwrap();
    read_all(&mut client).await;
    assert_eq!(backend.requests(), 0);
    world.metric_is(&refused(address, "http2-enhance-your-calm", 1)).await;
    let many = "x: y\r\n".repeat(100_000);
    let mut client = connect(address).await;
    let _ = client.write_all(format!("GET / HTTP/1.1\r\nhost: h\r\n{many}\r\n").as_bytes()).await;
    assert!(matches!(status(&read_all(&mut client).await), 431 | 0));
    serves(address).await;
    assert_eq!(backend.requests(), 1);
}
