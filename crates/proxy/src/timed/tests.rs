// SPDX-License-Identifier: Apache-2.0
use super::{Activity, Patience, Timed};
use std::io::ErrorKind::{InvalidData, TimedOut};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, advance, timeout};

const FIRST: Duration = Duration::from_secs(1);
const HEAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_millis(10);

fn timed() -> (DuplexStream, Timed<DuplexStream>, Arc<Activity>) {
    let (peer, io) = duplex(8);
    let activity = Arc::new(Activity::default());
    let patience = Patience { first: FIRST, head: Some(HEAD), idle: IDLE };
    (peer, Timed::new(io, Arc::clone(&activity), patience), activity)
}

/// How long it is read from until it gives up.
async fn gives_up_after(stream: &mut Timed<DuplexStream>) -> Duration {
    let begun = Instant::now();
    let error = loop {
        match stream.read(&mut [0; 8]).await {
            Ok(0) => panic!("the peer has not ended"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), TimedOut);
    begun.elapsed()
}

fn about(took: Duration, wanted: Duration) -> bool {
    took >= wanted && took < wanted + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn the_first_request_has_a_time_however_many_bytes_come() {
    let (mut peer, mut stream, _activity) = timed();
    tokio::spawn(async move {
        while peer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    assert!(gives_up_after(&mut stream).await <= HEAD + FIRST);
}

#[tokio::test(start_paused = true)]
async fn between_requests_the_idle_time_counts_and_in_a_head_that_of_heads() {
    let (mut peer, mut stream, activity) = timed();
    drop(activity.begin());
    // A read that finds nothing is where the time is set.
    assert!(timeout(SOON, stream.read(&mut [0; 8])).await.is_err());
    advance(IDLE / 2).await;
    peer.write_all(b"G").await.unwrap();
    let took = gives_up_after(&mut stream).await;
    assert!(about(took, HEAD), "{took:?}");

    let (_peer, mut stream, activity) = timed();
    drop(activity.begin());
    let took = gives_up_after(&mut stream).await;
    assert!(took >= IDLE && took <= IDLE + FIRST + SOON, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_has_no_time_here() {
    let (mut peer, mut stream, activity) = timed();
    let busy = activity.begin();
    assert!(timeout(IDLE * 10, stream.read(&mut [0; 8])).await.is_err());
    drop(busy);
    let took = gives_up_after(&mut stream).await;
    assert!(took >= IDLE / 2 && took <= IDLE * 2, "{took:?}");
    peer.write_all(b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up_and_one_that_takes_something_is_not() {
    let (mut peer, mut stream, _activity) = timed();
    let reading = tokio::spawn(async move {
        for _ in 0..10 {
            tokio::time::sleep(IDLE / 2).await;
            peer.read_exact(&mut [0; 8]).await.unwrap();
        }
        peer
    });
    stream.write_all(&[0; 80]).await.unwrap();
    let _peer = reading.await.unwrap();
    let begun = Instant::now();
    assert_eq!(stream.write_all(&[0; 80]).await.unwrap_err().kind(), TimedOut);
    assert!(about(begun.elapsed(), IDLE));
}

#[tokio::test]
async fn no_more_is_read_than_is_expected_until_anything_may_come() {
    let (mut peer, mut stream, activity) = timed();
    let mut bytes = [0; 4];
    activity.expect(Some(6));
    peer.write_all(b"12345678").await.unwrap();
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(stream.read(&mut bytes).await.unwrap_err().kind(), InvalidData);
    for (expected, read) in [(None, true), (Some(8), true), (Some(7), false)] {
        activity.expect(expected);
        peer.write_all(b"12345678").await.unwrap();
        assert_eq!(stream.read_exact(&mut [0; 8]).await.is_ok(), read, "{expected:?}");
    }
}
