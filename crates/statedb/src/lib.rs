// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod backoff;
mod blocking;
mod changes;
mod derive;
mod index;
mod reconcile;
mod status;
mod table;
mod tasks;

pub use backoff::{Backoff, Retries};
pub use blocking::blocking;
pub use changes::{Batch, Change, Changes};
pub use derive::{Derived, Inputs, derive, merge};
pub use index::Index;
pub use reconcile::{Operation, ReconcileConfig, Target, reconcile, reconcile_with, with_causes};
pub use status::{Counters, State, Status, StatusReader, Summary};
pub use table::{Reader, Revision, Row, Snapshot, Writer, table};
pub use tasks::{TaskFailure, TaskInfo, Tasks};
