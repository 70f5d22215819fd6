// SPDX-License-Identifier: Apache-2.0
//! What to export, from the agent's configuration or a file.

use super::aggregate::Aggregate;
use super::file::Rotation;
use crate::filter::Filters;
use crate::mask::Mask;
use crate::proto::flow::FlowFilter;
use crate::proto::{from_json, nanos};
use crate::service::Query;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FlowLogs {
    #[serde(default)]
    pub(super) flow_logs: Vec<FlowLog>,
}

/// Which flows go to which file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FlowLog {
    /// Unique.
    pub(crate) name: String,
    pub(crate) file_path: PathBuf,
    #[serde(default)]
    pub(crate) field_mask: Vec<String>,
    /// Flows that are alike in these fields are one.
    #[serde(default)]
    pub(crate) field_aggregate: Vec<String>,
    /// How long they are counted before they are written.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) aggregation_interval: Duration,
    /// As in a filter's JSON.
    #[serde(default)]
    pub(crate) include_filters: Vec<Value>,
    #[serde(default)]
    pub(crate) exclude_filters: Vec<Value>,
    #[serde(default = "file_size")]
    pub(crate) file_max_size_mb: u64,
    #[serde(default = "file_count")]
    pub(crate) file_max_backups: usize,
    #[serde(default)]
    pub(crate) file_compress: bool,
    /// When it ends, in nanoseconds since 1970.
    #[serde(default, deserialize_with = "moment")]
    pub(crate) end: Option<i64>,
}

fn file_size() -> u64 {
    10
}

fn file_count() -> usize {
    5
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let error = || serde::de::Error::custom("aggregationInterval: want a duration, such as 30s");
    model::config::duration(&text).ok_or_else(error)
}

fn moment<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let time =
        OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| serde::de::Error::custom("end: want a time of RFC 3339"))?;
    Ok(Some(nanos(&prost_types::Timestamp { seconds: time.unix_timestamp(), nanos: 0 })))
}

impl FlowLogs {
    /// Parses and validates all of it, and adds a hash of its text; the error is a message for people.
    pub(super) async fn read(path: &Path) -> Result<(Self, u32), String> {
        let text = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?;
        let logs: Option<Self> = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
        let logs = logs.unwrap_or_default();
        for (index, log) in logs.flow_logs.iter().enumerate() {
            let checked = log.query().and_then(|_| log.aggregate());
            checked.map_err(|error| format!("flow log {:?}: {error}", log.name))?;
            let before = logs.flow_logs.iter().take(index);
            if let Some(other) = before.into_iter().find(|o| o.name == log.name || o.file_path == log.file_path) {
                return Err(format!("flow log {:?}: its name or filePath is that of {:?}", log.name, other.name));
            }
        }
        Ok((logs, crc32fast::hash(text.as_bytes())))
    }
}

impl FlowLog {
    pub(super) fn rotation(&self) -> Rotation {
        let size = self.file_max_size_mb.saturating_mul(1 << 20);
        Rotation { size, backups: self.file_max_backups, compress: self.file_compress }
    }

    /// The request to the ring.
    pub(crate) fn query(&self) -> Result<Query, String> {
        // Fields by which flows are alike may be others than those that are shown.
        let mask = if self.field_aggregate.is_empty() { self.field_mask.as_slice() } else { &[] };
        query(&self.include_filters, &self.exclude_filters, mask)
    }

    /// How flows become one, if they do; the error is a message for people.
    pub(super) fn aggregate(&self) -> Result<Option<Aggregate>, String> {
        let mask = |fields: &[String]| Mask::compile(fields).map_err(|error| error.to_string());
        let in_field = |error| format!("fieldAggregate: {error}");
        let shown = mask(&self.field_mask)?;
        let by = mask(&self.field_aggregate).map_err(in_field)?;
        match (by, self.aggregation_interval.is_zero()) {
            (Some(by), false) => Ok(Some(Aggregate::new(by, shown, self.aggregation_interval))),
            (None, true) => Ok(None),
            (Some(_), true) => Err("fieldAggregate: want an aggregationInterval, too, such as 30s".to_owned()),
            (None, false) => Err("aggregationInterval: want a fieldAggregate, too".to_owned()),
        }
    }
}

/// The request to the ring for flows that fit filters as JSON has them; the error is a message for people.
pub(crate) fn query(include: &[Value], exclude: &[Value], mask: &[String]) -> Result<Query, String> {
    let list = |values: &[Value]| {
        let filters = values.iter().map(|value| from_json::<FlowFilter>(&value.to_string()));
        filters.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
    };
    let filters = Filters::compile(&list(include)?, &list(exclude)?).map_err(|error| error.to_string())?;
    let mask = Mask::compile(mask).map_err(|error| error.to_string())?;
    Ok(Query::live(filters, mask))
}
