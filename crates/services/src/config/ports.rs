// SPDX-License-Identifier: Apache-2.0
//! Ports, as keys have them.

use model::config::{Accepts, Form, Value};

/// The first and the last of some ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// Whether the port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl Value for PortRange {
    fn form() -> Form {
        Form::new("two ports such as 30000-32767", Accepts::Pattern("^[1-9][0-9]{0,4}[-,][1-9][0-9]{0,4}$"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once(['-', ','])?;
        let (first, last) = in_order(first, last)?;
        Some(Self { first, last })
    }
}

/// One port, or all from the first to the last, or with 0 none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Whether the port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// 0, or one or two numbers from 1 to 65535.
const PORTS: &str = concat!(
    "^(0|([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])",
    "(-([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?)$",
);

impl Value for Ports {
    fn form() -> Form {
        Form::new("a port, two such as 8000-8999, or 0 for none", Accepts::Pattern(PORTS))
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::default());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = in_order(first, last)?;
        Some(Self { first, last })
    }
}

/// Two ports of which the first is not above the last.
fn in_order(first: &str, last: &str) -> Option<(u16, u16)> {
    Some((port(first)?, port(last)?)).filter(|(first, last)| first <= last)
}

/// A port in plain digits, as the chart takes it.
fn port(text: &str) -> Option<u16> {
    text.starts_with(|first| ('1'..='9').contains(&first)).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_are_in_order_and_one_is_enough_only_where_it_stands_for_itself() {
        for (text, range) in [
            ("30000-32767", Some((30000, 32767))),
            ("30000,32767", Some((30000, 32767))),
            ("30000-30000", Some((30000, 30000))),
            ("1-2", Some((1, 2))),
            ("0-2", None),
            ("+1-2", None),
            ("30001-30000", None),
            ("30000", None),
            ("30000-70000", None),
        ] {
            assert_eq!(PortRange::parse(text), range.map(|(first, last)| PortRange { first, last }), "{text}");
        }
        for (text, range) in [
            ("80", Some((80, 80))),
            ("1-65535", Some((1, 65535))),
            ("80-80", Some((80, 80))),
            ("0", Some((0, 0))),
            ("0-1", None),
            ("81-80", None),
            ("+80", None),
            ("080", None),
            ("80-", None),
            ("65536", None),
        ] {
            assert_eq!(Ports::parse(text), range.map(|(first, last)| Ports { first, last }), "{text}");
        }
    }
}
