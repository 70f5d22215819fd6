// SPDX-License-Identifier: Apache-2.0
//! Sockets that are connected to a backend by the name of a Service: finding them by what they remember (`abi::lb::Connected`), and
//! ending their connections.

#[cfg(fuzzing)]
pub mod fuzz;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use abi::flow::proto::{TCP, UDP};
use abi::lb::{Connected, ReverseEntry, ReverseKey, SocketMemory};
use abi::maps::ReverseSockets;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::time::TimeVal;

use crate::bpf::Datapath;
use crate::map::raw::from_bytes;
use crate::sys::iterator;
use crate::{Error, Kernel, Map, Result, netns};
use message::{Answer, Found};

/// Where container runtimes mount the network namespaces of pods.
pub const NETNS_DIR: &str = "/var/run/netns";
/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS: FsType = FsType(0x6e73_6673);
/// The kernel fills as much of it as it can per read.
const ANSWER: usize = 32 * 1024;
/// How long the kernel may take for an answer, in seconds.
const PATIENCE: i64 = 5;

/// Whether a connection of that protocol, to what a socket remembers, is to end.
pub type IsOver<'a> = &'a (dyn Fn(u8, &Connected) -> bool + Sync);

/// Which sockets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Those of pods too, and not only the host's.
    pub pods: bool,
    /// Streams too, and not only datagrams.
    pub streams: bool,
}

impl Scope {
    fn protocols(self) -> impl Iterator<Item = u8> {
        [Some(UDP), self.streams.then_some(TCP)].into_iter().flatten()
    }
}

/// Ends connections to Services. Implemented by the real kernel ([`Diag`]) and by [`crate::fake::Sockets`].
pub trait Sockets: Debug + Send + Sync {
    /// Ends the connection of each socket in scope that `is_over`. Its program gets ECONNABORTED, and has to connect anew.
    /// Returns how many. To sockets without a connection the backends speak in their own name from then on. A namespace that fails does not keep others from being looked through.
    ///
    /// # Errors
    ///
    /// The first failure. The kernel has no `INET_DIAG_DESTROY`, for example.
    fn close(&self, scope: Scope, is_over: IsOver<'_>) -> Result<usize>;
}

/// The kernel's own lists: of what sockets remember, which a program reads out (`bpf/src/programs/sock_memory.rs`), and of sockets, which can
/// be told to close (`sock_diag(7)`).
#[derive(Debug)]
pub struct Diag {
    memory: OwnedFd,
    /// What sockets have sent to without a connection, in all namespaces.
    unconnected: Map<ReverseSockets>,
    pods: PathBuf,
}

/// What sockets remember, by cookie.
type Memory = BTreeMap<u64, Connected>;

impl Diag {
    /// Sockets of the calling thread's network namespace, and of those that are mounted in a folder.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program.
    pub fn open(datapath: &Datapath, pods: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { memory: datapath.iterate_sockets()?, unconnected: datapath.map()?, pods: pods.into() })
    }

    /// What sockets of all namespaces remember that `is_over`.
    fn remembered(&self, scope: Scope, is_over: IsOver<'_>) -> Result<Memory> {
        let mut bytes = Vec::new();
        let read = iterator::read(self.memory.as_fd()).and_then(|mut list| list.read_to_end(&mut bytes));
        read.map_err(|source| failed("read what they remember", source))?;
        let all = bytes.chunks_exact(size_of::<SocketMemory>()).map(from_bytes::<SocketMemory>);
        let over = all.filter(|socket| scope.protocols().any(|protocol| is_over(protocol, &socket.connected)));
        Ok(over.map(|socket| (socket.cookie, socket.connected)).collect())
    }
}

impl Diag {
    /// Forgets by which name sockets without a connection know what `is_over`: who has that address next would speak under it.
    fn forget_senders(&self, is_over: IsOver<'_>) -> Result<()> {
        for (key, entry) in self.unconnected.entries()? {
            if is_over(UDP, &as_connection(&key, &entry)) {
                self.unconnected.remove(&key)?;
            }
        }
        Ok(())
    }
}

