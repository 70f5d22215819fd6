// SPDX-License-Identifier: Apache-2.0
//! Clients that write bytes and read what comes.

use crate::world::DEADLINE;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    timeout(DEADLINE, TcpStream::connect(address)).await.unwrap().unwrap()
}

/// What is answered until the connection ends.
pub(crate) async fn text(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

pub(crate) async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // A reset is an end too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut all)).await.expect("the connection ends in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the text is there.
pub(crate) async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&all).contains(end) {
            if stream.read_buf(&mut all).await.unwrap() == 0 {
                break;
            }
        }
    };
    timeout(DEADLINE, read).await.expect("an answer in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// A GET of its own connection, with more header lines.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str, more: &str) -> String {
    text(address, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n")).await
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The value of a header of an answer, or of what an echo says of a request.
pub(crate) fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v)
}
