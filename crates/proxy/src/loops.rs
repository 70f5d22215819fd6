// SPDX-License-Identifier: Apache-2.0
//! Bytes and datagrams that would lead back here, and on and on. Of requests, whoever has passed them on is told in a header; of bytes
//! nothing is known but where they go and where they come from.

use imbl::HashMap;
use l7::{Listener, Serve};
use nix::errno::Errno;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Whether it is TCP's or UDP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Where the listeners are. A clone shares what does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(HashMap<(Transport, SocketAddr), usize>);

impl Places {
    pub(crate) fn add(&mut self, listener: &Listener) {
        if let Some(place) = place(listener) {
            *self.0.entry(place).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, listener: &Listener) {
        let Some(place) = place(listener) else { return };
        match self.0.get(&place) {
            Some(1) | None => drop(self.0.remove(&place)),
            Some(count) => drop(self.0.insert(place, count - 1)),
        }
    }

    /// Whether what is sent there comes to one of them.
    pub(crate) fn are_at(&self, transport: Transport, to: SocketAddr) -> bool {
        let at_any = SocketAddr::new(any(to.ip()), to.port());
        self.0.contains_key(&(transport, to)) || self.0.contains_key(&(transport, at_any)) && is_here(to.ip())
    }
}

/// Any address of the node is not any address of this process.
fn place(listener: &Listener) -> Option<(Transport, SocketAddr)> {
    let transport = if matches!(listener.serve, Serve::Udp(_)) { Transport::Udp } else { Transport::Tcp };
    let elsewhere = listener.node && listener.address.ip().is_unspecified();
    (!elsewhere).then_some((transport, listener.address))
}

/// The unspecified address of the same family.
fn any(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Whether an address is one of this network's own: what is sent to it would be sent from it. Nothing is sent.
fn is_here(ip: IpAddr) -> bool {
    let from = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any(ip), 0))?;
        socket.connect((ip, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    ip.is_loopback() || ip.is_unspecified() || from().is_ok_and(|from| from == ip)
}

/// The ends that connections for bytes have here, and where they lead.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opened(Arc<Mutex<DestinationsBySource>>);

type DestinationsBySource = std::collections::HashMap<(Transport, SocketAddr), Vec<SocketAddr>>;

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct Own {
    opened: Opened,
    from: (Transport, SocketAddr),
    to: SocketAddr,
}

impl Opened {
    /// Connects. It is known that the connection is one of these before anybody can have answered it, or nearly so.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<(TcpStream, Own)> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let from = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let own = self.add(Transport::Tcp, from, to);
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        stream.take_error()?.map_or(Ok((stream, own)), Err)
    }

    pub(crate) fn add(&self, transport: Transport, from: SocketAddr, to: SocketAddr) -> Own {
        let from = (transport, from);
        self.0.lock().entry(from).or_default().push(to);
        Own { opened: self.clone(), from, to }
    }

    /// Whether what has come from there to here is one of these. Somebody may have sent it elsewhere on its way, but not at the loopback,
    /// where others may have the same port for another destination.
    pub(crate) fn have(&self, transport: Transport, from: SocketAddr, here: SocketAddr) -> bool {
        let all = self.0.lock();
        let leads_here = |to: &SocketAddr| transport == Transport::Udp || *to == here || !to.ip().is_loopback();
        all.get(&(transport, from)).is_some_and(|to| to.iter().any(leads_here))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut all = self.opened.0.lock();
        let Some(to) = all.get_mut(&self.from) else { return };
        if let Some(at) = to.iter().position(|to| *to == self.to) {
            to.swap_remove(at);
        }
        if to.is_empty() {
            all.remove(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use l7::{Forward, HttpServer, Limits};

    fn listener(address: &str, serve: Serve) -> Listener {
        Listener {
            name: address.into(),
            address: address.parse().unwrap(),
            port: None,
            transparent: false,
            node: false,
            proxy_protocol: false,
            limits: Limits::default(),
            serve,
            clear: None,
            sources: Vec::new(),
        }
    }

    fn are_at(places: &Places, transport: Transport, to: &str) -> bool {
        places.are_at(transport, to.parse().unwrap())
    }

    #[test]
    fn what_is_sent_to_a_listener_or_to_any_address_that_it_has_leads_back() {
        use Transport::{Tcp, Udp};
        let mut places = Places::default();
        let of_node = Listener { node: true, ..listener("0.0.0.0:82", Serve::Tcp(Forward::default())) };
        let all = [
            listener("203.0.113.1:80", Serve::Http(HttpServer::default())),
            listener("0.0.0.0:81", Serve::Tcp(Forward::default())),
            listener("[::]:81", Serve::Udp(Forward::default())),
            of_node,
        ];
        all.iter().for_each(|one| places.add(one));
        let rows = [
            (Tcp, "203.0.113.1:80", true),
            (Udp, "203.0.113.1:80", false),
            (Tcp, "203.0.113.1:81", false),
            (Tcp, "203.0.113.2:80", false),
            (Tcp, "127.0.0.1:81", true),
            (Tcp, "127.0.0.2:81", true),
            (Tcp, "0.0.0.0:81", true),
            (Tcp, "203.0.113.77:81", false),
            (Tcp, "[::1]:81", false),
            (Udp, "[::1]:81", true),
            (Udp, "127.0.0.1:81", false),
            (Tcp, "127.0.0.1:82", false),
        ];
        for (transport, to, wanted) in rows {
            assert_eq!(are_at(&places, transport, to), wanted, "{transport:?} {to}");
        }
        // Of two that want one place, one is left.
        places.add(&all[0]);
        places.remove(&all[0]);
        assert!(are_at(&places, Tcp, "203.0.113.1:80"));
        all.iter().for_each(|one| places.remove(one));
        assert!(places.0.is_empty());
    }

    #[tokio::test]
    async fn a_connection_is_known_as_long_as_it_is_there() {
        let opened = Opened::default();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let (stream, own) = opened.connect(to).await.unwrap();
        let (_, from) = socket.accept().await.unwrap();
        assert_eq!(from, stream.local_addr().unwrap());
        let elsewhere = "127.0.0.1:1".parse().unwrap();
        assert!(opened.have(Transport::Tcp, from, to));
        assert!(!opened.have(Transport::Tcp, from, elsewhere) && !opened.have(Transport::Udp, from, to));
        assert!(!opened.have(Transport::Tcp, to, from));
        let again = opened.add(Transport::Tcp, from, to);
        drop(own);
        assert!(opened.have(Transport::Tcp, from, to));
        drop(again);
        assert!(!opened.have(Transport::Tcp, from, to) && opened.0.lock().is_empty());
        drop(socket);
        assert_eq!(opened.connect(to).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(opened.0.lock().is_empty());
    }

    #[test]
    fn what_was_sent_elsewhere_on_its_way_is_known_by_where_it_comes_from() {
        let opened = Opened::default();
        let [from, service, here] =
            ["192.0.2.1:4000", "198.51.100.1:80", "192.0.2.1:8080"].map(|text| text.parse().unwrap());
        let _own = opened.add(Transport::Tcp, from, service);
        assert!(opened.have(Transport::Tcp, from, here));
    }
}
