// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

/// A key without a default.
const fn key(name: &'static str) -> Key {
    Key::new(name, "a key of a test", "")
}

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn values_are_read_with_their_types() {
    let keys = keys(&[
        ("text", " a b \n"),
        ("empty", " "),
        ("flag", "true"),
        ("number", "7"),
        ("path", "/run/x"),
        ("duration", "1m1.5s"),
        ("address", ":4244"),
        ("list", "a, b\nc"),
        ("mode", "native"),
    ]);
    let mut read = Reader::new(&keys);
    let (empty, none) = (key("empty"), key("none"));
    assert_eq!((read.text(&key("text")), read.text(&empty), read.text(&none)), (Some("a b"), None, None));
    assert_eq!((read.flag(&key("flag")), read.flag(&empty), read.flag(&none)), (true, false, false));
    assert_eq!((read.number(&key("number")), read.number::<u8>(&none)), (Some(7u16), None));
    assert_eq!(read.path(&key("path")).unwrap(), Path::new("/run/x"));
    assert_eq!(read.duration(&key("duration")), Some(Duration::from_millis(61_500)));
    assert_eq!(read.address(&key("address")).unwrap().to_string(), "[::]:4244");
    assert_eq!((read.list(&key("list")), read.list(&none)), (vec!["a", "b", "c"], vec![]));
    assert_eq!(read.choice(&key("mode"), "tunnel or native", &[("tunnel", 1), ("native", 2)]), Some(2));
    assert_eq!(read.finish(()), Ok(()));
}

#[test]
fn the_default_stands_in_for_what_is_missing_empty_or_unusable() {
    let keys = keys(&[("empty", " "), ("bad", "many"), ("given", "2")]);
    let with_default = |name| Key::new(name, "a key of a test", "1");
    let mut read = Reader::new(&keys);
    let values = ["missing", "empty", "bad", "given"].map(|name| read.number::<u8>(&with_default(name)));
    assert_eq!(values, [Some(1), Some(1), Some(1), Some(2)]);
    let texts = ["missing", "empty", "bad", "given"].map(|name| read.text(&with_default(name)));
    assert_eq!(texts, [Some("1"), Some("1"), Some("many"), Some("2")]);
    let verbatim = ["missing", "empty"].map(|name| read.verbatim(&with_default(name)));
    assert_eq!(verbatim, ["1", ""]);
    assert_eq!(read.finish(()).unwrap_err().len(), 1, "only the value that somebody gave is at fault");
}

#[test]
fn a_default_that_its_key_would_refuse_is_an_error() {
    let keys = BTreeMap::new();
    let mut read = Reader::new(&keys);
    assert_eq!(read.number::<u8>(&Key::new("wrong", "a key of a test", "256")), None);
    assert_eq!(read.finish(()).unwrap_err().len(), 1);
}

#[test]
fn every_bad_value_is_named_with_its_key_and_what_is_wanted() {
    let keys = keys(&[
        ("flag", "yes"),
        ("number", "256"),
        ("path", "run/x"),
        ("duration", "soon"),
        ("address", "4244"),
        ("mode", "geneve"),
    ]);
    let mut read = Reader::new(&keys);
    assert!(read.flag(&Key::new("flag", "a key of a test", "true")), "the default stands in");
    assert_eq!((read.number::<u8>(&key("number")), read.path(&key("path"))), (None, None));
    assert_eq!((read.duration(&key("duration")), read.address(&key("address"))), (None, None));
    assert_eq!(read.choice(&key("mode"), "vxlan", &[("vxlan", ())]), None);
    read.refuse(&key("both"), "", "possible together");
    let errors: Vec<_> = read.finish(()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "configuration key flag: \"yes\" is not \"true\" or \"false\"",
            "configuration key number: \"256\" is not a number in range",
            "configuration key path: \"run/x\" is not an absolute path",
            "configuration key duration: \"soon\" is not a duration such as 5s or 1m30s",
            "configuration key address: \"4244\" is not an address and port such as :4244",
            "configuration key mode: \"geneve\" is not vxlan",
            "configuration key both: \"\" is not possible together",
        ]
    );
}

#[test]
fn what_several_readers_refuse_is_told_once() {
    let keys = keys(&[("flag", "yes")]);
    let errors = |name| {
        let mut read = Reader::new(&keys);
        read.flag(&key(name));
        read.refuse(&key("other"), "", name);
        read.finish(()).unwrap_err()
    };
    let text = ConfigErrors::from([errors("flag"), errors("flag")].concat()).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "the configuration cannot be used:",
            "  configuration key flag: \"yes\" is not \"true\" or \"false\"",
            "  configuration key other: \"\" is not flag",
        ]
    );
}

#[test]
fn a_key_of_the_operator_is_listed_once() {
    let names: std::collections::BTreeSet<_> = operator::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), operator::KEYS.len());
}

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, seconds) in
        [("15m0s", 900.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25), ("0s", 0.0), ("0", 0.0), ("2µs", 2e-6)]
    {
        assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
    }
    for text in ["", "5", "m", "-1s", "1 s", "1d", "99999999999999999999h"] {
        assert_eq!(duration(text), None, "{text}");
    }
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (text, nanos) in [
        ("0s", 0),
        ("1ns", 1),
        ("145.787µs", 145_787),
        ("1.299813ms", 1_299_813),
        ("250ms", 250_000_000),
        ("1s", 1_000_000_000),
        ("1m36.566274746s", 96_566_274_746),
        ("1h0m0.05s", 3_600_050_000_000),
        ("26h30m0s", 95_400_000_000_000),
    ] {
        assert_eq!(duration_text(Duration::from_nanos(nanos)), text);
    }
}

#[test]
fn a_port_alone_listens_on_all_addresses() {
    assert_eq!(listen_address(":9962").unwrap().to_string(), "[::]:9962");
    assert_eq!(listen_address("127.0.0.1:1").unwrap().to_string(), "127.0.0.1:1");
    assert_eq!(listen_address("localhost:1").unwrap().to_string(), "127.0.0.1:1");
    assert_eq!(listen_address("[::1]:1").unwrap().to_string(), "[::1]:1");
    assert!(
        ["", ":", "9962", "localhost", "localhost:", "::1:1", ":70000"]
            .iter()
            .all(|text| listen_address(text).is_none())
    );
}

proptest! {
    #[test]
    fn no_text_ends_the_process(text in ".{0,12}|[0-9.hmsnuµ:]{0,12}") {
        let _ = (duration(&text), listen_address(&text), words(&text));
    }

    #[test]
    fn a_written_duration_is_read_as_what_it_was(micros in 0..1_u64 << 50) {
        let whole = Duration::from_micros(micros);
        let read = duration(&duration_text(whole)).unwrap();
        // Numbers are read as floating point, which is exact enough for a timeout.
        prop_assert!(read.abs_diff(whole) < Duration::from_micros(1), "{read:?} {whole:?}");
    }
}
