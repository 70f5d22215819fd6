// SPDX-License-Identifier: Apache-2.0
//! Who is meant: selectors, prefixes, entities and names.

use super::{FieldPath, Report};
use crate::cilium::{Authentication, CIDRRule, FQDNSelector};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::net::IpAddr;

/// Entities that a rule may name.
const ENTITIES: &[&str] = &[
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
];

pub(super) fn list(report: &mut Report, at: &FieldPath, name: &str, selectors: Option<&[LabelSelector]>) {
    for (i, selector) in selectors.unwrap_or_default().iter().enumerate() {
        labels(report, &at.item(name, i), selector);
    }
}

pub(super) fn labels(report: &mut Report, at: &FieldPath, selector: &LabelSelector) {
    for (key, value) in selector.match_labels.iter().flatten() {
        let at = at.field(&format!("matchLabels[{key}]"));
        if key.is_empty() {
            report.add(&at, "a label has a key");
        }
        if !is_label_value(value) {
            report.add(&at, format!("{value:?} is not a label value"));
        }
    }
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let at = at.item("matchExpressions", i);
        let values = requirement.values.as_deref().unwrap_or_default();
        if requirement.key.is_empty() {
            report.add(&at.field("key"), "a label has a key");
        }
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                report.add(&at.field("values"), format!("{} needs at least one value", requirement.operator));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                report.add(&at.field("values"), format!("{} takes no values", requirement.operator));
            }
            "Exists" | "DoesNotExist" => {}
            other => {
                report.add(&at.field("operator"), format!("{other:?} is none of In, NotIn, Exists, DoesNotExist"));
            }
        }
    }
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(value.chars().next())
        && edge(value.chars().next_back())
}

pub(super) fn cidrs(report: &mut Report, at: &FieldPath, name: &str, cidrs: Option<&[String]>) {
    for (i, cidr) in cidrs.unwrap_or_default().iter().enumerate() {
        if cidr.parse::<IpNet>().is_err() && cidr.parse::<IpAddr>().is_err() {
            report.add(&at.item(name, i), format!("{cidr:?} is neither a prefix nor an address"));
        }
    }
}

pub(super) fn cidr_rules(report: &mut Report, at: &FieldPath, name: &str, rules: Option<&[CIDRRule]>) {
    for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
        cidr_rule(report, &at.item(name, i), rule);
    }
}

fn cidr_rule(report: &mut Report, at: &FieldPath, rule: &CIDRRule) {
    let given =
        [rule.cidr.is_some(), rule.cidr_group_ref.is_some(), rule.cidr_group_selector.is_some()].map(usize::from);
    if given.iter().sum::<usize>() != 1 {
        report.add(at, "exactly one of cidr, cidrGroupRef and cidrGroupSelector is required");
    }
    if let Some(selector) = &rule.cidr_group_selector {
        labels(report, &at.field("cidrGroupSelector"), selector);
    }
    let within = rule.cidr.as_ref().and_then(|cidr| match cidr.parse::<IpNet>() {
        Ok(prefix) => Some(prefix),
        Err(_) => {
            report.add(&at.field("cidr"), format!("{cidr:?} is not a prefix"));
            None
        }
    });
    for (i, except) in rule.except.iter().flatten().enumerate() {
        let at = at.item("except", i);
        match (except.parse::<IpNet>(), within) {
            (Err(_), _) => report.add(&at, format!("{except:?} is not a prefix")),
            (Ok(except), Some(within)) if !within.contains(&except) => {
                report.add(&at, format!("{except} is not within {within}"));
            }
            _ => {}
        }
    }
}

pub(super) fn entities(report: &mut Report, at: &FieldPath, name: &str, entities: Option<&[String]>) {
    for (i, entity) in entities.unwrap_or_default().iter().enumerate() {
        if !ENTITIES.contains(&entity.as_str()) {
            report.add(&at.item(name, i), format!("{entity:?} is none of {}", ENTITIES.join(", ")));
        }
    }
}

pub(super) fn fqdns(report: &mut Report, at: &FieldPath, name: &str, selectors: Option<&[FQDNSelector]>) {
    for (i, selector) in selectors.unwrap_or_default().iter().enumerate() {
        let at = at.item(name, i);
        match (&selector.match_name, &selector.match_pattern) {
            (Some(name), None) => dns_name(report, &at.field("matchName"), name, false),
            (None, Some(pattern)) => dns_name(report, &at.field("matchPattern"), pattern, true),
            _ => report.add(&at, "exactly one of matchName and matchPattern is required"),
        }
    }
}

fn dns_name(report: &mut Report, at: &FieldPath, name: &str, pattern: bool) {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || (pattern && c == '*');
        !part.is_empty() && part.chars().all(allowed)
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 255 || !bare.split('.').all(part) {
        report.add(at, format!("{name:?} is not a DNS {}", if pattern { "pattern" } else { "name" }));
    }
}

pub(super) fn authentication(report: &mut Report, at: &FieldPath, authentication: Option<&Authentication>, deny: bool) {
    let Some(authentication) = authentication else { return };
    let at = at.field("authentication");
    if deny {
        report.add(&at, "is not possible in a deny rule");
    }
    if !matches!(authentication.mode.as_str(), "disabled" | "required" | "test-always-fail") {
        let mode = &authentication.mode;
        report.add(&at.field("mode"), format!("{mode:?} is none of disabled, required, test-always-fail"));
    }
}
