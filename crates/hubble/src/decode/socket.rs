// SPDX-License-Identifier: Apache-2.0
//! A socket that was translated, as two flows: what its owner named, and what that became; or, where the owner asks who it talks to, who that
//! is, and what the owner is told.

use super::{Decoder, Record, l4};
use crate::proto::flow::{
    CiliumEventType, Endpoint, Flow, FlowType, Ip, IpVersion, Service, SocketTranslationPoint, Verdict,
};
use abi::Addr;
use abi::event::{SocketEvent, translation};

/// One end of a flow.
#[derive(Clone)]
struct End {
    addr: Addr,
    /// In network order.
    port: u16,
    endpoint: Endpoint,
    service: Option<Service>,
}

impl Decoder {
    pub(super) fn socket(&self, record: &Record, socket: &SocketEvent) -> Vec<Flow> {
        let mut base = self.base(record);
        let (source, destination) = (base.source.take(), base.destination.take());
        let (own, asked) = (base.source_service.take(), base.destination_service.take());
        let pod = End { addr: socket.src, port: socket.sport, endpoint: source.unwrap_or_default(), service: own };
        // No one but the socket has the service's address.
        let service = End {
            addr: socket.dst_orig,
            port: socket.dport_orig,
            endpoint: Endpoint::default(),
            service: asked.clone(),
        };
        let backend =
            End { addr: socket.dst, port: socket.dport, endpoint: destination.unwrap_or_default(), service: asked };
        let forward = socket.point == translation::FORWARD;
        let (before, after) = if forward { (service, backend) } else { (backend, service) };
        let flow = |peer: End, point: u8, verdict: Verdict| {
            let (from, to) = if forward { (pod.clone(), peer) } else { (peer, pod.clone()) };
            Flow { verdict: verdict.into(), ..between(base.clone(), socket, from, to, point) }
        };
        vec![
            flow(before, socket.point, Verdict::Traced),
            flow(after, socket.point.saturating_add(1), Verdict::Translated),
        ]
    }
}

fn between(base: Flow, socket: &SocketEvent, from: End, to: End, point: u8) -> Flow {
    let (l4, summary) = l4::of_socket(socket.proto, from.port, to.port);
    Flow {
        ethernet: None,
        ip: Some(ip(from.addr, to.addr)),
        l4,
        summary,
        source: Some(from.endpoint),
        destination: Some(to.endpoint),
        source_service: from.service,
        destination_service: to.service,
        r#type: FlowType::Sock.into(),
        event_type: Some(CiliumEventType { r#type: socket.kind.into(), sub_type: point.into() }),
        sock_xlate_point: SocketTranslationPoint::try_from(i32::from(point)).unwrap_or_default().into(),
        socket_cookie: socket.cookie,
        cgroup_id: socket.cgroup,
        ..base
    }
}

/// The pod's address may be unknown, the other end's is not.
fn ip(from: Addr, to: Addr) -> Ip {
    let text = |addr: Addr| if addr.is_none() { String::new() } else { addr.to_string() };
    let version = if from.is_v4() || to.is_v4() { IpVersion::IPv4 } else { IpVersion::IPv6 };
    Ip { source: text(from), destination: text(to), ip_version: version.into(), ..Ip::default() }
}
