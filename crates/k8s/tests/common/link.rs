// SPDX-License-Identifier: Apache-2.0
//! A TCP connection that can be cut: between a client and the API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections as long as it is not cut.
pub(crate) struct Link {
    port: u16,
    state: watch::Sender<State>,
    taken: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct State {
    up: bool,
    /// How often the connections of the time have been silenced.
    silenced: usize,
}

impl Link {
    /// A link to a port of the loopback address.
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, receiver) = watch::channel(State { up: true, silenced: 0 });
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        tokio::spawn(async move {
            while let Ok((inside, _)) = listener.accept().await {
                let mut state = receiver.clone();
                if state.borrow_and_update().up {
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(forward(inside, target, state));
                }
            }
        });
        Self { port, state, taken }
    }

    /// Where clients connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that it has taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Ends all connections and takes no new ones.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.state.send_modify(|state| state.up = true);
    }

    /// Leaves the present connections open and forwards nothing more on them, as when a machine has lost its power. New
    /// ones are forwarded.
    pub(crate) fn silence(&self) {
        self.state.send_modify(|state| state.silenced += 1);
    }
}

async fn forward(mut inside: TcpStream, target: u16, mut state: watch::Receiver<State>) {
    let Ok(mut outside) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let silenced = state.borrow().silenced;
    tokio::select! {
        _ = copy_bidirectional(&mut inside, &mut outside) => return,
        _ = state.wait_for(|state| !state.up || state.silenced > silenced) => {}
    }
    let _ = state.wait_for(|state| !state.up).await;
}
