// SPDX-License-Identifier: Apache-2.0
//! For tests: traffic between two namespaces, and a count of what is lost while something else happens.

mod kept;
mod numbered;
mod requests;
mod resent;

pub use kept::Kept;
pub use requests::{Requests, get};
pub use resent::Resent;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::clock;
use crate::netns::Netns;

/// Interval between messages, requests and blocks of the stream.
const PACE: Duration = Duration::from_millis(5);
/// How long a request may go unanswered, and how long the last packets may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// One write of the stream.
const BLOCK: usize = 16 * 1024;

/// Echoed datagrams, pings, requests on one TCP connection, and a TCP stream, each in a loop.
#[derive(Debug)]
pub struct Traffic {
    what: String,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    /// Set when the requests end before they are told to.
    fault: Arc<OnceLock<String>>,
    loads: Vec<(&'static str, JoinHandle<Result<()>>)>,
}

impl Traffic {
    /// Starts all four between a client and a server's address, on ports from `port` on.
    pub fn between(client: &Netns, server: &Netns, to: IpAddr, port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU32::new(0));
        let mut loads = vec![
            ("datagrams", numbered::datagrams(client, server, SocketAddr::new(to, port), &stop)?),
            ("pings", numbered::pings(client, to, &stop)?),
        ];

        let listener = server.listen(port + 1)?;
        let stream = client.connect(SocketAddr::new(to, port + 1))?;
        let (peer, _) = listener.accept()?;
        thread::spawn(move || answer(peer));
        let fault = Arc::new(OnceLock::new());
        let (done, count, given_up) = (stop.clone(), asked.clone(), Arc::clone(&fault));
        let questions = move || told(&given_up, ask(stream, &done, &count));
        loads.push(("questions", thread::spawn(questions)));

        let listener = server.listen(port + 2)?;
        let stream = client.connect(SocketAddr::new(to, port + 2))?;
        let (peer, _) = listener.accept()?;
        let reader = thread::spawn(move || read_all(peer));
        let done = stop.clone();
        loads.push(("stream", thread::spawn(move || write_all(stream, reader, &done))));
        Ok(Self { what: to.to_string(), stop, asked, fault, loads })
    }

    /// Waits until this many more requests have been answered, to be sure that traffic flows.
    pub fn goes_on(&self, questions: u32) -> Result<()> {
        let from = self.asked.load(Ordering::Relaxed);
        clock::poll(PATIENCE, &format!("{questions} more answers of {}", self.what), || {
            let now = self.asked.load(Ordering::Relaxed);
            let fault = self.fault.get().map_or("", String::as_str);
            ensure!(now >= from + questions, "{} came; {fault}", now - from);
            Ok(())
        })
    }

    /// Stops the traffic; the error says what was lost.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for (name, load) in self.loads {
            let outcome = load.join().unwrap_or_else(|_| Err(anyhow!("a thread ended")));
            outcome.with_context(|| format!("{name} to {}", self.what))?;
        }
        Ok(())
    }
}

/// Keeps the reason why a load gives up for whoever waits for it meanwhile.
fn told<T>(fault: &OnceLock<String>, outcome: Result<T>) -> Result<T> {
    outcome.inspect_err(|error| drop(fault.set(format!("{error:#}"))))
}

fn answer(mut peer: TcpStream) {
    let mut room = [0; 4];
    while peer.read_exact(&mut room).is_ok() && peer.write_all(&room).is_ok() {}
}

fn ask(mut stream: TcpStream, stop: &AtomicBool, count: &AtomicU32) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    while !stop.load(Ordering::Relaxed) {
        let number = count.load(Ordering::Relaxed).to_be_bytes();
        let mut room = [0; 4];
        stream.write_all(&number).context("asking")?;
        stream.read_exact(&mut room).context("waiting for the answer")?;
        ensure!(room == number, "{room:?} answers {number:?}");
        count.fetch_add(1, Ordering::Relaxed);
        clock::breathe(PACE);
    }
    Ok(())
}

fn write_all(mut stream: TcpStream, reader: JoinHandle<Result<u64>>, stop: &AtomicBool) -> Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let (block, mut written) = (vec![7; BLOCK], 0);
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&block).context("writing")?;
        written += block.len() as u64;
        clock::breathe(PACE);
    }
    drop(stream);
    let read = reader.join().unwrap_or_else(|_| Err(anyhow!("a thread ended")))?;
    ensure!(read == written, "{written} octets written, {read} read");
    Ok(())
}

fn read_all(mut peer: TcpStream) -> Result<u64> {
    peer.set_read_timeout(Some(PATIENCE))?;
    let (mut room, mut count) = (vec![0; BLOCK], 0);
    loop {
        match peer.read(&mut room) {
            Ok(0) => return Ok(count),
            Ok(some) => count += some as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading"),
        }
    }
}
