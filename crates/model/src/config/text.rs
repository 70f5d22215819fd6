// SPDX-License-Identifier: Apache-2.0
//! Text forms that values of several keys have.

use std::net::SocketAddr;
use std::time::Duration;

/// Items with commas or white space between.
#[must_use]
pub fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).collect()
}

/// An address and port to listen on; without an address, as in `:9962`, it is all of both families, and `localhost` is the
/// loopback address of IPv4, whatever a resolver would say.
#[must_use]
pub fn listen_address(text: &str) -> Option<SocketAddr> {
    match text.split_once(':') {
        Some(("", port)) => format!("[::]:{port}").parse().ok(),
        Some(("localhost", port)) => format!("127.0.0.1:{port}").parse().ok(),
        _ => text.parse().ok(),
    }
}

/// A duration as Go writes it, without sign: `0`, or one or more numbers with units such as `1h30m`, `1.5s`, `500ms`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" { Some(Duration::ZERO) } else { duration_of(text, unit_seconds) }
}

/// A duration as Go writes it: `0s`, `1h30m0s`, `1m36.5s`, `250ms`, `145.787µs`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, of_unit) = match nanos {
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => ("µs", 3),
        1_000_000..1_000_000_000 => ("ms", 6),
        _ => ("s", 9),
    };
    let (minutes, seconds) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let head = match (minutes / 60, minutes % 60) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    let whole = 10_u128.pow(of_unit);
    let fraction = format!("{:0width$}", seconds % whole, width = of_unit as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{head}{}{point}{fraction}{unit}", seconds / whole)
}

/// How many seconds a unit of Go's durations has.
#[must_use]
pub fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "h" => Some(3600.0),
        "m" => Some(60.0),
        "s" => Some(1.0),
        "ms" => Some(1e-3),
        "us" | "µs" => Some(1e-6),
        "ns" => Some(1e-9),
        _ => None,
    }
}

/// A duration of one or more numbers, each with one of these units.
pub fn duration_of(text: &str, unit_seconds: impl Fn(&str) -> Option<f64>) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = number.parse::<f64>().ok()? * unit_seconds(unit)?;
        sum = sum.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}
