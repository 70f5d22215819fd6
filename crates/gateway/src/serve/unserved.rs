// SPDX-License-Identifier: Apache-2.0
//! Listeners that no proxy is told of, since this node has no port left for them.

use super::Part;
use super::socket::{ClosedPort, Socket};
use crate::name::ObjectName;
use statedb::{Inputs, Reader, Tasks};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// Name of the listener.
    pub listener: String,
    /// The port of the Gateway that it is for; none of a Service's.
    pub port: Option<ClosedPort>,
}

impl statedb::Row for Unserved {
    type Key = String;
    fn key(&self) -> String {
        self.listener.clone()
    }
}

impl Unserved {
    /// Why, for people.
    pub const REASON: &str = "the proxy has no port left: all that it may listen at are taken by other listeners";

    fn new(listener: &str) -> Self {
        let port = Socket::parse(listener).map(|Socket { gateway: ObjectName { namespace, name }, port, udp }| {
            ClosedPort { namespace, name, port, udp, reason: Self::REASON.to_owned() }
        });
        Self { listener: listener.to_owned(), port }
    }
}

pub(super) fn derive(tasks: &Tasks, parts: &Reader<Part>) -> Reader<Unserved> {
    let refused = |part: &Part| part.refused.clone();
    let by_listener = parts.index(refused);
    let row =
        move |listener: &String, _: Option<&Unserved>| by_listener.first(listener).map(|_| Unserved::new(listener));
    statedb::derive(tasks, "gateway-unserved", Inputs::of(parts, refused), row).rows
}
