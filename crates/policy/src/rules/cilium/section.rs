// SPDX-License-Identifier: Apache-2.0
//! The four sections of a rule: `ingress`, `ingressDeny`, `egress`, `egressDeny`.

use super::super::{
    Direction, Effect, GroupSelector, Groups, Keys, L4, NonEmpty, Peer, Peers, Problem, Selector, Statement,
    parse_cidr_with, parse_except, ports,
};
use super::{Scope, raw};
use k8s::cilium as api;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::LabelSource;

/// Collects the statements of a rule, and what cannot become one.
pub(super) struct Section<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) path: &'a str,
    pub(super) statements: Vec<Statement>,
    pub(super) problems: &'a mut Vec<Problem>,
}

/// What ingress and egress elements have in common.
struct Element<'a> {
    origin: String,
    direction: Direction,
    effect: Effect,
    endpoints: Option<&'a [LabelSelector]>,
    cidrs: Option<&'a [String]>,
    cidr_sets: Option<&'a [api::CIDRRule]>,
    entities: Option<&'a [String]>,
    /// Non-empty peer fields that we cannot resolve.
    unknown: Vec<&'static str>,
    /// Whether one of these fields is present but empty: it selects nobody.
    unknown_empty: bool,
    ports: &'a [api::PortRule],
    icmps: &'a [api::ICMPRule],
    authentication: Option<&'a api::Authentication>,
}

