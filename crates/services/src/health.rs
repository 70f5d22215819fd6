// SPDX-License-Identifier: Apache-2.0
//! What load balancers ask a node over HTTP: whether a Service has endpoints here (`healthCheckNodePort`), and whether the node serves
//! Services at all (`/healthz`). Both are answered as kube-proxy does, since that is what they know.

mod checks;
mod http;
mod proxy;

pub(crate) use checks::Checks;
pub(crate) use proxy::{is_healthy, serve as serve_proxy};
