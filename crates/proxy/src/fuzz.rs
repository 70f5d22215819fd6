// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: the first bytes of strangers, and their requests. Not part of the product.

use crate::proxy_protocol;
use crate::route::{Sought, Tables};
use crate::tls::hello;
use http::{HeaderMap, Method, Uri};
use l7::{Attachment, HostMatch, PathMatch, Precedence, Route, RouteAction, RouteMatch};
use std::sync::Arc;

/// What the disk keeps for the time without an agent, after the byte `d`; a frame of the agent after any other.
pub fn state(data: &[u8]) {
    match data.split_first() {
        Some((b'd', json)) => {
            if let Ok(snapshot) = crate::disk::parse(json) {
                let mut written = Vec::new();
                assert!(crate::disk::render(&mut written, &snapshot).is_ok(), "{snapshot:?}");
                assert_eq!(crate::disk::parse(&*written).ok(), Some(snapshot));
            }
        }
        Some((_, frame)) => l7::link::fuzz::frame(frame),
        None => {}
    }
}

/// A hello is decided before the longest one, and whatever follows it changes nothing.
pub fn hello(data: &[u8]) {
    let decided = hello::server_name(data);
    if let Some(Ok(name)) = &decided {
        assert!(name.is_empty() || matches!(name.parse(), Ok(HostMatch::Exact(_))), "{name:?}");
        let more = [data, b"more"].concat();
        assert_eq!(hello::server_name(&more), decided);
    }
    assert!(decided.is_some() || data.len() < (hello::LONGEST + 4) * 6);
}

/// A header that is read is as long as it says, and means the same when it is written again.
pub fn proxy_header(data: &[u8]) {
    let Some(Ok(header)) = proxy_protocol::decode(data) else { return };
    assert!(header.length <= data.len());
    if let Some(peer) = header.peer {
        for version in [l7::ProxyProtocol::V1, l7::ProxyProtocol::V2] {
            let again = proxy_protocol::decode(&peer.encode(version));
            let again = again.and_then(Result::ok).and_then(|header| header.peer);
            let plain = |peer: proxy_protocol::Peer| {
                let ends = [peer.client, peer.local];
                ends.map(|end| (end.ip().to_canonical(), end.port()))
            };
            assert_eq!(again.map(plain), Some(plain(peer)));
        }
    }
}

/// Lines of a route each, and of a request at last: it meets the first route that is for it, one after the other.
pub fn route_match(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines: Vec<&str> = text.lines().take(16).collect();
    let Some(uri) = lines.pop().and_then(|line| line.parse::<Uri>().ok()).filter(|uri| uri.path().starts_with('/'))
    else {
        return;
    };
    let route = |(place, line): (usize, &&str)| -> Option<Route> {
        let (kind, path) = line.split_at_checked(1)?;
        let path = match kind {
            "=" => PathMatch::Exact(path.to_owned()),
            "^" => PathMatch::Prefix(path.to_owned()),
            "<" => PathMatch::Start(path.to_owned()),
            _ => return None,
        };
        let place = u32::try_from(place).ok()?;
        let precedence = Precedence { place, ..Precedence::default() };
        let matches = [RouteMatch { precedence, ..RouteMatch::on(path) }];
        Some(Route::plain(place.to_string(), Attachment::any("t"), matches, RouteAction::Respond(200)))
    };
    let routes: Vec<Route> = lines.iter().enumerate().filter_map(route).collect();
    let mut tables = Tables::default();
    let accepted: Vec<&Route> = routes.iter().filter(|route| tables.set(&Arc::new((*route).clone())).is_ok()).collect();
    let is_for = |path: &PathMatch| match path {
        PathMatch::Exact(path) => path == uri.path(),
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            uri.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Start(start) => uri.path().starts_with(start.as_str()),
        PathMatch::Regex(_) => false,
    };
    let wanted = accepted.iter().find(|route| route.matches.iter().any(|rule| is_for(&rule.path)));
    let found = tables.get("t").and_then(|table| table.find("h", &Sought::new(&Method::GET, &uri, &HeaderMap::new())));
    assert_eq!(found.map(|found| found.route.name().clone()), wanted.map(|route| route.name.clone()));
}
