// SPDX-License-Identifier: Apache-2.0
//! Durations as Gateway API writes them (GEP-2257): up to four numbers of up to five digits, each with `h`, `m`, `s` or `ms`.

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

#[cfg(test)]
mod tests {
    use super::*;

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
