// SPDX-License-Identifier: Apache-2.0
//! What rules and backends change.

use super::Found;
use super::backend::Port;
use crate::cluster;
use crate::verdict::Verdict;
use k8s::gateway::{Cors, Filter, HeaderModifier, PathModifier, RequestMirror, RequestRedirect, UrlRewrite};
use l7::{Filters, HeaderChanges, Mirror, Origin, PathChange, Redirect, Rewrite, Share, syntax};
use std::time::Duration;

/// How long browsers keep the answer to a preflight request if nothing else is asked for.
const PREFLIGHT_SECONDS: i64 = 5;

/// The filters of a rule or of a backend.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) changes: Filters,
    pub(super) redirect: Option<Redirect>,
    pub(super) mirrors: Vec<Mirror>,
    /// A filter of someone else's, which must not be passed over.
    pub(super) foreign: bool,
}

/// What the filters ask for.
///
/// # Errors
///
/// The first that is not supported, or that has a field that cannot be used.
pub(super) fn resolve(found: &mut Found<'_>, filters: &[Filter]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for filter in filters {
        let lacks = || format!("filter {} lacks its field", filter.kind);
        match filter.kind.as_str() {
            "RequestHeaderModifier" => {
                headers(&mut asked.changes.request, filter.request_header_modifier.as_ref().ok_or_else(lacks)?)?;
            }
            "ResponseHeaderModifier" => {
                headers(&mut asked.changes.response, filter.response_header_modifier.as_ref().ok_or_else(lacks)?)?;
            }
            "RequestRedirect" => {
                asked.redirect = Some(redirect(filter.request_redirect.as_ref().ok_or_else(lacks)?)?);
            }
            "URLRewrite" => asked.changes.rewrite = rewrite(filter.url_rewrite.as_ref().ok_or_else(lacks)?)?,
            "RequestMirror" => {
                asked.mirrors.extend(mirror(found, filter.request_mirror.as_ref().ok_or_else(lacks)?)?);
            }
            "CORS" => asked.changes.cors = Some(cors(filter.cors.as_ref().ok_or_else(lacks)?)?),
            "ExtensionRef" => {
                let kind = filter.extension_ref.as_ref().and_then(|reference| reference.kind.as_deref());
                let message = format!("filters of kind {} are not supported", kind.unwrap_or("ExtensionRef"));
                found.missing(Verdict::no("InvalidKind", message));
                asked.foreign = true;
            }
            other => return Err(format!("filter {other:?} is not supported")),
        }
    }
    if asked.redirect.is_some() && asked.changes.rewrite != Rewrite::default() {
        return Err("RequestRedirect and URLRewrite exclude each other".to_owned());
    }
    Ok(asked)
}

fn headers(changes: &mut HeaderChanges, modifier: &HeaderModifier) -> Result<(), String> {
    let pair = |header: &k8s::gateway::Header| {
        syntax::changed_header(&header.name)?;
        syntax::header_value(&header.value)?;
        Ok::<_, String>((header.name.clone(), header.value.clone()))
    };
    for header in &modifier.set {
        changes.set.push(pair(header)?);
    }
    for header in &modifier.add {
        changes.add.push(pair(header)?);
    }
    for name in &modifier.remove {
        syntax::changed_header(name)?;
        changes.remove.push(name.clone());
    }
    Ok(())
}

fn path(modifier: &PathModifier) -> Result<PathChange, String> {
    let lacks = || format!("path.type {} lacks its field", modifier.kind);
    let usable = |path: &Option<String>| syntax::path(path.as_deref().ok_or_else(lacks)?);
    match modifier.kind.as_str() {
        "ReplaceFullPath" => usable(&modifier.replace_full_path).map(PathChange::Full),
        "ReplacePrefixMatch" => usable(&modifier.replace_prefix_match).map(PathChange::Prefix),
        other => Err(format!("path.type {other:?} is not supported")),
    }
}

fn redirect(asked: &RequestRedirect) -> Result<Redirect, String> {
    let status = asked.status_code.unwrap_or(302);
    let status = u16::try_from(status).ok().filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
    if let Some(scheme) = asked.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        return Err(format!("requestRedirect.scheme {scheme:?} is not supported"));
    }
    asked.hostname.as_deref().map(syntax::authority).transpose()?;
    let port =
        asked.port.map(|port| u16::try_from(port).map_err(|_| format!("requestRedirect.port {port} is no port")));
    Ok(Redirect {
        scheme: asked.scheme.clone(),
        host: asked.hostname.clone(),
        path: asked.path.as_ref().map(path).transpose()?,
        port: port.transpose()?,
        status: status.ok_or("requestRedirect.statusCode is not supported")?,
    })
}

fn rewrite(asked: &UrlRewrite) -> Result<Rewrite, String> {
    asked.hostname.as_deref().map(syntax::authority).transpose()?;
    Ok(Rewrite { host: asked.hostname.clone(), path: asked.path.as_ref().map(path).transpose()? })
}

/// The copy; nothing if its backend is not there, which the route's status then says.
fn mirror(found: &mut Found<'_>, asked: &RequestMirror) -> Result<Option<Mirror>, String> {
    let share = match (asked.percent, &asked.fraction) {
        (Some(percent), _) => share(percent, 100),
        (None, Some(fraction)) => share(fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, None) => Some(Share::ALL),
    };
    let share = share.ok_or("requestMirror: the share is out of range")?;
    let port: Option<Port> = found.port(&asked.backend_ref);
    Ok(port.map(|port| Mirror { cluster: cluster::name(&port, cluster::Use::Requests, None), share }))
}

fn share(numerator: i64, denominator: i64) -> Option<Share> {
    let share = Share { numerator: u32::try_from(numerator).ok()?, denominator: u32::try_from(denominator).ok()? };
    (share.denominator > 0 && share.numerator <= share.denominator).then_some(share)
}

fn cors(asked: &Cors) -> Result<l7::Cors, String> {
    let seconds = asked.max_age.filter(|seconds| *seconds != 0).unwrap_or(PREFLIGHT_SECONDS);
    let seconds = u64::try_from(seconds).map_err(|_| format!("cors.maxAge {seconds} is negative"))?;
    for list in [&asked.allow_methods, &asked.allow_headers, &asked.expose_headers] {
        syntax::header_value(&list.join(", "))?;
    }
    let origin = |text: &String| match text.as_str() {
        "*" => Ok(Origin::Any),
        _ => syntax::origin(text).map(|_| Origin::Of(text.to_ascii_lowercase())),
    };
    Ok(l7::Cors {
        origins: asked.allow_origins.iter().map(origin).collect::<Result<_, _>>()?,
        methods: asked.allow_methods.clone(),
        allow_headers: asked.allow_headers.clone(),
        expose_headers: asked.expose_headers.clone(),
        credentials: asked.allow_credentials.unwrap_or_default(),
        max_age: Some(Duration::from_secs(seconds)),
    })
}
