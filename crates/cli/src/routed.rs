// SPDX-License-Identifier: Apache-2.0
//! Tells people where a request goes, as one node's proxy has it, or all of them.

use crate::table::Table;
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use l7::explain::{AtEndpoint, AtListener, Explanation, Question, Share, TakenBy};

/// A request.
#[derive(Args, Clone, Debug)]
pub(crate) struct Request {
    /// The host that it is for.
    #[arg(id = "asked-host", value_name = "HOST")]
    host: String,
    /// Path and query.
    #[arg(id = "asked-path", value_name = "PATH")]
    path: String,
    /// A header, as NAME: VALUE; may be repeated.
    #[arg(long = "header", id = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The method.
    #[arg(long = "request", short = 'X', default_value = "GET", value_name = "METHOD")]
    method: String,
    /// It comes in TLS, whose hello names the host.
    #[arg(long)]
    tls: bool,
}

impl Request {
    pub(crate) fn question(&self) -> Result<Question> {
        ensure!(self.path.starts_with('/'), "the path {:?} does not begin with /", self.path);
        let header = |text: &String| {
            // As curl takes them.
            let (name, value) = text.split_once([':', '=']).with_context(|| format!("{text:?} is no NAME: VALUE"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        };
        Ok(Question {
            host: self.host.clone(),
            path: self.path.clone(),
            method: self.method.clone(),
            headers: self.headers.iter().map(header).collect::<Result<_>>()?,
            tls: self.tls,
        })
    }

    /// The same as words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec!["--request".to_owned(), self.method.clone()];
        words.extend(self.headers.iter().flat_map(|header| ["--header".to_owned(), header.clone()]));
        words.extend(self.tls.then(|| "--tls".to_owned()));
        // A host that begins with a hyphen is no option.
        words.extend(["--".to_owned(), self.host.clone(), self.path.clone()]);
        words
    }
}

/// What the proxies of these nodes say alike.
pub(crate) fn of_nodes(nodes: &[&str], explanation: &Explanation) -> String {
    let mut text = match nodes {
        [] => String::new(),
        nodes => format!("On {}:\n", nodes.join(", ")),
    };
    if explanation.listeners.is_empty() {
        text += "  There is no listener\n";
    }
    explanation.listeners.iter().for_each(|one| text += &at_listener(one));
    text
}

fn at_listener(at: &AtListener) -> String {
    let AtListener { listener, port, refused, taken_by, others, further } = at;
    let mut text = format!("  Listener {listener}, port {port}: ");
    match (refused, taken_by) {
        (Some(why), _) => text += &format!("{why}\n"),
        (None, None) => text += "no route takes it (404)\n",
        (None, Some(taken)) => text += &taken_by_route(taken),
    }
    if !others.is_empty() {
        let mut table = Table::new(["    Other route", "Path", "Because"]);
        others.iter().for_each(|one| table.row([format!("    {}", one.route), one.path.clone(), one.because.clone()]));
        text += &table.to_string();
    }
    if *further > 0 {
        text += &format!("    and {further} more\n");
    }
    text
}

fn taken_by_route(taken: &TakenBy) -> String {
    let TakenBy { route, path, action, backends } = taken;
    let path = if path.is_empty() { String::new() } else { format!(" ({path})") };
    let mut text = format!("{route}{path}: {action}\n");
    let all: u64 = backends.iter().map(|share| u64::from(share.weight)).sum();
    for Share { backend, weight, endpoints } in backends {
        text += &format!("    {backend}: {weight} of {all}\n");
        endpoints.iter().for_each(|endpoint| text += &format!("      {}\n", state(endpoint)));
    }
    text
}

/// An endpoint, and why it might get no request.
pub(crate) fn state(endpoint: &AtEndpoint) -> String {
    let chosen = if endpoint.chosen { "" } else { ", for clients that come back alone" };
    let healthy = if endpoint.healthy { "" } else { ", could not be reached lately" };
    format!("{}{chosen}{healthy}", endpoint.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        request: Request,
    }

    fn request(words: &[&str]) -> Request {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap().request
    }

    #[test]
    fn a_request_is_the_same_on_a_nodes_command_line() {
        let words = ["shop.example", "/a?b", "--header", "x-one: 1", "--header", "x-two=2", "-X", "PUT", "--tls"];
        let question = request(&words).question().unwrap();
        let headers = [("x-one", "1"), ("x-two", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((question.headers.as_slice(), question.tls), (&headers[..], true));
        let again = request(&words).words();
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        assert_eq!(request(&again).question().unwrap(), question);
        assert!(request(&["h", "a"]).question().is_err());
        assert!(request(&["h", "/", "--header", "x"]).question().is_err());
    }

    #[test]
    fn people_read_the_route_its_backends_and_why_not_another() {
        let explanation: Explanation = serde_json::from_value(json!({"listeners": [
            {"listener": "gw", "port": 80, "taken-by": {"route": "shop/all", "path": "/*", "action": "forward", "backends": [
                {"backend": "shop/web:80", "weight": 9, "endpoints": [
                    {"address": "10.0.0.1:8080", "chosen": true, "healthy": true},
                    {"address": "10.0.0.2:8080", "chosen": false, "healthy": false}]},
                {"backend": "nobody (500)", "weight": 1}]},
             "others": [{"route": "shop/api", "path": "/api/*", "because": "the path is another"}], "further": 2},
            {"listener": "gw", "port": 443, "refused": "it speaks TLS alone"},
            {"listener": "in", "port": 81}]}))
        .unwrap();
        let want = "\
On n1:
  Listener gw, port 80: shop/all (/*): forward
    shop/web:80: 9 of 10
      10.0.0.1:8080
      10.0.0.2:8080, for clients that come back alone, could not be reached lately
    nobody (500): 1 of 10
    Other route   Path     Because
    shop/api      /api/*   the path is another
    and 2 more
  Listener gw, port 443: it speaks TLS alone
  Listener in, port 81: no route takes it (404)
";
        assert_eq!(of_nodes(&["n1"], &explanation), want);
    }
}
