// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

pub mod cilium;
mod client;
pub mod config_map;
pub mod crd;
pub mod endpoint_slice;
mod events;
pub mod field;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod gateway;
mod reflect;
pub mod selector;

pub use client::{Client, ClientConfig, Error, Limits, WriteFailure, chain, is_forbidden, is_permanent};
pub use events::{Events, Warning, WarningQueue, Warnings, pod_reference, shortened};
pub use k8s_openapi;
pub use kube;
pub use kube::runtime::watcher::Config as WatchConfig;
pub use reflect::{Feed, Ingested, IntoIngested, WatchFailure};
