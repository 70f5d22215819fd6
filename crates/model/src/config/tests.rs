// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A key without a default.
const fn key<T>(name: &'static str) -> Key<T> {
    Key::new(name, "A key of a test.")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fruit {
    Apple,
    Pear,
}

impl Choice for Fruit {
    const WANT: &'static str = "apple or pear";
    const NAMES: &'static [(&'static str, Self)] = &[("apple", Self::Apple), ("pear", Self::Pear)];
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
        ("fruit", "pear"),
    ]);
    let mut read = Reader::new(&keys);
    let texts: [Option<String>; 3] = ["text", "empty", "none"].map(|name| read.get(&key(name)));
    assert_eq!(texts, [Some("a b".to_owned()), None, None]);
    assert_eq!(["flag", "empty", "none"].map(|name| read.get::<bool>(&key(name))), [true, false, false]);
    assert_eq!((read.get::<Option<u16>>(&key("number")), read.get::<Option<u8>>(&key("none"))), (Some(7), None));
    assert_eq!(read.get::<Option<PathBuf>>(&key("path")).unwrap(), Path::new("/run/x"));
    assert_eq!(read.get::<Option<Duration>>(&key("duration")), Some(Duration::from_millis(61_500)));
    assert_eq!(read.get::<Option<SocketAddr>>(&key("address")).unwrap().to_string(), "[::]:4244");
    assert_eq!(read.get::<Vec<String>>(&key("list")), ["a", "b", "c"]);
    assert_eq!(read.get::<Vec<String>>(&key("none")), [""; 0]);
    assert_eq!(read.get::<Option<Fruit>>(&key("fruit")), Some(Fruit::Pear));
    assert_eq!(read.finish(()), Ok(()));
}

#[test]
fn the_default_stands_in_for_what_is_missing_empty_or_unusable() {
    let keys = keys(&[("empty", " "), ("bad", "many"), ("given", "2")]);
    let mut read = Reader::new(&keys);
    let names = ["missing", "empty", "bad", "given"];
    assert_eq!(names.map(|name| read.get::<u8>(&key(name).default("1"))), [1, 1, 1, 2]);
    let texts = names.map(|name| read.get::<String>(&key(name).default("1")));
    assert_eq!(texts, ["1", "1", "many", "2"]);
    let verbatim = ["missing", "empty"].map(|name| read.get::<Verbatim>(&key(name).default("1")).0);
    assert_eq!(verbatim, ["1", ""]);
    assert!(read.has_refused("bad") && !read.has_refused("empty"));
    assert_eq!(read.finish(()).unwrap_err().len(), 1, "only the value that somebody gave is at fault");
}

#[test]
fn a_default_that_its_key_would_refuse_is_an_error() {
    let keys = BTreeMap::new();
    let mut read = Reader::new(&keys);
    assert_eq!(read.get::<Option<u8>>(&key("wrong").default("256")), None);
    assert_eq!(read.finish(()).unwrap_err().len(), 1);
}

#[test]
fn every_bad_value_is_named_with_its_key_and_what_is_wanted() {
    let keys = keys(&[
        ("flag", "yes"),
        ("number", "256"),
        ("few", "0"),
        ("path", "run/x"),
        ("duration", "soon"),
        ("address", "4244"),
        ("fruit", "plum"),
        ("list", "10.0.0.0/8 x fd00::/8"),
    ]);
    let mut read = Reader::new(&keys);
    assert!(read.get::<bool>(&key("flag").default("true")), "the default stands in");
    assert_eq!((read.get::<Option<u8>>(&key("number")), read.get::<Option<PathBuf>>(&key("path"))), (None, None));
    assert_eq!(read.get::<u32>(&key("few").within(1..=9).default("3")), 3);
    assert_eq!(read.get::<u32>(&key("few").within(1..=9).want("a few").default("3")), 3);
    assert_eq!(read.get::<Option<Duration>>(&key("duration")), None);
    assert_eq!(read.get::<Option<SocketAddr>>(&key("address")), None);
    assert_eq!(read.get::<Option<Fruit>>(&key("fruit").default("apple")), Some(Fruit::Apple));
    assert_eq!(read.get::<Vec<ipnet::Ipv4Net>>(&key("list")).len(), 1);
    read.refuse("both", "", "possible together");
    let errors: Vec<_> = read.finish(()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "configuration key flag: \"yes\" is not \"true\" or \"false\"",
            "configuration key number: \"256\" is not a number in range",
            "configuration key path: \"run/x\" is not an absolute path",
            "configuration key few: \"0\" is not a number from 1 to 9",
            "configuration key few: \"0\" is not a few",
            "configuration key duration: \"soon\" is not a duration such as 5s or 1m30s",
            "configuration key address: \"4244\" is not an address and port such as :4244",
            "configuration key fruit: \"plum\" is not apple or pear",
            "configuration key list: \"x\" is not an IPv4 prefix",
            "configuration key list: \"fd00::/8\" is not an IPv4 prefix",
            "configuration key both: \"\" is not possible together",
        ]
    );
}

