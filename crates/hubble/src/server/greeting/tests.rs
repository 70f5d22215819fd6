// SPDX-License-Identifier: Apache-2.0
//! Seats without sockets, with a clock that stands still.

use super::*;
use crate::server::places::Places;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3600);

/// A client, and its connection as the server reads it.
fn connection(lobby: &Lobby) -> (DuplexStream, Greeted<DuplexStream>) {
    let (client, server) = duplex(64);
    (client, Greeted::new(server, lobby.seat(), Places::default().take(None)))
}

/// Reads until the end, which is none for a client that has begun.
async fn read(server: &mut Greeted<DuplexStream>) -> Option<io::ErrorKind> {
    let mut heard = Vec::new();
    let ended = timeout(LONG, server.read_to_end(&mut heard)).await.ok()?;
    Some(ended.unwrap_err().kind())
}

#[tokio::test(start_paused = true)]
async fn a_client_must_have_sent_its_whole_preface_in_time() {
    let lobby = Lobby::new(PATIENCE);
    for (said, ended) in [(0, true), (23, true), (24, false), (30, false)] {
        let (mut client, mut server) = connection(&lobby);
        client.write_all(&[0; 30][..said]).await.unwrap();
        let start = Instant::now();
        assert_eq!(read(&mut server).await, ended.then_some(io::ErrorKind::TimedOut), "after {said} bytes");
        assert_eq!(start.elapsed(), if ended { PATIENCE } else { LONG }, "after {said} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_does_not_buy_time() {
    let (mut client, mut server) = connection(&Lobby::new(PATIENCE));
    let start = Instant::now();
    let trickle = async {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        ended = read(&mut server) => assert_eq!((ended, start.elapsed()), (Some(io::ErrorKind::TimedOut), PATIENCE)),
        () = trickle => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_waiting_gives_way_and_whoever_has_begun_does_not() {
    let lobby = Lobby::new(LONG * 100);
    let (mut begun, mut served) = connection(&lobby);
    begun.write_all(&[0; PREFACE]).await.unwrap();
    assert_eq!(read(&mut served).await, None);
    let mut waiting: Vec<_> = (0..CLIENTS).map(|_| connection(&lobby)).collect();
    assert_eq!(read(&mut waiting[0].1).await, None, "there is room for all of them");
    drop(waiting.pop());
    waiting.push(connection(&lobby));
    assert_eq!(read(&mut waiting[0].1).await, None, "who leaves makes room");
    waiting.push(connection(&lobby));
    assert_eq!(read(&mut waiting[0].1).await, Some(io::ErrorKind::TimedOut));
    assert_eq!(read(&mut waiting[1].1).await, None);
    assert_eq!(read(&mut served).await, None);
}
