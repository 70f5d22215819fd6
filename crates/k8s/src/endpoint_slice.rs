// SPDX-License-Identifier: Apache-2.0
//! What EndpointSlices mean where they leave something out.

use crate::field;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::net::IpAddr;
use std::str::FromStr;

/// What of a slice can be used: whatever cannot takes nothing else with it.
#[derive(Debug)]
pub struct Usable<'a, P> {
    /// Ports with a number, and their protocols.
    pub ports: Vec<(&'a EndpointPort, P, u16)>,
    /// Endpoints with the address that stands for all of theirs: these lead to the same place.
    pub endpoints: Vec<(&'a Endpoint, IpAddr)>,
    pub faults: Vec<Fault>,
}

/// A field that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its path within the slice.
    pub field: String,
    pub reason: String,
}

impl<'a, P: FromStr> Usable<'a, P> {
    #[must_use]
    pub fn of(slice: &'a EndpointSlice) -> Self {
        let mut usable = Self { ports: Vec::new(), endpoints: Vec::new(), faults: Vec::new() };
        for (n, port) in slice.ports.iter().flatten().enumerate() {
            // One without a number stands for all ports, to which nothing can be translated.
            let Some(number) = port.port else { continue };
            let protocol = field::protocol("protocol", port.protocol.as_deref());
            match protocol.and_then(|protocol| Ok((port, protocol, field::port("port", number)?))) {
                Ok(port) => usable.ports.push(port),
                Err(error) => usable.fault(format!("ports[{n}].{}", error.field()), error.reason()),
            }
        }
        let is_of_family = match slice.address_type.as_str() {
            "IPv4" => IpAddr::is_ipv4,
            "IPv6" => IpAddr::is_ipv6,
            other => {
                usable.fault("addressType".to_owned(), format!("{other:?} is not IPv4 or IPv6"));
                return usable;
            }
        };
        for (n, endpoint) in slice.endpoints.iter().flatten().enumerate() {
            let Some(text) = endpoint.addresses.first() else { continue };
            let reason = match field::address("address", text) {
                Ok(ip) if is_of_family(&ip) => {
                    usable.endpoints.push((endpoint, ip));
                    continue;
                }
                Ok(ip) => format!("{ip} is not of the slice's addressType, {}", slice.address_type),
                Err(error) => error.reason(),
            };
            usable.fault(format!("endpoints[{n}].addresses[0]"), reason);
        }
        usable
    }

    fn fault(&mut self, field: String, reason: String) {
        self.faults.push(Fault { field, reason });
    }
}

/// The conditions of an endpoint. Those that are not given mean: ready, serving if ready, not terminating (EndpointSlice v1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// It takes new connections.
    pub ready: bool,
    /// It answers, be it for the last time.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
}

impl Conditions {
    /// Those of an endpoint.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        Self { ready, serving, terminating: conditions.and_then(|c| c.terminating).unwrap_or(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::EndpointConditions;

    #[test]
    fn what_is_not_given_is_ready_and_serves_if_it_is_ready() {
        let of = |conditions| Conditions::of(&Endpoint { conditions, ..Endpoint::default() });
        let ready = Conditions { ready: true, serving: true, terminating: false };
        assert_eq!([of(None), of(Some(EndpointConditions::default()))], [ready; 2]);
        let unready = EndpointConditions { ready: Some(false), ..EndpointConditions::default() };
        assert_eq!(of(Some(unready.clone())), Conditions { ready: false, serving: false, terminating: false });
        let ending = EndpointConditions { serving: Some(true), terminating: Some(true), ..unready };
        assert_eq!(of(Some(ending)), Conditions { ready: false, serving: true, terminating: true });
    }
}
