// SPDX-License-Identifier: Apache-2.0
//! Durations as Gateway API writes them (GEP-2257): up to four numbers of up to five digits, each with `h`, `m`, `s` or `ms`; and as Go
//! does, whose numbers may be of any length and have fractions, and which has smaller units too.

use std::time::Duration;

/// The duration that a text stands for.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut parts) = (text, Duration::ZERO, 0);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let milliseconds: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        parts += 1;
        if digits > 5 || parts > 4 {
            return None;
        }
        total += Duration::from_millis(number.parse::<u64>().ok()? * milliseconds);
        rest = tail;
    }
    (parts > 0).then_some(total)
}

/// The duration that a text of Go's stands for. One that is negative is none, and neither is one that Go has no room for.
pub(crate) fn parse_go(text: &str) -> Option<Duration> {
    const LONGEST: u128 = 1 << 63;
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0_u128);
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, tail) = rest.split_at_checked(number)?;
        let unit = tail.len() - tail.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (unit, tail) = tail.split_at_checked(unit)?;
        total = total.checked_add(nanoseconds(number, unit)?).filter(|total| *total < LONGEST)?;
        rest = tail;
    }
    let total = u64::try_from(total).ok().filter(|_| !text.is_empty())?;
    Some(Duration::from_nanos(total))
}

fn nanoseconds(number: &str, unit: &str) -> Option<u128> {
    let unit: u128 = match unit {
        "ns" => 1,
        // The micro sign, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Of a fraction, what is less than a nanosecond of hours does not count.
    let fraction = fraction.get(..fraction.len().min(16))?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?.checked_mul(unit)? / scale)
}

/// A duration as Gateway API writes it. What is less than a millisecond is one: nothing means something else.
pub(crate) fn text(duration: Duration) -> String {
    const LONGEST: u128 = 99_999 * 3_600_000;
    let all = duration.as_nanos().div_ceil(1_000_000).min(LONGEST);
    let (seconds, milliseconds) = (all / 1000, all % 1000);
    format!("{}h{}m{}s{milliseconds}ms", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_have_fractions_and_small_units() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("1.5s", 1_500_000_000),
            ("500ms", 500_000_000),
            ("1m30s", 90_000_000_000),
            ("100us", 100_000),
            ("100\u{b5}s", 100_000),
            ("100\u{3bc}s", 100_000),
            ("7ns", 7),
            (".5h", 1_800_000_000_000),
            ("2.s", 2_000_000_000),
            ("+3s", 3_000_000_000),
            ("1s1s1s1s1s", 5_000_000_000),
            ("100000s", 100_000_000_000_000),
            ("0.333333333333333333333333h", 1_199_999_999_999),
        ] {
            assert_eq!(parse_go(text), Some(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            ".s",
            "1d",
            "1 s",
            "1S",
            "+",
            "1.5.5s",
            "3000000h",
            "s1",
            "99999999999999999999999999999999999999999h",
        ] {
            assert_eq!(parse_go(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read_to_the_next_millisecond() {
        for (go, written) in [
            ("1.5s", "0h0m1s500ms"),
            ("100us", "0h0m0s1ms"),
            ("1h1m1s1ms1ns", "1h1m1s2ms"),
            ("2562047h", "99999h0m0s0ms"),
        ] {
            let duration = parse_go(go).unwrap_or_default();
            assert_eq!(text(duration), written, "{go}");
            assert!(parse(written).is_some());
        }
    }

    #[test]
    fn durations_have_numbers_with_units() {
        let milliseconds = |text| parse(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("1h30m10s5ms"), Some(5_410_005));
        assert_eq!(milliseconds("0s"), Some(0));
        assert_eq!(milliseconds("99999h"), Some(359_996_400_000));
        for text in ["", "1", "s", "-1s", "1.5s", "1d", "100000s", "1s1s1s1s1s", "1 s", "1S"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