/// Among the fields we cannot resolve: those that name peers, and whether one is present that names nobody.
fn unknown<const N: usize>(fields: [(&'static str, Option<usize>); N]) -> (Vec<&'static str>, bool) {
    let naming = fields.iter().filter(|(_, len)| len.is_some_and(|len| len > 0)).map(|(field, _)| *field).collect();
    // The two `Requires` must be empty: there, an empty list says nothing.
    let empty = fields.iter().any(|(field, len)| *len == Some(0) && !field.ends_with("Requires"));
    (naming, empty)
}

fn len<T>(list: Option<&Vec<T>>) -> Option<usize> {
    list.map(Vec::len)
}

impl Section<'_> {
    pub(super) fn ingest(&mut self, spec: &api::Rule) -> Result<(), Problem> {
        let ingress = [("ingress", Effect::Allow, &spec.ingress), ("ingressDeny", Effect::Deny, &spec.ingress_deny)];
        for (name, effect, list) in ingress {
            for (index, rule) in list.iter().flatten().enumerate() {
                self.element(&from_ingress(format!("{name}[{index}]"), effect, rule))?;
            }
        }
        let egress = [("egress", Effect::Allow, &spec.egress), ("egressDeny", Effect::Deny, &spec.egress_deny)];
        for (name, effect, list) in egress {
            for (index, rule) in list.iter().flatten().enumerate() {
                self.element(&from_egress(format!("{name}[{index}]"), effect, rule))?;
            }
        }
        Ok(())
    }

    fn element(&mut self, element: &Element<'_>) -> Result<(), Problem> {
        let before = self.problems.len();
        let mut peers = self.peers(element)?;
        let between = self.problems.len();
        let mut ports = self.ports(element)?;
        // A deny that is not fully understood denies more rather than less.
        if element.effect == Effect::Deny && between > before {
            peers = Some(Peers::Any);
        }
        if element.effect == Effect::Deny && self.problems.len() > between {
            ports = Some(None);
        }
        if let Some(authentication) = element.authentication.filter(|a| a.mode != "disabled") {
            let reason = format!("mutual authentication ({}) is not supported yet", authentication.mode);
            self.problem(element, "authentication", &reason);
            return Ok(());
        }
        let (Some(peers), Some(ports)) = (peers, ports) else { return Ok(()) };
        let origin =
            if self.path == "spec" { element.origin.clone() } else { format!("{}.{}", self.path, element.origin) };
        let (direction, effect) = (element.direction, element.effect);
        self.statements.push(Statement { direction, effect, peers, ports, origin });
        Ok(())
    }

    /// The peers, or `None` when there are none.
    fn peers(&mut self, element: &Element<'_>) -> Result<Option<Peers>, Problem> {
        for field in &element.unknown {
            self.problem(element, field, "is not supported yet");
        }
        if !element.unknown.is_empty() {
            return Ok(None);
        }
        let given = [
            element.endpoints.is_some(),
            element.cidrs.is_some(),
            element.cidr_sets.is_some(),
            element.entities.is_some(),
            element.unknown_empty,
        ];
        if given == [false; 5] {
            // An empty element selects nobody; one with only ports selects anybody.
            let about_ports = !element.ports.is_empty() || !element.icmps.is_empty();
            return Ok(about_ports.then_some(Peers::Any));
        }
        let side = if element.direction == Direction::Ingress { "from" } else { "to" };
        let field = |kind: &str| format!("{side}{kind}");
        let (mut all, mut any) = (Vec::new(), false);
        for selector in element.endpoints.unwrap_or_default() {
            match self.scope.peer(selector) {
                Ok(Selector::Everything) => any = true,
                Ok(selector) => all.push(Peer::Labels(selector)),
                // A label source that we do not have, but others may.
                Err(reason) => self.problem(element, &field("Endpoints"), &reason),
            }
        }
        for text in element.cidrs.unwrap_or_default() {
            all.push(Peer::Cidr(
                parse_cidr_with(text, &[]).map_err(|reason| self.invalid(element, &field("CIDR"), reason))?,
            ));
        }
        for rule in element.cidr_sets.unwrap_or_default() {
            all.push(cidr_set(rule).map_err(|reason| self.invalid(element, &field("CIDRSet"), reason))?);
        }
        for name in element.entities.unwrap_or_default() {
            match self.entity(name).map_err(|reason| self.invalid(element, &field("Entities"), reason))? {
                None => any = true,
                Some(selectors) => all.extend(selectors.into_iter().map(Peer::Labels)),
            }
        }
        Ok(if any { Some(Peers::Any) } else { NonEmpty::new(all).map(|all| Peers::Some(all.sorted())) })
    }

    /// The selectors behind an entity; `None` for everything.
    fn entity(&self, name: &str) -> Result<Option<Vec<Selector>>, String> {
        let reserved = |names: &[&'static str]| names.iter().map(|name| Selector::reserved(name)).collect::<Vec<_>>();
        Ok(Some(match name {
            "all" => return Ok(None),
            "none" => Vec::new(),
            "world" => reserved(&["world", "world-ipv4", "world-ipv6"]),
            "world-ipv4" => reserved(&["world-ipv4"]),
            "world-ipv6" => reserved(&["world-ipv6"]),
            "host" => reserved(&["host"]),
            "init" => reserved(&["init"]),
            "ingress" => reserved(&["ingress"]),
            "unmanaged" => reserved(&["unmanaged"]),
            "remote-node" => reserved(&["remote-node"]),
            "health" => reserved(&["health"]),
            "kube-apiserver" => reserved(&["kube-apiserver"]),
            // API servers belong to it wherever they run.
            "cluster" => {
                let mut all =
                    reserved(&["host", "remote-node", "init", "ingress", "unmanaged", "health", "kube-apiserver"]);
                let cluster = self.scope.context.cluster.clone();
                let ours = super::Requirement::equals(LabelSource::K8s, crate::labels::CLUSTER, cluster);
                all.push(Selector::all_of(vec![ours]));
                all
            }
            other => return Err(format!("{other:?} is not an entity")),
        }))
    }

    /// The ports, with `Some(None)` for all traffic, or `None` when there are none.
    fn ports(&mut self, element: &Element<'_>) -> Result<Option<Option<NonEmpty<L4>>>, Problem> {
        if element.ports.is_empty() && element.icmps.is_empty() {
            return Ok(Some(None));
        }
        let mut all = Vec::new();
        for (index, rule) in element.ports.iter().enumerate() {
            self.port_rule(element, index, rule, &mut all)?;
        }
        for field in element.icmps.iter().flat_map(|rule| rule.fields.iter().flatten()) {
            let kind = match &field.icmp_type {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name.clone(),
            };
            let icmp = ports::parse_icmp(field.family.as_deref(), &kind);
            all.push(icmp.map_err(|reason| self.invalid(element, "icmps", reason))?);
        }
        Ok(ports::collect(all).map(Some))
    }

    fn port_rule(
        &mut self,
        element: &Element<'_>,
        index: usize,
        rule: &api::PortRule,
        all: &mut Vec<L4>,
    ) -> Result<(), Problem> {
        let l7 = rule.rules.as_ref().is_some_and(|rules| *rules != api::L7Rules::default());
        let beyond = [
            ("rules", l7),
            ("listener", rule.listener.is_some()),
            ("serverNames", rule.server_names.is_some()),
            ("terminatingTLS", rule.terminating_tls.is_some()),
            ("originatingTLS", rule.originating_tls.is_some()),
        ];
        let mut supported = true;
        for (field, _) in beyond.into_iter().filter(|(_, given)| *given) {
            self.problem(element, &format!("toPorts[{index}].{field}"), "is not supported yet");
            supported = false;
        }
        let ports = rule.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            self.problem(element, &format!("toPorts[{index}].ports"), "it is missing");
        }
        for (number, port) in ports.iter().enumerate() {
            let field = format!("toPorts[{index}].ports[{number}]");
            if let Some(protocol) = port.protocol.as_deref().filter(|p| matches!(*p, "VRRP" | "IGMP")) {
                self.problem(element, &format!("{field}.protocol"), &format!("{protocol} is not supported yet"));
                continue;
            }
            let end = port.end_port.map(i64::from);
            let raw = ports::RawPort { port: port.port.clone(), end, protocol: port.protocol.clone() };
            let ports = raw.parse(self.scope.context).map_err(|reason| self.invalid(element, &field, reason))?;
            all.extend(ports.into_iter().filter(|_| supported));
        }
        Ok(())
    }

    fn invalid(&self, element: &Element<'_>, field: &str, reason: String) -> Problem {
        Problem { field: format!("{}.{}.{field}", self.path, element.origin), reason }
    }

    fn problem(&mut self, element: &Element<'_>, field: &str, reason: &str) {
        let instead = match element.effect {
            Effect::Allow => "it allows nothing",
            Effect::Deny => "more is denied instead: what of it is not understood counts as any",
        };
        let problem = self.invalid(element, field, format!("{reason}; {instead}"));
        self.problems.push(problem);
    }
}

fn cidr_set(rule: &api::CIDRRule) -> Result<Peer, String> {
    let except = rule.except.as_deref().unwrap_or_default();
    let groups = match (&rule.cidr, &rule.cidr_group_ref, &rule.cidr_group_selector) {
        (Some(cidr), None, None) => return parse_cidr_with(cidr, except).map(Peer::Cidr),
        (None, Some(name), None) => Groups::Named(name.as_str().into()),
        (None, None, Some(selector)) => Groups::Labelled(Selector::all_of(raw(selector).requirements(Keys::Plain)?)),
        _ => return Err("it needs exactly one of cidr, cidrGroupRef and cidrGroupSelector".to_owned()),
    };
    let mut except = parse_except(except)?;
    except.sort();
    Ok(Peer::Group(GroupSelector { groups, except }))
}

fn from_ingress(origin: String, effect: Effect, rule: &api::IngressRule) -> Element<'_> {
    let (unknown, unknown_empty) = unknown([
        ("fromNodes", len(rule.from_nodes.as_ref())),
        ("fromGroups", len(rule.from_groups.as_ref())),
        ("fromRequires", len(rule.from_requires.as_ref())),
    ]);
    Element {
        origin,
        direction: Direction::Ingress,
        effect,
        endpoints: rule.from_endpoints.as_deref(),
        cidrs: rule.from_cidr.as_deref(),
        cidr_sets: rule.from_cidr_set.as_deref(),
        entities: rule.from_entities.as_deref(),
        unknown,
        unknown_empty,
        ports: rule.to_ports.as_deref().unwrap_or_default(),
        icmps: rule.icmps.as_deref().unwrap_or_default(),
        authentication: rule.authentication.as_ref(),
    }
}

fn from_egress(origin: String, effect: Effect, rule: &api::EgressRule) -> Element<'_> {
    let (unknown, unknown_empty) = unknown([
        ("toNodes", len(rule.to_nodes.as_ref())),
        ("toFQDNs", len(rule.to_fqdns.as_ref())),
        ("toServices", len(rule.to_services.as_ref())),
        ("toGroups", len(rule.to_groups.as_ref())),
        ("toRequires", len(rule.to_requires.as_ref())),
    ]);
    Element {
        origin,
        direction: Direction::Egress,
        effect,
        endpoints: rule.to_endpoints.as_deref(),
        cidrs: rule.to_cidr.as_deref(),
        cidr_sets: rule.to_cidr_set.as_deref(),
        entities: rule.to_entities.as_deref(),
        unknown,
        unknown_empty,
        ports: rule.to_ports.as_deref().unwrap_or_default(),
        icmps: rule.icmps.as_deref().unwrap_or_default(),
        authentication: rule.authentication.as_ref(),
    }
}
