// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod ingest;
mod labels;
mod resolve;
mod rules;
mod selectors;

pub use ingest::{CidrGroup, ingest_cidr_group, ingest_endpoint, ingest_identity, ingest_namespace};
pub use labels::{LabelFilter, PatternError, security_labels};
