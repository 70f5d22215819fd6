// SPDX-License-Identifier: Apache-2.0
//! Connections to a port that anybody may open.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How long to wait when the process has no more descriptors, or the like: the next attempt would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds how many connections there are and how long each takes. A further one takes the place of the oldest: whoever asks is answered at
/// once, so the oldest is the likeliest to be silent. All end with it.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    longest: Duration,
    tasks: JoinSet<()>,
    /// Those that may be open, the oldest first.
    open: VecDeque<AbortHandle>,
}

impl Connections {
    /// No more than so many at the same time, none of which takes longer than that.
    #[must_use]
    pub fn new(most: usize, longest: Duration) -> Self {
        Self { most, longest, tasks: JoinSet::new(), open: VecDeque::new() }
    }

    /// Of those who ask for a page now and then, as probes and Prometheus do, and wait no longer than this.
    #[must_use]
    pub fn of_pages() -> Self {
        Self::new(64, Duration::from_secs(120))
    }

    /// Serves whoever connects, for ever.
    pub async fn accept<F: Future + Send + 'static>(
        mut self,
        listener: TcpListener,
        converse: impl Fn(TcpStream) -> F,
    ) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.serve(converse(stream)),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Serves one more. How it ends is of no interest.
    fn serve<T>(&mut self, connection: impl Future<Output = T> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|connection| !connection.is_finished());
        if self.open.len() >= self.most {
            self.open.pop_front().inspect(AbortHandle::abort);
        }
        let within = timeout(self.longest, connection);
        self.open.push_back(self.tasks.spawn(async { drop(within.await) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::{Arc, Weak};
    use tokio::task::yield_now;

    const LONGEST: Duration = Duration::from_secs(5);

    /// One that goes on for as long as it may; it is open while the value is there.
    fn silent(connections: &mut Connections) -> Weak<()> {
        let held = Arc::new(());
        let open = Arc::downgrade(&held);
        connections.serve(async move {
            pending::<()>().await;
            drop(held);
        });
        open
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_and_none_takes_too_long() {
        let mut connections = Connections::new(2, LONGEST);
        let mut all = vec![silent(&mut connections)];
        connections.serve(async {});
        yield_now().await;
        all.extend([silent(&mut connections), silent(&mut connections)]);
        sleep(LONGEST / 2).await;
        let open = |all: &[Weak<()>]| all.iter().map(|open| open.strong_count() > 0).collect::<Vec<_>>();
        assert_eq!(open(&all), [false, true, true], "one that has ended takes no place");
        all.push(silent(&mut connections));
        sleep(LONGEST * 3 / 4).await;
        assert_eq!(open(&all), [false, false, false, true]);
        drop(connections);
        yield_now().await;
        assert_eq!(open(&all), [false; 4]);
    }
}
