// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg identity`: security identities and their labels.

use super::Output;
use crate::output::Format;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::Result;
use clap::Subcommand;
use rest::Identity;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List all identities.
    #[command(alias = "ls")]
    List {
        /// Only the identity with exactly these labels.
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one identity.
    Get {
        /// Its number.
        id: u32,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(agent: &Agent, command: Commands) -> Result<()> {
    let (mut identities, output): (Vec<Identity>, Format) = match command {
        Commands::List { mut labels, output } => {
            let mut all: Vec<Identity> = agent.get("/identity").await?;
            labels.sort();
            let sorted = |identity: &Identity| {
                let mut labels = identity.labels.clone();
                labels.sort();
                labels
            };
            all.retain(|identity| labels.is_empty() || sorted(identity) == labels);
            (all, output.format())
        }
        Commands::Get { id, output } => (vec![agent.get(&format!("/identity/{id}")).await?], output.format()),
    };
    identities.sort_by_key(|i| i.id);
    output.print(&identities, || table(&identities).to_string())
}

fn table(identities: &[Identity]) -> Table {
    let mut table = Table::new(["ID", "LABELS"]);
    for identity in identities {
        let mut labels = identity.labels.clone();
        labels.sort();
        let mut labels = labels.into_iter();
        table.row([identity.id.to_string(), labels.next().unwrap_or_default()]);
        labels.for_each(|label| table.row(["".to_owned(), label]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_has_a_line() {
        let identity = |id, labels: &[&str]| Identity {
            id,
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            ..Identity::default()
        };
        let text = table(&[identity(1, &["reserved:host"]), identity(300, &["k8s:b=c", "k8s:a=b"])]).to_string();
        assert_eq!(text, "ID    LABELS\n1     reserved:host\n300   k8s:a=b\n      k8s:b=c\n");
    }
}
