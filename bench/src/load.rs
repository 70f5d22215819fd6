// SPDX-License-Identifier: Apache-2.0
//! The load, in netperf's terms TCP_RR, TCP_CRR and TCP_STREAM, with one connection at a time.
//!
//! The first byte of a connection says which it is. The server closes CRR connections first, so that the sockets in TIME_WAIT
//! are its own, and the client does not run out of ports.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::clock;
use crate::stats::percentile;

/// The port that the server listens on.
pub(crate) const PORT: u16 = 31201;

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// One byte there and back, on one connection.
    Rr,
    /// Connect, one byte there and back, close.
    Crr,
    /// As many bytes as possible.
    Stream,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Rr => b'r',
            Self::Crr => b'c',
            Self::Stream => b's',
        }
    }

    /// The unit counted per second.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Rr => "transactions/s",
            Self::Crr => "connections/s",
            Self::Stream => "Gbit/s",
        }
    }
}

/// What a client saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Transactions, connections or Gbit per second.
    pub(crate) rate: f64,
    /// Median of a transaction in microseconds; 0 of a stream.
    pub(crate) p50_us: f64,
    /// 99th percentile of a transaction in microseconds; 0 of a stream.
    pub(crate) p99_us: f64,
    /// 99th percentile of `connect()` in microseconds; 0 unless each transaction has a connection of its own.
    pub(crate) connect_p99_us: f64,
}

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 128 * 1024;

/// Serves one connection after another, forever.
pub(crate) fn serve(address: IpAddr) -> Result<()> {
    let listener = TcpListener::bind((address, PORT)).with_context(|| format!("cannot listen on {address}"))?;
    println!("listening");
    let mut buffer = vec![0; CHUNK];
    loop {
        let (stream, _) = listener.accept().context("cannot accept")?;
        // A client that has gone is no reason to stop.
        let _ = answer(stream, &mut buffer);
    }
}

fn answer(mut stream: TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut kind = [0];
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut kind)?;
    match kind {
        [b'c'] => stream.write_all(&kind),
        [b's'] => {
            let mut total: u64 = 1;
            loop {
                match stream.read(buffer)? {
                    0 => return stream.write_all(&total.to_le_bytes()),
                    count => total += count as u64,
                }
            }
        }
        _ => {
            stream.set_nodelay(true)?;
            while kind != [0] {
                stream.write_all(&kind)?;
                kind = [0];
                if stream.read(&mut kind)? == 0 {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Loads the server for this long.
pub(crate) fn run(kind: Kind, server: SocketAddr, span: Duration) -> Result<Measured> {
    match kind {
        Kind::Rr => rr(server, span),
        Kind::Crr => crr(server, span),
        Kind::Stream => stream(server, span),
    }
    .with_context(|| format!("{kind:?} with {server}"))
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn rr(server: SocketAddr, span: Duration) -> Result<Measured> {
    let mut stream = connect(server)?;
    stream.set_nodelay(true)?;
    let mut byte = [Kind::Rr.byte()];
    transactions(span, || {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        Ok(())
    })
}

/// How long a connection may take before the client gives it up and makes another. It counts as one that took this long.
///
/// Some behind kube-proxy take more than 20 s, for which no client of a measurement can wait.
const STALLED: Duration = Duration::from_secs(1);

fn crr(server: SocketAddr, span: Duration) -> Result<Measured> {
    let mut connected = Vec::with_capacity(1 << 20);
    let measured = transactions(span, || match once(server, &mut connected) {
        Err(error) if has_stalled(&error) => Ok(()),
        other => other.with_context(|| format!("a connection to {server}")),
    })?;
    Ok(Measured { connect_p99_us: percentile(&connected, 0.99), ..measured })
}

/// A connection's whole life; how long `connect()` took of it is added to `connected`.
fn once(server: SocketAddr, connected: &mut Vec<f64>) -> std::io::Result<()> {
    let mut byte = [Kind::Crr.byte()];
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_write_timeout(Some(STALLED))?;
    let begin = clock::now();
    let outcome = socket.connect(&server.into());
    connected.push(begin.elapsed().as_secs_f64() * 1e6);
    outcome?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    // The server closes first.
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("the server said more than it should")),
    }
}

fn has_stalled(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EINPROGRESS) || error.kind() == ErrorKind::WouldBlock
}

fn transactions(span: Duration, mut once: impl FnMut() -> Result<()>) -> Result<Measured> {
    once()?;
    let mut took = Vec::with_capacity(1 << 20);
    let begin = clock::now();
    let mut before = begin;
    while before - begin < span {
        once()?;
        let after = clock::now();
        took.push((after - before).as_secs_f64() * 1e6);
        before = after;
    }
    let rate = took.len() as f64 / (before - begin).as_secs_f64();
    Ok(Measured { rate, p50_us: percentile(&took, 0.5), p99_us: percentile(&took, 0.99), connect_p99_us: 0.0 })
}

fn stream(server: SocketAddr, span: Duration) -> Result<Measured> {
    let mut stream = connect(server)?;
    let chunk = vec![Kind::Stream.byte(); CHUNK];
    let begin = clock::now();
    while begin.elapsed() < span {
        match stream.write_all(&chunk) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("the server reads nothing"),
            written => written?,
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let rate = u64::from_le_bytes(total) as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9;
    Ok(Measured { rate, p50_us: 0.0, p99_us: 0.0, connect_p99_us: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_load_is_answered() {
        let address = IpAddr::from([127, 0, 0, 1]);
        std::thread::spawn(move || serve(address));
        let server = SocketAddr::new(address, PORT);
        clock::poll(PATIENCE, Duration::from_millis(5), || run(Kind::Rr, server, Duration::from_millis(5))).unwrap();
        for kind in [Kind::Rr, Kind::Crr, Kind::Stream] {
            let measured = run(kind, server, Duration::from_millis(20)).unwrap();
            assert!(measured.rate > 0.0 && (measured.connect_p99_us > 0.0) == (kind == Kind::Crr), "{kind:?}");
        }
    }
}