mod declared {
    #![allow(unreachable_pub, reason = "the macro declares public structures")]
    use crate::config::Given;

    crate::config::keys! {
        #[derive(Clone, Debug, PartialEq)]
        pub struct Outer {
            /// How many
            /// there are.
            #[key("outer-count", default = "2", value = "outer.count", within = 1..=5)]
            pub count: u32,
            #[key(crate::config::shared::DEBUG)]
            pub debug: bool,
            /// What is inside.
            pub inner: Inner,
            /// Everything.
            pub given: Given,
        }
        check Self::more_than_inside;
    }

    crate::config::keys! {
        #[derive(Clone, Debug, PartialEq)]
        pub struct Inner {
            /// How many of them.
            #[key("inner-count", default = "1")]
            pub count: u32,
        }
    }

    impl Outer {
        fn more_than_inside(&self, reader: &mut crate::config::Reader<'_>) {
            if self.count <= self.inner.count {
                reader.refuse("outer-count", &self.count.to_string(), "more than inner-count");
            }
        }
    }
}

#[test]
fn a_field_declares_its_key_and_a_field_without_one_is_a_group() {
    use declared::Outer;
    let found: Vec<_> = Outer::keys().into_iter().map(|key| (key.name, key.meaning, key.default)).collect();
    let wanted = [
        ("outer-count", "How many there are", "2"),
        ("debug", "Log details", "false"),
        ("inner-count", "How many of them", "1"),
    ];
    assert_eq!(found, wanted);
    let count = &Outer::keys()[0];
    assert_eq!((count.chart.source, &count.form.accepts), (Source::Value("outer.count"), &Accepts::Whole(1, 5)));
    assert_eq!((Outer::default().count, Outer::default().inner.count), (2, 1));
    let values = keys(&[("outer-count", "5"), ("inner-count", "3"), ("debug", "true"), ("stranger", "x")]);
    let outer = Outer::parse(&values).unwrap();
    assert_eq!((outer.count, outer.inner.count, outer.debug, &outer.given.0), (5, 3, true, &values));
}

#[test]
fn a_key_says_how_the_chart_sets_it() {
    let fruits = || key::<Vec<String>>("fruits");
    let all = [
        fruits(),
        fruits().value("a.b"),
        fruits().optional("a.b"),
        fruits().or_default("a.b"),
        fruits().always("pear"),
        fruits().template("{{ . }}"),
    ];
    let sources = [
        Source::Extra,
        Source::Value("a.b"),
        Source::Optional("a.b"),
        Source::OrDefault("a.b"),
        Source::Always("pear"),
        Source::Template("{{ . }}"),
    ];
    assert_eq!(all.map(|key| key.any().chart.source), sources);
    assert_eq!(sources.map(Source::path), [None, Some("a.b"), Some("a.b"), Some("a.b"), None, None]);
    let key = fruits().initial("[pear]").schema("{}").when(".Values.a").want("fruit").any();
    assert_eq!((key.chart.initial, key.chart.schema, key.chart.when), (Some("[pear]"), Some("{}"), Some(".Values.a")));
    assert_eq!((&*key.form.want, key.form.list), ("fruit", true));
}

#[test]
fn the_name_of_a_way_to_give_out_addresses_is_the_keys_value() {
    for (text, ipam) in <shared::Ipam as Choice>::NAMES {
        assert_eq!(ipam.name(), *text);
    }
}

#[test]
fn a_group_refuses_what_does_not_go_together_besides_what_is_wrong_alone() {
    let values = keys(&[("debug", "maybe"), ("inner-count", "4")]);
    let errors = declared::Outer::parse(&values).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.key).collect::<Vec<_>>(), ["debug", "outer-count"]);
}

#[test]
fn what_several_readers_refuse_is_told_once() {
    let keys = keys(&[("flag", "yes")]);
    let errors = |name| {
        let mut read = Reader::new(&keys);
        read.get::<bool>(&key(name));
        read.refuse("other", "", name);
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
    let keys = operator::Config::keys();
    let names: std::collections::BTreeSet<_> = keys.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), keys.len());
}

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, seconds) in [
        ("15m0s", 900.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("0s", 0.0),
        ("0", 0.0),
        ("2µs", 2e-6),
        ("3ns", 3e-9),
    ] {
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
