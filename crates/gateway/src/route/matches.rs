// SPDX-License-Identifier: Apache-2.0
//! What requests must be like, and which match precedes which.

use k8s::gateway::{GrpcMatch, GrpcMethodMatch, HttpMatch, NamedMatch, PathMatch};
use l7::{Precedence, RouteMatch, ValueMatch, syntax};

/// Which match it is: of which route, made when, at which place of it.
pub(super) struct Origin<'a> {
    pub(super) created: i64,
    /// Namespace and name of the route.
    pub(super) source: &'a std::sync::Arc<str>,
}

impl Origin<'_> {
    fn precedence(&self, specificity: [u32; 5]) -> Precedence {
        // The place is known when all matches of the route are.
        Precedence { specificity, created: self.created, source: std::sync::Arc::clone(self.source), place: 0 }
    }
}

/// The match of an HTTPRoute: exact paths first, then expressions, then prefixes by length; with a method before without; then by the
/// number of headers and of parameters.
pub(super) fn http(origin: &Origin<'_>, asked: &HttpMatch) -> Result<RouteMatch, String> {
    let path = path(asked.path.as_ref().unwrap_or(&PathMatch::default()))?;
    let (kind, length) = match &path {
        l7::PathMatch::Exact(_) => (0, 0),
        l7::PathMatch::Regex(_) => (1, 0),
        l7::PathMatch::Start(prefix) | l7::PathMatch::Prefix(prefix) => (2, prefix.trim_end_matches('/').len()),
    };
    let headers = named("headers", &asked.headers, str::eq_ignore_ascii_case)?;
    let query = named("queryParams", &asked.query_params, str::eq)?;
    let method = asked.method.clone().filter(|method| !method.is_empty());
    let specificity = [kind, most(length), u32::from(method.is_none()), most(headers.len()), most(query.len())];
    Ok(RouteMatch { precedence: origin.precedence(specificity), path, method, headers, query })
}

/// The match of a GRPCRoute: by the length of the service, then of the method, then by the number of headers.
pub(super) fn grpc(origin: &Origin<'_>, asked: &GrpcMatch) -> Result<RouteMatch, String> {
    let any = GrpcMethodMatch::default();
    let method = asked.method.as_ref().unwrap_or(&any);
    let (service, name) = (text(method.service.as_deref()), text(method.method.as_deref()));
    let path = call(method, service, name)?;
    let headers = named("headers", &asked.headers, str::eq_ignore_ascii_case)?;
    let length = |text: Option<&str>| most(text.map_or(0, str::len));
    let specificity = [0, length(service), length(name), most(headers.len()), 0];
    Ok(RouteMatch { precedence: origin.precedence(specificity), path, headers, ..RouteMatch::default() })
}

/// The more, the earlier.
fn most(count: usize) -> u32 {
    u32::MAX - u32::try_from(count).unwrap_or(u32::MAX)
}

fn text(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn path(asked: &PathMatch) -> Result<l7::PathMatch, String> {
    let value = asked.value.clone().unwrap_or_else(|| "/".to_owned());
    let absolute = |value: String| {
        if value.starts_with('/') { Ok(value) } else { Err(format!("path {value:?} does not begin with a slash")) }
    };
    match asked.kind.as_deref().unwrap_or("PathPrefix") {
        "Exact" => absolute(value).map(l7::PathMatch::Exact),
        "PathPrefix" => absolute(value).map(l7::PathMatch::Prefix),
        "RegularExpression" => expression("path", &value).map(l7::PathMatch::Regex),
        other => Err(format!("path.type {other:?} is not supported")),
    }
}

/// The path of a gRPC call.
fn call(asked: &GrpcMethodMatch, service: Option<&str>, method: Option<&str>) -> Result<l7::PathMatch, String> {
    let exact = match asked.kind.as_deref().unwrap_or("Exact") {
        "Exact" => true,
        "RegularExpression" => false,
        other => return Err(format!("method.type {other:?} is not supported")),
    };
    Ok(match (service, method) {
        (None, None) => l7::PathMatch::default(),
        (Some(service), Some(method)) if exact => l7::PathMatch::Exact(format!("/{service}/{method}")),
        (Some(service), None) if exact => l7::PathMatch::Prefix(format!("/{service}")),
        (None, Some(method)) if exact => l7::PathMatch::Regex(format!("/[^/]+/{}", regex::escape(method))),
        _ => {
            let part = |part: Option<&str>| part.map_or_else(|| "[^/]+".to_owned(), |part| format!("(?:{part})"));
            let expression = format!("/{}/{}", part(service), part(method));
            l7::PathMatch::Regex(self::expression("method", &expression)?)
        }
    })
}

/// Names with what their values must be like. Of equal names the first counts.
fn named(
    field: &str,
    asked: &[NamedMatch],
    same: impl Fn(&str, &str) -> bool,
) -> Result<Vec<(String, ValueMatch)>, String> {
    let mut named: Vec<(String, ValueMatch)> = Vec::new();
    for entry in asked {
        if named.iter().any(|(name, _)| same(name, &entry.name)) {
            continue;
        }
        if field == "headers" {
            syntax::header_name(&entry.name)?;
        }
        let value = match entry.kind.as_deref().unwrap_or("Exact") {
            "Exact" => ValueMatch::Exact(entry.value.clone()),
            "RegularExpression" => ValueMatch::Regex(expression(field, &entry.value)?),
            other => return Err(format!("{field}.type {other:?} is not supported")),
        };
        named.push((entry.name.clone(), value));
    }
    Ok(named)
}

fn expression(field: &str, text: &str) -> Result<String, String> {
    syntax::expression(text).map(|_| text.to_owned()).map_err(|reason| format!("{field}: {reason}"))
}
