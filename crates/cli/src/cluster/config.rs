// SPDX-License-Identifier: Apache-2.0
//! `cilium config`: the ConfigMap of the agents.

use super::Place;
use crate::table::Table;
use anyhow::{Context, Result};
use clap::Subcommand;
use k8s::k8s_openapi::api::core::v1::ConfigMap;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// Show all keys and their values.
    View,
}

pub(super) async fn view(place: &Place) -> Result<()> {
    let client = place.connect().await?;
    let config = client.namespaced::<ConfigMap>(&place.namespace).get_opt("cilium-config").await?;
    let config = config.with_context(|| format!("there is no ConfigMap cilium-config in {}", place.namespace))?;
    let mut table = Table::with_gap(4);
    for (key, value) in config.data.unwrap_or_default() {
        table.row([key, value]);
    }
    print!("{table}");
    Ok(())
}
