// SPDX-License-Identifier: Apache-2.0
//! Routes as requests meet them: parsed once, off the request path, and found by host and path.

mod action;
mod condition;
mod entries;
mod expression;
mod filter;
mod host;
mod paths;
mod sought;
mod table;

pub(crate) use action::{Action, Forwarding, Held, HeldBy, Redirect, RouteRule, Weighted, pick};
pub(crate) use condition::Lack;
pub(crate) use filter::{Cors, NewPath, Wildcard};
pub(crate) use host::HostMap;
pub(crate) use paths::Entry;
pub(crate) use sought::Sought;
pub(crate) use table::{Found, Table, Tables};

#[cfg(test)]
mod tests;
