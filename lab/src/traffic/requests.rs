// SPDX-License-Identifier: Apache-2.0
//! Short connections: one HTTP request each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use parking_lot::Mutex;

use crate::clock;
use crate::netns::Netns;

/// Between two requests.
const PACE: Duration = Duration::from_millis(5);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many failures are quoted.
const TOLD: usize = 3;

/// A loop of requests from a namespace to one address.
#[derive(Debug)]
pub struct Requests {
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    failures: Arc<Mutex<Vec<String>>>,
    load: JoinHandle<Result<()>>,
}

impl Requests {
    /// Starts requesting `path`.
    #[must_use]
    pub fn start(from: Netns, to: SocketAddr, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU32::new(0));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (done, count, failed) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failures));
        let load = thread::spawn(move || {
            from.run(|| {
                while !done.load(Ordering::Relaxed) {
                    match get(to, path) {
                        Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.lock().push(format!("{error:#}")),
                    }
                    clock::breathe(PACE);
                }
                Ok(())
            })
        });
        Self { to, stop, answered, failures, load }
    }

    /// Waits until this many more requests have been answered.
    pub fn goes_on(&self, requests: u32) -> Result<()> {
        let from = self.answered.load(Ordering::Relaxed);
        clock::poll(4 * PATIENCE, &format!("{requests} more answers of {}", self.to), || {
            let now = self.answered.load(Ordering::Relaxed);
            let failed = failed(&self.failures.lock()).unwrap_or_default();
            ensure!(now >= from + requests, "{} came; {failed}", now - from);
            Ok(())
        })
    }

    /// Stops the requests; the error says how many failed, and how.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.load.join().unwrap_or_else(|_| Err(anyhow!("a thread ended")))?;
        let failed = failed(&self.failures.lock());
        let Some(failed) = failed else { return Ok(()) };
        bail!("of the requests to {} {} were answered, {failed}", self.to, self.answered.load(Ordering::Relaxed))
    }
}

/// How many failed, and how the first did.
fn failed(failures: &[String]) -> Option<String> {
    let first = failures.iter().take(TOLD).cloned().collect::<Vec<_>>();
    (!first.is_empty()).then(|| format!("{} failed: {}", failures.len(), first.join("; ")))
}

/// Sends one request on a connection of its own and returns the body.
pub fn get(to: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading")?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("not an answer: '{answer}'"))?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.trim().to_owned())
}
