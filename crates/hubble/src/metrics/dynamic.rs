// SPDX-License-Identifier: Apache-2.0
//! A file that lists metrics of flows and may change at any time: which metrics, with which labels, for which flows.

use super::options::{Plugin, Plugins};
use crate::filter::Filters;
use crate::proto::flow::FlowFilter;
use crate::proto::from_json;
use serde::Deserialize;
use serde_json::Value;

/// Metrics and the flows that they count.
pub(super) type Counted = Vec<(Plugin, Filters)>;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    metrics: Vec<Metric>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metric {
    name: String,
    #[serde(default)]
    context_options: Vec<ContextOption>,
    /// In the JSON form of a filter.
    #[serde(default)]
    include_filters: Vec<Value>,
    #[serde(default)]
    exclude_filters: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextOption {
    name: String,
    #[serde(default)]
    values: Vec<String>,
}

/// The metrics listed in the text of a file, beside those that are always counted. All of it is checked; the error is a message for users.
pub(super) fn parse(text: &str, always: &Plugins) -> Result<Counted, String> {
    let listed: Option<Listed> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut counted = Counted::new();
    for metric in listed.unwrap_or_default().metrics {
        let (plugin, filters) = metric.compile().map_err(|error| format!("metric {:?}: {error}", metric.name))?;
        let mut others = always.0.iter().chain(counted.iter().map(|(other, _)| other));
        if others.any(|other| other.kind.family() == plugin.kind.family()) {
            return Err(format!("metric {:?}: its metrics are enabled already", metric.name));
        }
        counted.push((plugin, filters));
    }
    Ok(counted)
}

impl Metric {
    fn compile(&self) -> Result<(Plugin, Filters), String> {
        let options = self.context_options.iter().map(|ContextOption { name, values }| {
            let separator = if name == "labelsContext" { "," } else { "|" };
            format!("{name}={}", values.join(separator))
        });
        let plugin = Plugin::parse(&self.name, &options.collect::<Vec<_>>().join(";"))?;
        let list = |values: &[Value]| {
            let filters = values.iter().map(|value| from_json::<FlowFilter>(&value.to_string()));
            filters.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        };
        let filters = Filters::compile(&list(&self.include_filters)?, &list(&self.exclude_filters)?);
        Ok((plugin, filters.map_err(|error| error.to_string())?))
    }
}
