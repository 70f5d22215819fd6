// SPDX-License-Identifier: Apache-2.0
//! Parsing object fields, shared by features. The API server validates most of them, but not on every path; invalid
//! ones are reported by field.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A field of an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}", self.reason())]
pub struct FieldError {
    field: &'static str,
    value: String,
    want: &'static str,
}

impl FieldError {
    /// The field's path within the object, its value, and what would be accepted.
    pub fn new(field: &'static str, value: impl ToString, want: &'static str) -> Self {
        Self { field, value: value.to_string(), want }
    }

    /// The field's path within the object.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{:?} is not {}", self.value, self.want)
    }
}

/// An address, each of which can be written in many ways, that of IPv4 in the form of IPv6 too.
#[must_use]
pub fn canonical_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// An address, by [`canonical_address`].
///
/// # Errors
///
/// The text is none.
pub fn address(field: &'static str, text: &str) -> Result<IpAddr, FieldError> {
    canonical_address(text).ok_or_else(|| FieldError::new(field, text, "an IP address"))
}

/// A prefix; host bits are cleared. One of IPv4 in the form of IPv6 is one of IPv4.
///
/// # Errors
///
/// The text is none.
pub fn prefix(field: &'static str, text: &str) -> Result<IpNet, FieldError> {
    let prefix: IpNet = text.parse().map_err(|_| FieldError::new(field, text, "a prefix such as 10.0.0.0/24"))?;
    let mapped = match prefix.trunc() {
        IpNet::V6(prefix) => prefix.network().to_ipv4_mapped().zip(prefix.prefix_len().checked_sub(MAPPED)),
        IpNet::V4(_) => None,
    };
    let mapped = mapped.and_then(|(network, length)| Ipv4Net::new(network, length).ok());
    Ok(mapped.map_or(prefix, IpNet::V4).trunc())
}

/// How many bits come before an address of IPv4 in the form of IPv6.
const MAPPED: u8 = 96;

/// A port of a transport protocol.
///
/// # Errors
///
/// The number is out of range.
pub fn port(field: &'static str, value: i32) -> Result<u16, FieldError> {
    let port = u16::try_from(value).ok().filter(|port| *port != 0);
    port.ok_or_else(|| FieldError::new(field, value, "a port from 1 to 65535"))
}

/// A transport protocol; TCP if none is given, as everywhere in the API.
///
/// # Errors
///
/// The text is none.
pub fn protocol<P: FromStr>(field: &'static str, text: Option<&str>) -> Result<P, FieldError> {
    let text = text.unwrap_or("TCP");
    text.parse().map_err(|_| FieldError::new(field, text, "TCP, UDP or SCTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_by_its_field() {
        let error = |outcome: Result<(), FieldError>| outcome.unwrap_err().to_string();
        assert_eq!(error(address("spec.ip", "10.0.0").map(drop)), "spec.ip: \"10.0.0\" is not an IP address");
        assert_eq!(error(port("ports.port", 0).map(drop)), "ports.port: \"0\" is not a port from 1 to 65535");
        assert!(error(prefix("cidr", "10.0.0.0/33").map(drop)).starts_with("cidr: \"10.0.0.0/33\" is not a prefix"));
        assert_eq!(prefix("cidr", "10.0.0.7/24").unwrap().to_string(), "10.0.0.0/24");
    }

    #[test]
    fn what_is_of_ipv4_is_so_in_the_form_of_ipv6_too() {
        let read = |text| address("ip", text).unwrap().to_string();
        assert_eq!(
            ["::ffff:192.0.2.1", "::ffff:c000:201", "2001:DB8::1"].map(read),
            ["192.0.2.1", "192.0.2.1", "2001:db8::1"]
        );
        let read = |text| prefix("cidr", text).unwrap().to_string();
        let texts =
            ["::ffff:10.0.0.7/120", "::ffff:10.0.0.7/128", "::ffff:0:0/96", "::ffff:0:0/95", "::/0", "2001:db8::1/64"];
        let expected = ["10.0.0.0/24", "10.0.0.7/32", "0.0.0.0/0", "::fffe:0:0/95", "::/0", "2001:db8::/64"];
        assert_eq!(texts.map(read), expected);
    }
}
