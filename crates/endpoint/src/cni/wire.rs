// SPDX-License-Identifier: Apache-2.0
//! placeholder
use super::error::{Code, Error};
use super::netns::Namespace;
use model::Mac;
use serde_json::Value;
use std::net::IpAddr;
pub(super) struct Link {
    pub(super) host_name: String,
    pub(super) pod_name: String,
    pub(super) mtu: u32,
    pub(super) route_mtu: u32,
    pub(super) addresses: Vec<(IpAddr, IpAddr)>,
}
pub(super) struct Made {
    pub(super) host_ifindex: u32,
    pub(super) mac: Mac,
    pub(super) host_mac: Mac,
}
pub(super) async fn make(_: &Link, _: &Namespace, _: &str) -> Result<Made, Error> {
    Err(Error::new(Code::Io, "x"))
}
pub(super) async fn remove(_: &str) -> Result<(), Error> {
    Ok(())
}
pub(super) fn addresses_in(_: Option<&Value>) -> Vec<IpAddr> {
    vec![]
}
pub(super) async fn check(_: &Namespace, _: &str, _: &[IpAddr]) -> Result<(), Error> {
    Ok(())
}
