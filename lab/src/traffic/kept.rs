// SPDX-License-Identifier: Apache-2.0
//! Long connections: on each one HTTP request after the other, until its server ends.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::told;
use crate::clock;
use crate::netns::Netns;

/// Between two requests.
const PACE: Duration = Duration::from_millis(50);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /hostname HTTP/1.1\r\nHost: lab\r\n\r\n";

/// A connection from a namespace to one address, and the next when its server has ended.
#[derive(Debug)]
pub struct Kept {
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    /// Set when it gives up.
    fault: Arc<OnceLock<String>>,
    load: JoinHandle<Result<u32>>,
}

impl Kept {
    /// Opens it. When it ends, `may_end` is asked whether the server of that name does no longer serve.
    #[must_use]
    pub fn start(from: Netns, to: SocketAddr, may_end: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU32::new(0));
        let fault = Arc::new(OnceLock::new());
        let (done, count, given_up) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&fault));
        let load = thread::spawn(move || told(&given_up, from.run(|| keep(to, &may_end, &done, &count))));
        Self { to, stop, answered, fault, load }
    }

    /// Waits until this many more requests have been answered.
    pub fn goes_on(&self, requests: u32) -> Result<()> {
        let from = self.answered.load(Ordering::Relaxed);
        clock::poll(2 * PATIENCE, &format!("{requests} more answers of {}", self.to), || {
            let now = self.answered.load(Ordering::Relaxed);
            let fault = self.fault.get().map_or("", String::as_str);
            ensure!(now >= from + requests, "{} came; {fault}", now - from);
            Ok(())
        })
    }

    /// Stops, and returns how many connections it took; the error says which one ended before its server, or was not made.
    pub fn finish(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.load.join().unwrap_or_else(|_| Err(anyhow!("a thread ended")));
        outcome.with_context(|| format!("long connections to {}", self.to))
    }
}

fn keep(to: SocketAddr, may_end: &dyn Fn(&str) -> bool, stop: &AtomicBool, answered: &AtomicU32) -> Result<u32> {
    let mut connections = 0;
    loop {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).context("a new one")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let server = ask(&mut stream).context("the first request of a new one")?;
        connections += 1;
        let ended = loop {
            answered.fetch_add(1, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                return Ok(connections);
            }
            clock::breathe(PACE);
            match ask(&mut stream) {
                Ok(name) => ensure!(name == server, "{name} answers where {server} did"),
                Err(error) => break error,
            }
        };
        let is_stalled = matches!(ended.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        ensure!(!is_stalled && may_end(&server), "the one to {server} ended, and {server} has not: {ended}");
    }
}

/// Sends a request and returns the body of its answer.
fn ask(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    stream.get_mut().write_all(REQUEST)?;
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    /// What becomes of connections to a server that ends each after three answers.
    fn kept(may_end: bool) -> Result<u32> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let to = listener.local_addr()?;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), AtomicU32::new(0));
        let over = Arc::clone(&stop);
        let server = thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                over.store(number == 2, Ordering::Relaxed);
                let mut stream = BufReader::new(stream);
                for _ in 0..3 {
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        stream.read_line(&mut line).unwrap();
                    }
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").unwrap();
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
                if !may_end {
                    return;
                }
            }
        });
        let outcome = keep(to, &|_| may_end, &stop, &answered);
        server.join().unwrap();
        outcome
    }

    #[test]
    fn a_connection_that_ends_is_made_anew_only_when_its_server_has_ended() {
        assert_eq!(kept(true).unwrap(), 3);
        let error = kept(false).unwrap_err().to_string();
        assert!(error.contains("the one to a ended, and a has not"), "{error}");
    }
}
