// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg statedb`: the agent's tables, with what it knows and what it wants.

use crate::rest::Agent;
use crate::table::Table;
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Commands>,
    /// Show the tables as the agent tells them.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Commands {
    /// Show the rows of a table, one a line.
    Dump {
        /// Name of the table.
        table: String,
    },
    /// List the tables.
    #[command(alias = "ls")]
    List,
}

pub(super) async fn run(agent: &Agent, options: &Options) -> Result<()> {
    if let Some(Commands::Dump { table }) = &options.command {
        let rows: Vec<Value> = agent.get(&format!("/statedb/dump/{table}")).await?;
        rows.iter().for_each(|row| println!("{}", cell(row)));
        return Ok(());
    }
    let tables: Value = agent.get("/statedb").await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&tables)?);
    } else {
        print!("{}", table(&tables));
    }
    Ok(())
}

/// The list of tables: names, or objects with a name and figures.
fn table(tables: &Value) -> Table {
    let list = tables.as_array().cloned().unwrap_or_default();
    let objects = list.iter().filter_map(Value::as_object);
    let mut columns: Vec<&String> = objects.flat_map(|o| o.keys()).collect();
    columns.sort_by_key(|key| (*key != "name", (*key).clone()));
    columns.dedup();
    let header: Vec<String> = columns.iter().map(|key| key.to_uppercase()).collect();
    let mut table = Table::new(if header.is_empty() { vec!["NAME".to_owned()] } else { header });
    for row in &list {
        match row {
            Value::Object(object) => {
                table.row(columns.iter().map(|key| object.get(*key).map(cell).unwrap_or_default()))
            }
            other => table.row([cell(other)]),
        }
    }
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_listed_by_name_with_whatever_else_the_agent_says() {
        let text = table(&json!([{"rows": 3, "name": "nodes", "initialized": true}, {"name": "ipcache"}])).to_string();
        assert_eq!(text, "NAME      INITIALIZED   ROWS\nnodes     true          3\nipcache\n");
        assert_eq!(table(&json!(["nodes"])).to_string(), "NAME\nnodes\n");
    }
}
