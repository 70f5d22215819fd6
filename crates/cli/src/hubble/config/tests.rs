// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::hubble::{Global, Other, command, observe};
use clap::FromArgMatches;

/// A folder for a file, and commands that are told of it.
struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        if !text.is_empty() {
            std::fs::write(place.path(), text).unwrap();
        }
        place
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("deep.yaml")
    }

    fn matches(&self, args: &[&str]) -> Result<ArgMatches> {
        let file = format!("--config={}", self.path().display());
        let args: Vec<_> = ["hubble", &file].iter().chain(args).map(OsString::from).collect();
        Ok(with_file(command(), &args)?.try_get_matches_from(args)?)
    }

    /// What `hubble config` prints.
    fn config(&self, args: &[&str]) -> Result<String> {
        let matches = self.matches(&[&["config"], args].concat())?;
        let Other::Config(command) = Other::from_arg_matches(&matches)? else { panic!("another command") };
        run(&command, &matches, &Global::from_arg_matches(&matches)?.connection)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }
}

#[test]
fn what_is_set_is_in_force_until_a_flag_says_otherwise_or_it_is_reset() {
    let place = Place::new("");
    for (key, value) in
        [("tls", "true"), ("tls-ca-cert-files", "/a.crt,/b.crt"), ("timeout", "7s"), ("server", "n1:4244")]
    {
        assert_eq!(place.config(&["set", key, value]).unwrap(), "");
    }
    assert_eq!(place.text(), "server: n1:4244\ntimeout: 7s\ntls: true\ntls-ca-cert-files:\n- /a.crt\n- /b.crt\n");
    let get = |key: &str, more: &[&str]| place.config(&[&["get", key], more].concat()).unwrap();
    assert_eq!(
        [get("tls", &[]), get("timeout", &[]), get("tls-ca-cert-files", &[])],
        ["true\n", "7s\n", "/a.crt\n/b.crt\n"]
    );
    assert_eq!(get("timeout", &["--timeout=9s"]), "9s\n");
    assert_eq!(get("tls-allow-insecure", &[]), "false\n");
    let view = place.config(&["view"]).unwrap();
    for line in
        [&format!("config: {}", place.path().display()), "server: n1:4244", "tls: true", "kube-namespace: kube-system"]
    {
        assert!(view.lines().any(|found| found == line), "{line} is missing in:\n{view}");
    }
    assert_eq!(place.config(&["get"]).unwrap(), view);
    place.config(&["reset", "tls"]).unwrap();
    assert_eq!(get("tls", &[]), "false\n");
    place.config(&["reset"]).unwrap();
    assert_eq!((place.text().as_str(), get("timeout", &[]).as_str()), ("", "5s\n"));
}

#[test]
fn what_cannot_be_used_is_named_and_changes_nothing() {
    let place = Place::new("timeout: 7s\n");
    for (args, part) in [
        (["set", "colour", "red"], "\"colour\" is no key: want one of server, timeout"),
        (["set", "timeout", "soon"], "'soon' for '--timeout"),
        (["set", "tls", "perhaps"], "'perhaps' for '--tls"),
        (["set", "port-forward-port", "70000"], "70000"),
    ] {
        let error = format!("{:#}", place.config(&args).unwrap_err());
        assert!(error.contains(part), "{args:?}: {error}");
        assert_eq!(place.text(), "timeout: 7s\n");
    }
    for (text, part) in [
        ("timeout: soon", "'soon'"),
        ("tls: [", "deep.yaml"),
        ("server: {a: b}", "server: want a text"),
        ("- a", "deep.yaml"),
    ] {
        let error = format!("{:#}", Place::new(text).matches(&["status"]).unwrap_err());
        assert!(error.contains(part) && error.contains("deep.yaml"), "{text}: {error}");
    }
    let error = Place::new("").matches(&["status"]).unwrap_err().to_string();
    assert!(error.contains("deep.yaml: there is no such file"), "{error}");
}

#[test]
fn what_print_raw_filters_prints_is_such_a_file() {
    let lists = |place: &Place, args: &[&str]| {
        let matches = place.matches(&[&["observe"], args].concat()).unwrap();
        let observe = matches.subcommand_matches("observe").unwrap();
        observe::raw_filters(observe.subcommand_matches("flows").unwrap_or(observe)).unwrap()
    };
    let flags = ["-t", "drop", "--namespace", "shop", "--not-from-ip", "10.0.0.1"];
    let text = lists(&Place::new("timeout: 7s"), &flags);
    assert!(text.contains("allowlist:\n") && text.contains("denylist:\n"), "{text}");
    let place = Place::new(&text);
    assert_eq!(lists(&place, &[]), text);
    assert_eq!(lists(&place, &["flows"]), text);
}

#[test]
fn what_another_version_has_set_does_not_matter() {
    let place = Place::new("debug: false\nrequest-timeout: 12s\ntls: true\n");
    assert_eq!(place.config(&["get", "tls"]).unwrap(), "true\n");
    place.config(&["set", "timeout", "7s"]).unwrap();
    assert!(place.text().contains("request-timeout: 12s\n"), "{}", place.text());
}
