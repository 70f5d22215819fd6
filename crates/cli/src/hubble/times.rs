// SPDX-License-Identifier: Apache-2.0
//! Times as they are given on the command line and as they are shown.

use anyhow::{Context, Result, bail};
use model::config::{duration_of, unit_seconds};
use std::time::{Duration, SystemTime};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

/// How times are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub(super) enum TimeFormat {
    /// `Jan _2 15:04:05.000`.
    StampMilli,
    /// To the second.
    RFC3339,
    /// To the millisecond.
    RFC3339Milli,
    /// To the microsecond.
    RFC3339Micro,
    /// To the nanosecond.
    RFC3339Nano,
    /// `Mon, 02 Jan 2006 15:04:05 -0700`.
    RFC1123Z,
}

impl TimeFormat {
    /// The time in UTC.
    pub(super) fn format(self, time: Option<&prost_types::Timestamp>) -> String {
        let nanos = time.map(|t| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos));
        let Some(time) = nanos.and_then(|n| OffsetDateTime::from_unix_timestamp_nanos(n).ok()) else {
            return "N/A".to_owned();
        };
        let text =
            match self {
                Self::StampMilli => time.format(format_description!(
                    "[month repr:short] [day padding:space] [hour]:[minute]:[second].[subsecond digits:3]"
                )),
                Self::RFC3339 => time.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z")),
                Self::RFC3339Milli => time
                    .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z")),
                Self::RFC3339Micro => time
                    .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z")),
                Self::RFC3339Nano => time
                    .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z")),
                Self::RFC1123Z => time.format(format_description!(
                    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] +0000"
                )),
            };
        text.unwrap_or_else(|_| "N/A".to_owned())
    }
}

/// When and where something was seen, as lines begin with it.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Stamps {
    /// How to show times.
    #[arg(long, value_enum, default_value = "StampMilli", help_heading = "Formatting")]
    pub(super) time_format: TimeFormat,
    /// Show the name of the node.
    #[arg(long, help_heading = "Formatting")]
    pub(super) print_node_name: bool,
}

/// A time: RFC 3339, parts of it, or how long ago (`5m`, `1h30m`).
pub(super) fn parse(text: &str, now: SystemTime) -> Result<prost_types::Timestamp> {
    let time = if let Some(ago) = duration(text) {
        OffsetDateTime::from(now.checked_sub(ago).context("is before the beginning of time")?)
    } else if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        time
    } else if let Ok(time) =
        PrimitiveDateTime::parse(text, format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"))
    {
        time.assume_utc()
    } else if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        date.midnight().assume_utc()
    } else {
        bail!("{text:?} is not a time: want RFC 3339 (2026-01-31T12:00:00Z), a date, or a duration such as 5m");
    };
    let nanos = i32::try_from(time.nanosecond()).unwrap_or_default();
    Ok(prost_types::Timestamp { seconds: time.unix_timestamp(), nanos })
}

/// One or more numbers with units, as `1h30m`; days too, since people ask for the last `2d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    duration_of(text, |unit| if unit == "d" { Some(86400.0) } else { unit_seconds(unit) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_moments_and_as_ages() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let seconds = |text| parse(text, now).unwrap().seconds;
        assert_eq!(seconds("1h30m"), 1_000_000 - 5400);
        assert_eq!(seconds("2026-01-31T12:00:00Z"), 1_769_860_800);
        assert_eq!(seconds("2026-01-31T14:00:00+02:00"), 1_769_860_800);
        assert_eq!(seconds("2026-01-31T12:00:00"), 1_769_860_800);
        assert_eq!(seconds("2026-01-31"), 1_769_817_600);
        assert!(parse("yesterday", now).is_err() && parse("", now).is_err());
    }

    #[test]
    fn times_are_shown_in_the_format_asked_for() {
        let time = prost_types::Timestamp { seconds: 1_769_860_800, nanos: 120_003_004 };
        let show = |format: TimeFormat| format.format(Some(&time));
        assert_eq!(show(TimeFormat::StampMilli), "Jan 31 12:00:00.120");
        assert_eq!(show(TimeFormat::RFC3339), "2026-01-31T12:00:00Z");
        assert_eq!(show(TimeFormat::RFC3339Nano), "2026-01-31T12:00:00.120003004Z");
        assert_eq!(show(TimeFormat::RFC1123Z), "Sat, 31 Jan 2026 12:00:00 +0000");
        assert_eq!(TimeFormat::StampMilli.format(None), "N/A");
    }
}
