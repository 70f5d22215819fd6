// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg ip list`: addresses and their identities.

use super::Output;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::Result;
use clap::Subcommand;
use rest::{Identity, IpListEntry};
use std::collections::BTreeMap;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List all addresses.
    #[command(alias = "ls")]
    List {
        /// Show numbers of identities, not their labels.
        #[arg(long, short)]
        numeric: bool,
        /// Show nodes and pods, too.
        #[arg(long, short)]
        verbose: bool,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(agent: &Agent, command: Commands) -> Result<()> {
    let Commands::List { numeric, verbose, output } = command;
    let mut entries: Vec<IpListEntry> = agent.get("/ip").await?;
    entries.sort_by_cached_key(|entry| order(&entry.cidr));
    if let Some(text) = output.format().structured(&entries)? {
        print!("{text}");
        return Ok(());
    }
    let mut labels = BTreeMap::new();
    if !numeric {
        let identities: Vec<Identity> = agent.get("/identity").await?;
        labels.extend(identities.into_iter().map(|i| (i.id, i.labels)));
    }
    print!("{}", table(&entries, &labels, verbose));
    Ok(())
}

/// Sorts prefixes by address, IPv4 first, rather than by text.
fn order(cidr: &str) -> (Option<ipnet::IpNet>, String) {
    (cidr.parse().ok(), cidr.to_owned())
}

fn table(entries: &[IpListEntry], labels: &BTreeMap<u32, Vec<String>>, verbose: bool) -> Table {
    let mut header = vec!["IP", "IDENTITY", "SOURCE"];
    if verbose {
        header.extend(["HOST", "POD", "ENCRYPT KEY"]);
    }
    let mut table = Table::new(header);
    for entry in entries {
        let number = || vec![entry.identity.to_string()];
        let mut names = labels.get(&entry.identity).filter(|l| !l.is_empty()).cloned().unwrap_or_else(number);
        names.sort();
        let mut names = names.into_iter();
        let metadata = entry.metadata.clone().unwrap_or_default();
        let mut row = vec![entry.cidr.clone(), names.next().unwrap_or_default(), metadata.source];
        if verbose {
            let pod = if metadata.name.is_empty() {
                String::new()
            } else {
                format!("{}/{}", metadata.namespace, metadata.name)
            };
            row.extend([entry.host_ip.clone(), pod, entry.encrypt_key.to_string()]);
        }
        table.row(row);
        names.for_each(|name| table.row([String::new(), name]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use rest::IpListEntryMetadata;

    #[test]
    fn prefixes_are_shown_with_the_labels_of_their_identity() {
        let metadata = |source: &str, name: &str| {
            let (namespace, name) = (if name.is_empty() { "" } else { "shop" }.to_owned(), name.to_owned());
            Some(IpListEntryMetadata { source: source.to_owned(), namespace, name })
        };
        let entry = |cidr: &str, identity, source, name| IpListEntry {
            cidr: cidr.to_owned(),
            identity,
            host_ip: "192.168.0.2".to_owned(),
            metadata: metadata(source, name),
            ..IpListEntry::default()
        };
        let entries = [entry("10.0.0.10/32", 300, "custom-resource", "web-1"), entry("0.0.0.0/0", 2, "generated", "")];
        let labels = BTreeMap::from([(300, vec!["k8s:b=c".to_owned(), "k8s:a=b".to_owned()])]);
        assert_eq!(
            table(&entries, &labels, false).to_string(),
            "IP             IDENTITY   SOURCE\n\
             10.0.0.10/32   k8s:a=b    custom-resource\n\
             \u{20}              k8s:b=c\n\
             0.0.0.0/0      2          generated\n"
        );
        let verbose = table(&entries, &labels, true).to_string();
        assert!(verbose.contains("192.168.0.2   shop/web-1   0\n"), "{verbose}");
    }

    #[test]
    fn prefixes_are_ordered_by_address() {
        let mut all = vec!["10.0.0.9/32", "fd00::/8", "10.0.0.10/32", "2.0.0.0/8"];
        all.sort_by_key(|cidr| order(cidr));
        assert_eq!(all, ["2.0.0.0/8", "10.0.0.9/32", "10.0.0.10/32", "fd00::/8"]);
    }
}
