// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod class;
mod cluster;
mod duration;
mod edge;
mod host;
mod name;
mod objects;
mod resolve;
mod route;
mod serve;
mod source;
mod status;
mod tls_policy;
mod verdict;

pub use class::CONTROLLER;
pub use name::{ObjectName, ParentKind, ParentName, RouteKind, RouteName};
pub use objects::Objects;
pub use serve::{Serving, Snapshots, serve};
pub use source::*;
pub use status::{Addresses, Report, Status, Subject, report};
pub use verdict::Verdict;
