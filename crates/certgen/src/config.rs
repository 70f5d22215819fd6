// SPDX-License-Identifier: Apache-2.0
//! The command line, and the certificates that it asks for.

use anyhow::{Context, ensure};
use clap::{CommandFactory, Parser};
use serde::Deserialize;
use std::time::Duration;

/// What is to be made.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cilium-certgen",
    version,
    about = "Makes certificates and renews them: signs each anew, writes it to its Secret, and ends"
)]
pub struct Config {
    /// Make the authority if its Secret does not exist, and renew it before it ends if it was made by this command or by the chart
    #[arg(long)]
    pub ca_generate: bool,
    /// Secret with the authority: ca.crt and ca.key
    #[arg(long, value_name = "NAME", default_value = "cilium-ca")]
    pub ca_secret_name: String,
    /// Its namespace; the one of this command's pod if empty
    #[arg(long, value_name = "NAMESPACE", default_value = "")]
    pub ca_secret_namespace: String,
    /// Name of an authority that is made
    #[arg(long, value_name = "NAME", default_value = "Cilium CA")]
    pub ca_common_name: String,
    /// How long an authority is valid that is made or renewed
    #[arg(long, value_name = "TIME", default_value = "26280h", value_parser = parse_time)]
    pub ca_validity_duration: Duration,
    /// The certificates as YAML: a list `certs`, each with name and namespace of its Secret, commonName, hosts, usage and validity
    #[arg(long, value_name = "YAML", env = "CILIUM_CERTGEN_CONFIG", value_parser = parse_certificates)]
    pub config: Wanted,
    /// Log details
    #[arg(long)]
    pub debug: bool,
}

/// The certificates that are asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// In the order in which they are made.
    pub certs: Vec<Certificate>,
}

/// One certificate, and the Secret that it is for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// Name of the Secret.
    pub name: String,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Its subject.
    pub common_name: String,
    /// Names and addresses that it is valid for.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What its key may be used for.
    #[serde(default)]
    pub usage: Vec<Usage>,
    /// For how long it is valid.
    #[serde(deserialize_with = "time_of_text")]
    pub validity: Duration,
}

/// What a key may be used for, by the names that Kubernetes has for it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Usage {
    /// Signing handshakes.
    #[serde(rename = "signing", alias = "digital signature")]
    Signing,
    /// Encrypting the other side's secret.
    #[serde(rename = "key encipherment")]
    KeyEncipherment,
    /// Being a server.
    #[serde(rename = "server auth")]
    ServerAuth,
    /// Being a client.
    #[serde(rename = "client auth")]
    ClientAuth,
}

impl Config {
    /// The longest time that a certificate is asked to be valid for.
    pub(crate) fn longest_validity(&self) -> Duration {
        self.config.certs.iter().map(|one| one.validity).max().unwrap_or_default()
    }
}

/// The command line of `cilium-certgen`.
#[must_use]
pub fn command() -> clap::Command {
    Config::command()
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = model::config::duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| format!("{text:?} is no time such as 8760h"))
}

fn time_of_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_time(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn parse_certificates(text: &str) -> Result<Wanted, String> {
    // The causes are part of it, which usage errors would leave out.
    certificates(text).map_err(|error| format!("{error:#}"))
}

fn certificates(text: &str) -> anyhow::Result<Wanted> {
    let wanted: Wanted = serde_saphyr::from_str(text).context("the certificates")?;
    ensure!(!wanted.certs.is_empty(), "no certificate is asked for");
    for (at, one) in wanted.certs.iter().enumerate() {
        let Certificate { name, namespace, common_name, .. } = one;
        ensure!(
            ![name, namespace, common_name].iter().any(|text| text.is_empty()),
            "certs[{at}]: name, namespace and commonName are needed"
        );
        let earlier = wanted.certs.iter().take(at).any(|other| (&other.name, &other.namespace) == (name, namespace));
        ensure!(!earlier, "certs[{at}]: {namespace}/{name} is asked for twice");
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const ONE: &str = "
certs:
  - name: hubble-server-certs
    namespace: kube-system
    commonName: \"*.blue.hubble-grpc.cilium.io\"
    hosts: [\"*.blue.hubble-grpc.cilium.io\", 192.0.2.1]
    usage: [signing, key encipherment, server auth, client auth]
    validity: 8760h
";

    fn load(yaml: &str, flags: &[&str]) -> Result<Config, String> {
        let words = ["cilium-certgen", "--config", yaml].into_iter().chain(flags.iter().copied());
        Config::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_chart_writes_is_understood() {
        let config = load(ONE, &["--ca-generate", "--ca-validity-duration=2h"]).unwrap();
        assert!(config.ca_generate && config.ca_secret_name == "cilium-ca");
        let one = &config.config.certs[0];
        assert_eq!((one.hosts.len(), one.usage.len()), (2, 4));
        assert_eq!(config.longest_validity(), Duration::from_secs(8760 * 3600));
        assert_eq!(config.ca_validity_duration, Duration::from_secs(7200));
    }

    #[test]
    fn what_cannot_be_made_is_refused_by_name() {
        for (from, to, said) in [
            ("validity: 8760h", "validity: a year", "is no time"),
            ("validity: 8760h", "validity: 0s", "is no time"),
            ("server auth", "serving", "serving"),
            ("name: hubble-server-certs", "name: ''", "certs[0]: name, namespace and commonName are needed"),
            ("hosts:", "host:", "host"),
        ] {
            let error = load(&ONE.replace(from, to), &[]).unwrap_err();
            assert!(error.contains(said), "{said} is missing in: {error}");
        }
        let twice = format!("{ONE}{}", ONE.replace("\ncerts:\n", ""));
        assert!(load(&twice, &[]).unwrap_err().contains("kube-system/hubble-server-certs is asked for twice"));
        assert!(load("certs: []", &[]).unwrap_err().contains("no certificate is asked for"));
    }
}
