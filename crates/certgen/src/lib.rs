// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod authority;
mod config;
mod leaf;
mod secrets;

pub use config::{Config, command};

use anyhow::{Context, bail};
use authority::Authority;
use clap::Parser;
use k8s::{Client, ClientConfig};
use secrets::{Held, Place};
use std::ffi::OsString;
use std::process::ExitCode;
use time::OffsetDateTime;

/// Runs `cilium-certgen`. The first argument is the name of the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let config = match Config::try_parse_from(arguments) {
        Ok(config) => config,
        Err(usage) => {
            // Help and version are not errors.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    surface::init_logs(config.debug, &[]);
    match connect_and_run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "certificates were not made");
            ExitCode::FAILURE
        }
    }
}

fn connect_and_run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let agent = Some(format!("cilium-certgen/{}", env!("CARGO_PKG_VERSION")));
        let client = Client::connect(&ClientConfig { user_agent: agent, ..ClientConfig::default() }).await?;
        run(config, &client, OffsetDateTime::now_utc()).await
    })
}

/// Makes and renews what is to be made at that time.
///
/// # Errors
///
/// What could not be made, by the name of its Secret. The others that come before it are made.
pub async fn run(config: &Config, client: &Client, now: OffsetDateTime) -> anyhow::Result<()> {
    let authority = authority(config, client, now).await?;
    for wanted in &config.config.certs {
        let place = Place::new(client, &wanted.namespace, &wanted.name);
        let leaf = leaf::sign(wanted, &authority, now).with_context(|| place.to_string())?;
        let ends = leaf.ends;
        place.keep(leaf, &authority).await?;
        if ends < now + wanted.validity {
            tracing::warn!(secret = %place, %ends, "made a certificate that ends with its authority, earlier than asked for");
        } else {
            tracing::info!(secret = %place, %ends, "made a certificate");
        }
    }
    Ok(())
}

/// The authority that is there, one with another end in its place, or a new one.
async fn authority(config: &Config, client: &Client, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let own = client.own_namespace();
    let namespace = if config.ca_secret_namespace.is_empty() { &own } else { &config.ca_secret_namespace };
    let place = Place::new(client, namespace, &config.ca_secret_name);
    let Some(Held { authority, may_be_renewed, secret }) = place.authority().await? else {
        if !config.ca_generate {
            bail!("{place} does not exist, and no authority is to be made");
        }
        let made = Authority::make(&config.ca_common_name, config.ca_validity_duration, now)?;
        place.keep_authority(&made, None).await?;
        tracing::info!(secret = %place, "made an authority");
        return Ok(made);
    };
    let outlived = authority.ends_within(config.longest_validity(), now);
    if !(outlived && may_be_renewed && config.ca_generate) {
        return Ok(authority);
    }
    let renewed = authority.renewed(config.ca_validity_duration, now).with_context(|| place.to_string())?;
    place.keep_authority(&renewed, Some(secret)).await?;
    tracing::info!(secret = %place, "renewed the authority");
    Ok(renewed)
}
