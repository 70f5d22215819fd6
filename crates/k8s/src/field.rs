// SPDX-License-Identifier: Apache-2.0
//! Parsing object fields, shared by features. The API server validates most of them, but not on every path; invalid
//! ones are reported by field.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

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

/// An address.
///
/// # Errors
///
/// The text is none.
pub fn address(field: &'static str, text: &str) -> Result<IpAddr, FieldError> {
    text.parse().map_err(|_| FieldError::new(field, text, "an IP address"))
}

/// A prefix; host bits are cleared.
///
/// # Errors
///
/// The text is none.
pub fn prefix(field: &'static str, text: &str) -> Result<IpNet, FieldError> {
    let parsed = text.parse().map_err(|_| FieldError::new(field, text, "a prefix such as 10.0.0.0/24"));
    parsed.map(|prefix: IpNet| prefix.trunc())
}

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
}
