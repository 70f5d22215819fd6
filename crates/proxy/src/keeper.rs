// SPDX-License-Identifier: Apache-2.0
//! The process that starts the proxy, holds its listening sockets too, and starts it again when it ends unasked: clients that connect
//! meanwhile wait in the sockets' queues for some milliseconds instead of being refused. It serves nothing and reads nothing of clients.

use l7::{Place, passing};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const NAME: &str = "cilium-proxy";
/// What the proxy is started with. Its standard input is the socket to this process then.
pub(crate) const KEPT: &str = "--kept";
/// Who runs for less has ended by what it began with, and would again.
const QUICK: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Codes of a process that cannot be started, and of one whose arguments are wrong.
const REFUSALS: std::ops::RangeInclusive<i32> = 1..=2;
/// How long the proxy waits for this process. What it does not get then, it cannot open either.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the proxy says of its sockets.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// It has opened this one, which comes along.
    Opened(Place),
    /// It has closed this one.
    Closed(Place),
}

/// Runs the proxy with these arguments until it ends well, is told to, or cannot even be started, and says how it ended.
///
/// # Errors
///
/// It cannot be started.
pub(crate) fn keep(arguments: &[OsString]) -> io::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        surface::stop_on_signal(stop.clone())?;
        let command = || {
            let mut command = Command::new("/proc/self/exe");
            command.arg0(NAME).args(arguments).arg(KEPT);
            command
        };
        keep_running(command, Held::new(), &stop).await
    })
}

async fn keep_running(
    command: impl Fn() -> Command,
    mut held: Held,
    stop: &CancellationToken,
) -> io::Result<ExitStatus> {
    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let status;
        (status, held) = Proxy::start(command())?.wait(held, stop).await?;
        // As long as nobody can have connected, whoever has started this process is told.
        if stop.is_cancelled() || status.success() || (is_refusal(status) && held.is_empty()) {
            return Ok(status);
        }
        let quick = began.elapsed() < QUICK;
        pause = if quick { (pause * 2).clamp(Duration::from_millis(50), LONGEST_PAUSE) } else { Duration::ZERO };
        tracing::warn!(%status, sockets = held.len(), ?pause, "the proxy has ended and is started again");
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return Ok(status);
        }
    }
}

/// Whether it says itself that it cannot run, by what its `main` ends with. A panic, say, ends with another code.
fn is_refusal(status: ExitStatus) -> bool {
    status.code().is_some_and(|code| REFUSALS.contains(&code))
}

/// Sockets by their place.
type Held = HashMap<Place, OwnedFd>;

/// A running proxy.
struct Proxy {
    process: Child,
    line: Socket,
}

impl Proxy {
    /// Starts one.
    fn start(mut command: Command) -> io::Result<Self> {
        let (line, its) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        let process = command.stdin(Stdio::from(OwnedFd::from(its))).kill_on_drop(true).spawn()?;
        Ok(Self { process, line })
    }

    /// Gives it the sockets, waits until it has ended, and says how, and what it had open by then.
    async fn wait(self, held: Held, stop: &CancellationToken) -> io::Result<(ExitStatus, Held)> {
        let Self { mut process, line } = self;
        let follow = tokio::task::spawn_blocking(move || {
            give(&line, &held);
            follow(&line, held)
        });
        let status = tokio::select! {
            status = process.wait() => status?,
            () = stop.cancelled() => {
                terminate(&process);
                process.wait().await?
            }
        };
        Ok((status, follow.await?))
    }
}

fn terminate(process: &Child) {
    if let Some(process) = process.id().and_then(|process| i32::try_from(process).ok()) {
        // One that has ended cannot be told.
        let _ = signal::kill(Pid::from_raw(process), Signal::SIGTERM);
    }
}

/// Gives the other side all sockets, however long it takes to begin, and however many of them fit into the queue.
fn give(line: &Socket, held: &Held) {
    // One that is killed this early is started again with the same.
    let _ = passing::send_all(line, held);
}

/// The sockets that are open when the other side is gone.
fn follow(line: &Socket, mut held: Held) -> Held {
    while let Ok((told, socket)) = passing::receive(line) {
        match (told, socket) {
            (Told::Opened(place), Some(socket)) => drop(held.insert(place, socket)),
            (Told::Closed(place), _) => drop(held.remove(&place)),
            (Told::Opened(_), None) => {}
        }
    }
    held
}

