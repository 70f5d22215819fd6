// SPDX-License-Identifier: Apache-2.0
//! placeholder
use crate::{attachment::PodAttachment, interfaces::Interfaces, manager::restore::HostLinks};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};
pub(crate) struct HostInterfaces(Arc<datapath::bpf::Datapath>);
impl HostInterfaces {
    pub(crate) fn new(d: Arc<datapath::bpf::Datapath>) -> Self {
        Self(d)
    }
}
impl Interfaces for HostInterfaces {
    type Error = io::Error;
    async fn connect(&mut self, _: &PodAttachment) -> io::Result<()> {
        let _ = &self.0;
        Ok(())
    }
    async fn disconnect(&mut self, _: &str, _: u32) -> io::Result<()> {
        Ok(())
    }
    async fn prune(&mut self, _: &BTreeSet<&str>) -> io::Result<()> {
        Ok(())
    }
}
#[derive(Clone)]
pub(crate) struct Links;
impl HostLinks for Links {
    type Error = io::Error;
    async fn list(&self) -> io::Result<BTreeMap<String, u32>> {
        Ok(BTreeMap::new())
    }
}
