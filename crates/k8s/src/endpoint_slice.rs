// SPDX-License-Identifier: Apache-2.0
//! What EndpointSlices mean where they leave something out.

use k8s_openapi::api::discovery::v1::Endpoint;

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