/// The process that started this one.
#[derive(Clone, Debug)]
pub(crate) struct Keeper(Arc<Socket>);

impl Keeper {
    /// The keeper, which is at standard input, and the sockets that a process before this one had open.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn meet() -> io::Result<(Self, Vec<(Place, OwnedFd)>)> {
        // Whoever outlived its keeper would be in the way of the next.
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        let line = Socket::from(io::stdin().as_fd().try_clone_to_owned()?);
        line.set_read_timeout(Some(PATIENCE))?;
        line.set_write_timeout(Some(PATIENCE))?;
        let held = passing::receive_all(&line)?;
        Ok((Self(Arc::new(line)), held))
    }

    /// Has a socket held.
    pub(crate) fn opened(&self, place: Place, socket: &Socket) {
        self.tell(&Told::Opened(place), Some(socket));
    }

    /// Has a socket closed.
    pub(crate) fn closed(&self, place: Place) {
        self.tell(&Told::Closed(place), None);
    }

    fn tell(&self, what: &Told, socket: Option<&Socket>) {
        if let Err(error) = passing::send(&*self.0, what, socket.map(AsFd::as_fd)) {
            tracing::warn!(%error, "cannot hand a socket to the supervisor");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::net::UdpSocket;
    use std::sync::mpsc::{RecvTimeoutError, channel};

    /// So many sockets.
    fn held(many: u16) -> Held {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let place = |port: u16| {
            let place = serde_json::json!({"udp": true, "address": format!("127.0.0.1:{port}"), "transparent": false});
            serde_json::from_value::<Place>(place).unwrap()
        };
        (1..=many).map(|port| (place(port), OwnedFd::from(socket.try_clone().unwrap()))).collect()
    }

    /// How a shell that does this ends, and how often it was started. It may count its turns in `$TURNS`.
    fn kept(script: &str, held: Held) -> (ExitStatus, usize) {
        let folder = tempfile::tempdir().unwrap();
        let turns = folder.path().join("turns");
        let command = || {
            let mut command = Command::new("sh");
            command.env("TURNS", &turns).args(["-c", &format!("echo >> $TURNS; {script}")]);
            command
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(keep_running(command, held, &CancellationToken::new())).unwrap();
        (status, std::fs::read(turns).unwrap().len())
    }

    #[test]
    fn a_proxy_that_ends_unasked_is_started_again() {
        for end in ["exit 101", "exit 134", "kill -9 $$"] {
            let (status, turns) = kept(&format!("[ $(wc -l < $TURNS) -ge 3 ] || {end}"), Held::new());
            assert!(status.success() && turns == 3, "{end}: {status}, started {turns} times");
        }
    }

    #[test]
    fn a_proxy_that_cannot_even_start_is_left_to_who_started_the_supervisor() {
        for code in [1, 2] {
            let (status, turns) = kept(&format!("exit {code}"), Held::new());
            assert_eq!((status.code(), turns), (Some(code), 1));
        }
    }

    #[test]
    fn a_proxy_whose_sockets_are_held_is_started_until_it_can_be() {
        let (status, turns) = kept("[ $(wc -l < $TURNS) -ge 3 ] || exit 1", held(1));
        assert!(status.success() && turns == 3, "{status}, started {turns} times");
    }

    #[test]
    fn a_proxy_that_is_slow_to_begin_gets_all_sockets_however_many_there_are() {
        let held = held(600);
        let (line, its) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let (done, given) = channel();
        let giving = std::thread::spawn(move || {
            give(&line, &held);
            done.send(()).unwrap();
            (line, held)
        });
        // Longer than whoever gives up would wait; they do not all fit into the queue.
        assert_eq!(given.recv_timeout(Duration::from_millis(1500)), Err(RecvTimeoutError::Timeout));
        assert_eq!(passing::receive_all(&its).unwrap().len(), 600);
        let (line, held) = giving.join().unwrap();
        drop(its);
        assert_eq!(follow(&line, held).len(), 600);
    }
}
