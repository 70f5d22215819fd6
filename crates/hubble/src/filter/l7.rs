// SPDX-License-Identifier: Apache-2.0
//! Filters on application protocols, and on the name of any protocol.

use super::text::regex;
use super::{By, FilterError, Tests};
use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::layer7::Record;
use crate::proto::flow::{Dns, Flow, FlowFilter, Http, HttpHeader};
use regex::Regex;

/// The name of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Tcp,
    Udp,
    Icmp,
    Icmp4,
    Icmp6,
    Sctp,
    Vrrp,
    Igmp,
    Dns,
    Http,
    Kafka,
}

pub(super) fn protocol(text: &str) -> Result<Name, FilterError> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "tcp" => Name::Tcp,
        "udp" => Name::Udp,
        "icmp" => Name::Icmp,
        "icmpv4" => Name::Icmp4,
        "icmpv6" => Name::Icmp6,
        "sctp" => Name::Sctp,
        "vrrp" => Name::Vrrp,
        "igmp" => Name::Igmp,
        "dns" => Name::Dns,
        "http" => Name::Http,
        "kafka" => Name::Kafka,
        _ => {
            let want = "one of tcp, udp, icmp, icmpv4, icmpv6, sctp, vrrp, igmp, dns, http, kafka";
            return Err(FilterError { field: "protocol", value: text.to_owned(), want });
        }
    })
}

impl Name {
    pub(super) fn fits(self, flow: &Flow) -> bool {
        let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
        match self {
            Self::Tcp => matches!(l4, Some(Protocol::Tcp(_))),
            Self::Udp => matches!(l4, Some(Protocol::Udp(_))),
            Self::Icmp => matches!(l4, Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_))),
            Self::Icmp4 => matches!(l4, Some(Protocol::IcmPv4(_))),
            Self::Icmp6 => matches!(l4, Some(Protocol::IcmPv6(_))),
            Self::Sctp => matches!(l4, Some(Protocol::Sctp(_))),
            Self::Vrrp => matches!(l4, Some(Protocol::Vrrp(_))),
            Self::Igmp => matches!(l4, Some(Protocol::Igmp(_))),
            Self::Dns => dns(flow).is_some(),
            Self::Http => http(flow).is_some(),
            Self::Kafka => matches!(record(flow), Some(Record::Kafka(_))),
        }
    }
}

/// Adds the tests of the application fields.
pub(super) fn add(tests: &mut Tests, filter: &FlowFilter) -> Result<(), FilterError> {
    let pattern = |field| move |text: &String| regex(field, text);
    let query = By::new(|f: &Flow, r: &Regex| dns(f).is_some_and(|d| r.is_match(&d.query)));
    tests.any(&filter.dns_query, pattern("dns_query"), query)?;
    let path = By::new(|f: &Flow, r: &Regex| http(f).is_some_and(|h| r.is_match(path(&h.url))));
    tests.any(&filter.http_path, pattern("http_path"), path)?;
    let url = By::new(|f: &Flow, r: &Regex| http(f).is_some_and(|h| r.is_match(&h.url)));
    tests.any(&filter.http_url, pattern("http_url"), url)?;
    let method = By::new(|f: &Flow, m: &String| http(f).is_some_and(|h| h.method.eq_ignore_ascii_case(m)));
    tests.any(&filter.http_method, |m| Ok(m.clone()), method)?;
    let header = By::new(|f: &Flow, w: &HttpHeader| http(f).is_some_and(|h| h.headers.iter().any(|x| same(x, w))));
    tests.any(&filter.http_header, |h| Ok(h.clone()), header)?;
    let code = By::new(|f: &Flow, s: &Status| http(f).is_some_and(|h| s.fits(h.code)));
    tests.any(&filter.http_status_code, |text| Status::parse(text), code)
}

/// An HTTP status: `404`, or `4+` for all that begin with 4.
struct Status {
    digits: String,
    prefix: bool,
}

impl Status {
    fn parse(text: &str) -> Result<Self, FilterError> {
        let digits = text.strip_suffix('+').unwrap_or(text);
        let prefix = digits.len() < text.len();
        let numeric = digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with(['1', '2', '3', '4', '5']);
        let length = if prefix { (1..3).contains(&digits.len()) } else { digits.len() == 3 };
        if numeric && length {
            return Ok(Self { digits: digits.to_owned(), prefix });
        }
        let want = "a status such as \"404\" or a prefix such as \"4+\"";
        Err(FilterError { field: "http_status_code", value: text.to_owned(), want })
    }

    fn fits(&self, code: u32) -> bool {
        let code = code.to_string();
        if self.prefix { code.starts_with(&self.digits) } else { code == self.digits }
    }
}

fn record(flow: &Flow) -> Option<&Record> {
    flow.l7.as_ref()?.record.as_ref()
}

fn http(flow: &Flow) -> Option<&Http> {
    if let Some(Record::Http(http)) = record(flow) { Some(http) } else { None }
}

fn dns(flow: &Flow) -> Option<&Dns> {
    if let Some(Record::Dns(dns)) = record(flow) { Some(dns) } else { None }
}

/// The path of a URL, without scheme, host and query.
fn path(url: &str) -> &str {
    let rest =
        url.split_once("://").map_or(url, |(_, rest)| rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(""));
    rest.split(['?', '#']).next().unwrap_or(rest)
}

fn same(header: &HttpHeader, wanted: &HttpHeader) -> bool {
    header.key.eq_ignore_ascii_case(&wanted.key) && header.value == wanted.value
}
