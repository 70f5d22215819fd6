// SPDX-License-Identifier: Apache-2.0
//! `cilium version`.

use super::Place;
use anyhow::{Context, Result};
use clap::Args;
use k8s::k8s_openapi::api::apps::v1::DaemonSet;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only the version of this command.
    #[arg(long)]
    client: bool,
}

pub(super) async fn run(place: &Place, options: &Options) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    println!("cilium-cli: v{version} {}/{}", std::env::consts::OS, std::env::consts::ARCH);
    if options.client {
        return Ok(());
    }
    let client = place.connect().await?;
    let agents = client.namespaced::<DaemonSet>(&place.namespace).get_opt("cilium").await;
    let Some(agents) = agents.context("look for DaemonSet cilium")? else {
        println!("cilium image (running): unknown. Cilium is not installed in namespace {}", place.namespace);
        return Ok(());
    };
    let pod = agents.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
    let agent = pod.containers.into_iter().find(|container| container.name == "cilium-agent");
    let image = agent.and_then(|agent| agent.image).unwrap_or_else(|| "unknown".to_owned());
    println!("cilium image (running): {}", image_version(&image));
    Ok(())
}

/// The tag of an image; without one, the whole.
fn image_version(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag.trim_start_matches('v'),
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::image_version;

    #[test]
    fn the_version_is_the_tag() {
        assert_eq!(image_version("quay.io/cilium-rs/cilium:v1.2.3@sha256:abc"), "1.2.3");
        assert_eq!(image_version("localhost:5000/cilium"), "localhost:5000/cilium");
    }
}
