// SPDX-License-Identifier: Apache-2.0
//! Interfaces, addresses, routes and neighbours, over one netlink socket.
//!
//! A socket belongs to the network namespace it was opened in: [`Netlink::open_in`] configures a pod from outside.

mod address;
mod fib;
mod link;
mod neighbour;
mod route;
mod watch;

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::{Error, Result, netns};

pub use address::Address;
pub use fib::{FibRoute, NextHop, Place, RouteChange, Way};
pub use link::{Link, LinkChange, Mac, VethEnd, Vxlan};
pub use neighbour::Neighbour;
pub use route::{Encap, MAIN_TABLE, Route, Scope};
pub use watch::{Change, Changes};

/// Takes requests to a network namespace and answers them: the kernel, or [`crate::fake::Network`].
pub(crate) trait Transport: std::fmt::Debug + Send + Sync {
    /// All answers to a request, or its refusal.
    fn transact(&self, request: RouteNetlinkMessage, flags: u16)
    -> BoxFuture<'_, io::Result<Vec<RouteNetlinkMessage>>>;

    /// Changes from now on.
    fn changes(&self) -> Result<Changes>;

    /// The same on a socket of its own.
    fn another(&self) -> Result<Arc<dyn Transport>>;
}

/// A netlink socket. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    transport: Arc<dyn Transport>,
    /// The kernel lists one thing at a time on a socket, and answers `EBUSY` to a second request.
    listing: Arc<tokio::sync::Mutex<()>>,
}

/// What to do when the object is there already.
#[derive(Clone, Copy)]
enum Existing {
    Refuse,
    Replace,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread. The runtime that is entered drives it.
    pub fn open() -> Result<Self> {
        Ok(Self::over(Arc::new(Socket::open()?)))
    }

    pub(crate) fn over(transport: Arc<dyn Transport>) -> Self {
        Self { transport, listing: Arc::default() }
    }

    /// Opens another socket of the same kind: whoever lists much on it holds nobody up here. A real one is in the network
    /// namespace of the calling thread.
    pub fn another(&self) -> Result<Self> {
        self.transport.another().map(Self::over)
    }

    /// Changes of interfaces, addresses, routes and rules from now on; with a real socket, in the network namespace of the
    /// calling thread. The runtime that is entered drives it.
    pub fn changes(&self) -> Result<Changes> {
        self.transport.changes()
    }

    /// Opens a socket in that network namespace.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        netns::run(netns, move || {
            let _entered = runtime.enter();
            Self::open()
        })?
    }

    /// Sends a request and returns the answers.
    async fn transact(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.transport.transact(request, flags).await
    }

    async fn change(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.transact(request, NLM_F_ACK).await.map(drop)
    }

    async fn create(&self, request: RouteNetlinkMessage, existing: Existing) -> io::Result<()> {
        let flag = match existing {
            Existing::Refuse => NLM_F_EXCL,
            Existing::Replace => NLM_F_REPLACE,
        };
        self.transact(request, NLM_F_ACK | NLM_F_CREATE | flag).await.map(drop)
    }

    async fn dump(&self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let _one_at_a_time = self.listing.lock().await;
        self.transact(request, NLM_F_DUMP).await
    }
}

/// A socket of the kernel.
#[derive(Clone, Debug)]
struct Socket(rtnetlink::Handle);

impl Socket {
    fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| failed("open", "a netlink socket".into(), source))?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }
}

impl Transport for Socket {
    fn transact(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> BoxFuture<'_, io::Result<Vec<RouteNetlinkMessage>>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        async move {
            let mut responses = self.0.clone().request(message).map_err(io::Error::other)?;
            let mut answers = Vec::new();
            while let Some(response) = responses.next().await {
                match response.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) => {
                        if let Some(code) = error.code {
                            return Err(io::Error::from_raw_os_error(-code.get()));
                        }
                    }
                    _ => {}
                }
            }
            Ok(answers)
        }
        .boxed()
    }

    fn changes(&self) -> Result<Changes> {
        Changes::open()
    }

    fn another(&self) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(Self::open()?))
    }
}

fn failed(operation: &'static str, object: String, source: io::Error) -> Error {
    Error::Netlink { operation, object, source }
}

/// The answer to "is it there": absence is not an error.
async fn unless_absent<T>(request: impl Future<Output = io::Result<T>>) -> io::Result<Option<T>> {
    match request.await {
        Ok(answer) => Ok(Some(answer)),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