const fn as_connection(key: &ReverseKey, entry: &ReverseEntry) -> Connected {
    Connected {
        backend: key.addr,
        frontend: entry.addr,
        backend_port: key.port,
        frontend_port: entry.port,
        service: entry.service,
    }
}

impl Sockets for Diag {
    fn close(&self, scope: Scope, is_over: IsOver<'_>) -> Result<usize> {
        self.forget_senders(is_over)?;
        let memory = self.remembered(scope, is_over)?;
        if memory.is_empty() {
            return Ok(0);
        }
        let mut namespaces = vec![netns::current()?];
        if scope.pods {
            namespaces.extend(others(&self.pods, &namespaces)?);
        }
        let mut sum = Ok(0);
        for namespace in namespaces {
            let closed = Socket::open_in(&namespace).and_then(|socket| socket.close(&memory, scope, is_over));
            sum = match (sum, closed) {
                (Ok(sum), Ok(closed)) => Ok(sum + closed),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        sum
    }
}

/// The network namespaces that are mounted in a folder, each once. A file that is none, or goes meanwhile, is passed over.
fn others(dir: &Path, known: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let number = |namespace: &OwnedFd| fstat(namespace).map(|stat| stat.st_ino).ok();
    let mut seen: BTreeSet<u64> = known.iter().filter_map(number).collect();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list the namespaces of pods", error)),
    };
    let files = entries.filter_map(|entry| netns::open(&entry.ok()?.path()).ok());
    let namespaces = files.filter(|file| fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == NSFS));
    Ok(namespaces.filter(|namespace| number(namespace).is_some_and(|number| seen.insert(number))).collect())
}

/// A socket to the kernel's list of those of one namespace.
struct Socket(OwnedFd);

impl Socket {
    fn open_in(namespace: &OwnedFd) -> Result<Self> {
        let open = || {
            let protocol = SockProtocol::NetlinkSockDiag;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
            io::Result::Ok(Self(socket))
        };
        netns::run(namespace.as_fd(), open)?.map_err(|source| failed("open a netlink socket", source))
    }

    fn close(&self, memory: &Memory, scope: Scope, is_over: IsOver<'_>) -> Result<usize> {
        let mut closed = 0;
        for protocol in scope.protocols() {
            for family in [libc::AF_INET, libc::AF_INET6] {
                let mut found = Vec::new();
                let seen = |socket: Found| {
                    // Where connecting anew has failed, a socket still is connected to another backend than it remembers.
                    let known = memory.get(&socket.cookie()).filter(|known| socket.is_connected_to(known));
                    if known.is_some_and(|known| is_over(protocol, known)) {
                        found.push(socket);
                    }
                };
                self.ask(&message::list(family, protocol), seen).map_err(|source| failed("list them", source))?;
                for socket in found {
                    closed += usize::from(self.destroy(protocol, &socket)?);
                }
            }
        }
        Ok(closed)
    }

    /// Ends a socket's connection; false when it has ended by itself, or the kernel finds another one at its ends.
    fn destroy(&self, protocol: u8, socket: &Found) -> Result<bool> {
        match self.ask(&message::destroy(protocol, socket), |_| {}) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(source) => Err(failed("close one", source)),
        }
    }

    /// Sends a request, and shows what is found until the last answer to it, or its refusal.
    fn ask(&self, request: &[u8], mut see: impl FnMut(Found)) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            for answer in message::answers(answer.get(..length).unwrap_or_default()) {
                match answer {
                    Answer::Found(socket) => see(socket),
                    Answer::End(0) => return Ok(()),
                    Answer::End(code) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                }
            }
        }
    }
}

fn failed(operation: &'static str, source: io::Error) -> Error {
    Error::Sockets { operation, source }
}
