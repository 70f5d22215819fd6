// SPDX-License-Identifier: Apache-2.0
//! Objects of the API as JSON: selectors, prefixes and lists.

use serde_json::Value;
use std::net::IpAddr;

/// How the keys of a selector are written.
pub(super) enum Key {
    /// `source:key`; without a source, or with `any`, of any.
    Source,
    /// Labels of pods.
    Pod,
    /// Labels of namespaces.
    Namespace,
    /// Of any source.
    Plain,
}

impl Key {
    fn split(&self, key: &str) -> (String, String) {
        let (source, key) = match (self, key.split_once(':')) {
            (Self::Source, Some((source, key))) => (source, key.to_owned()),
            (Self::Source, None) | (Self::Plain, _) => ("any", key.to_owned()),
            (Self::Pod, _) => ("k8s", key.to_owned()),
            (Self::Namespace, _) => ("k8s", format!("{}{key}", super::NAMESPACE_LABELS)),
        };
        (source.to_owned(), key)
    }
}

/// The elements of a list; none if there is no list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text or number as text; empty if it is absent.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.as_u64().map(|n| n.to_string()).unwrap_or_default(), str::to_owned)
}

/// What a selector asks for: a source and a key each.
pub(super) fn keys(selector: &Value, how: &Key) -> Vec<(String, String)> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten().map(|(key, _)| how.split(key));
    labels.chain(list(&selector["matchExpressions"]).iter().map(|e| how.split(e["key"].as_str().unwrap()))).collect()
}

/// Whether a selector selects who has these labels.
pub(super) fn selects(selector: &Value, how: &Key, labels: &[super::Label]) -> bool {
    let values = |key: &str| -> Vec<&str> {
        let (source, key) = how.split(key);
        let is = |label: &&super::Label| (source == "any" || label.0 == source) && label.1 == key;
        labels.iter().filter(is).map(|label| label.2.as_str()).collect()
    };
    let expression = |e: &Value| {
        let (there, wanted) = (values(e["key"].as_str().unwrap()), list(&e["values"]));
        let listed = wanted.iter().any(|value| there.contains(&value.as_str().unwrap()));
        match e["operator"].as_str().unwrap() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => !there.is_empty(),
            "DoesNotExist" => there.is_empty(),
            other => panic!("{other}"),
        }
    };
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    equal.all(|(key, value)| values(key).contains(&value.as_str().unwrap()))
        && list(&selector["matchExpressions"]).iter().all(expression)
}

/// Whether an address lies in a prefix, or is it.
pub(super) fn contains(cidr: &str, ip: IpAddr) -> bool {
    let (address, length) = cidr.split_once('/').map_or((cidr, None), |(a, l)| (a, Some(l.parse::<u32>().unwrap())));
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((prefix, width), (ip, of_ip)) = (bits(address.parse().unwrap()), bits(ip));
    let rest = width - length.unwrap_or(width);
    width == of_ip && (rest == 128 || prefix >> rest == ip >> rest)
}
