// SPDX-License-Identifier: Apache-2.0
//! Where a request would go: the search that requests make, with somebody who looks on.

use super::lists;
use crate::exchange::routed;
use crate::route::{Action, Entry, Lack, Sought, Table};
use crate::serving::{HttpSite, Listening, Served, Serving, TlsSite};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use l7::explain::{AtListener, Explanation, Other, Question, Share, TakenBy};
use l7::{Forward, Target};

/// Routes that do not take the request and are told of.
const OTHERS: usize = 64;

/// A question as requests are.
struct Asked {
    host: String,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    tls: bool,
}

impl Asked {
    fn parse(question: &Question) -> Result<Self, String> {
        let (host, path) = routed(&question.host, &question.path)?;
        let method = question.method.parse().map_err(|_| format!("{:?} is no method", question.method))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &question.headers {
            let header: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
            let value = HeaderValue::from_str(value).map_err(|_| format!("the value of header {name} is malformed"))?;
            headers.append(header, value);
        }
        Ok(Self { host, uri: path.into(), method, headers, tls: question.tls })
    }
}

/// The answer of every listener. The error says what is wrong with the question.
pub(super) fn explain(serving: &Serving, question: &Question) -> Result<Explanation, String> {
    let asked = Asked::parse(question)?;
    let mut listeners: Vec<_> = serving.listeners.values().map(|one| at(serving, one, &asked)).collect();
    listeners.sort_by(|one, other| one.listener.cmp(&other.listener));
    Ok(Explanation { listeners })
}

fn at(serving: &Serving, listening: &Listening, asked: &Asked) -> AtListener {
    let answer = AtListener {
        listener: listening.spec.name.to_string(),
        port: listening.spec.port.unwrap_or(listening.spec.address.port()),
        ..AtListener::default()
    };
    let refused = |why: &str| AtListener { refused: Some(why.to_owned()), ..answer.clone() };
    let bytes = |forward: &Forward, action: &str| AtListener {
        taken_by: Some(forwarded(serving, forward, action)),
        ..answer.clone()
    };
    match (&listening.served, asked.tls) {
        (Served::Http(_), true) => refused("it speaks no TLS"),
        (Served::Udp(_), _) => refused("it takes datagrams"),
        (Served::Tcp(forward) | Served::Service(forward, _), _) => bytes(forward, "forward bytes"),
        (Served::Http(_) | Served::Tls(_), false) => match listening.http_site() {
            Some(site) => in_site(serving, site, asked, answer),
            None => refused("it speaks TLS alone"),
        },
        (Served::Tls(_), true) => match listening.tls_site(&asked.host).map(|site| &**site) {
            None => refused("TLS is not for this host"),
            Some(TlsSite::Refused) => refused("there is nothing to verify clients with"),
            Some(TlsSite::Passthrough(forward)) => bytes(forward, "forward TLS as it is"),
            Some(TlsSite::Tcp(_, forward)) => bytes(forward, "end TLS and forward bytes"),
            Some(TlsSite::Http(_, site, _)) => in_site(serving, site, asked, answer),
        },
    }
}

fn in_site(serving: &Serving, site: &HttpSite, asked: &Asked, answer: AtListener) -> AtListener {
    let Some(table) = serving.table(site, &asked.host, None) else {
        return AtListener { refused: Some("no route is for this host".to_owned()), ..answer };
    };
    let (taken, mut others) = search(table, asked);
    let further = others.len().saturating_sub(OTHERS);
    others.truncate(OTHERS);
    AtListener { taken_by: taken.map(|entry| taken_by(serving, entry)), others, further, ..answer }
}

/// The match that takes the request, and why others do not: those first that are for its path.
fn search<'a>(table: &'a Table, asked: &Asked) -> (Option<&'a Entry>, Vec<Other>) {
    let sought = Sought::new(&asked.method, &asked.uri, &asked.headers);
    let path = sought.path();
    let mut taken: Option<&Entry> = None;
    let mut others = Vec::new();
    for paths in table.candidates(&asked.host) {
        let before = taken;
        let mut passed: Vec<(&Entry, Lack<'_>)> = Vec::new();
        if before.is_none() {
            taken = paths.find(&sought, |entry, lack| passed.push((entry, lack)));
        }
        for entry in paths.entries().filter(|entry| !taken.is_some_and(|taken| std::ptr::eq(taken, *entry))) {
            let lack = passed.iter().find(|(one, _)| std::ptr::eq(*one, entry)).map(|(_, lack)| lack);
            let on_path = entry.is_on(path);
            let because = match (before, lack, taken) {
                _ if !on_path => "the path is another".to_owned(),
                (Some(before), ..) => format!("{} is for the host more specifically", before.route().name()),
                (None, Some(lack), _) => lack.to_string(),
                (None, None, Some(taken)) => format!("{} precedes it", taken.route().name()),
                (None, None, None) => "it was not looked at".to_owned(),
            };
            let other = Other { route: entry.route().name().to_string(), path: entry.path(), because };
            others.push((!on_path, other));
        }
    }
    others.sort_by(|(one, a), (other, b)| (one, &a.route, &a.path).cmp(&(other, &b.route, &b.path)));
    (taken, others.into_iter().map(|(_, other)| other).collect())
}

fn taken_by(serving: &Serving, entry: &Entry) -> TakenBy {
    let (action, backends) = match &entry.route().action {
        Action::Forward(forwarding) => {
            let backends = forwarding.backends.iter().map(|backend| {
                let target = backend.target.as_ref().map_err(|status| status.as_u16());
                share(serving, target.map(|name| &**name), backend.weight)
            });
            ("forward".to_owned(), backends.collect())
        }
        Action::Redirect(redirect) => (format!("redirect ({})", redirect.status.as_u16()), Vec::new()),
        Action::Respond(status) | Action::Answer(status, _) => (format!("answer {}", status.as_u16()), Vec::new()),
    };
    TakenBy { route: entry.route().name().to_string(), path: entry.path(), action, backends }
}

fn forwarded(serving: &Serving, forward: &Forward, action: &str) -> TakenBy {
    let backends = forward.backends.iter().map(|backend| {
        let target = match &backend.target {
            Target::Cluster(name) => Ok(&**name),
            Target::Status(status) => Err(*status),
        };
        share(serving, target, backend.weight)
    });
    TakenBy {
        route: forward.route.to_string(),
        action: action.to_owned(),
        backends: backends.collect(),
        ..TakenBy::default()
    }
}

fn share(serving: &Serving, target: Result<&str, u16>, weight: u32) -> Share {
    match target {
        Ok(name) => {
            let endpoints = serving.upstreams.get(name).map(|upstream| lists::endpoints(upstream)).unwrap_or_default();
            Share { backend: name.to_owned(), weight, endpoints }
        }
        Err(status) => Share { backend: format!("nobody ({status})"), weight, endpoints: Vec::new() },
    }
}
