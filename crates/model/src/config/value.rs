// SPDX-License-Identifier: Apache-2.0
//! Types of keys' values, each with the texts it accepts. The chart validates values by the same [`Form`].

use super::text::{duration, listen_address, words};
use super::{Key, Reader};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A value written as a single text.
pub trait Value: Sized {
    /// Which texts are accepted.
    fn form() -> Form;
    /// Parses a text; none if it is not accepted.
    fn parse(text: &str) -> Option<Self>;
}

/// One of several names.
pub trait Choice: Copy + 'static {
    /// What errors say is expected.
    const WANT: &'static str;
    /// The names; several may mean the same.
    const NAMES: &'static [(&'static str, Self)];
}

/// What a field of a [`Group`](super::Group) may be: a [`Value`], an `Option` of one, which is `None` while the key is not
/// set, or a `Vec` of them.
pub trait Field: Sized {
    /// Which texts are accepted.
    fn form() -> Form;
    /// Reads the key.
    fn read(reader: &mut Reader<'_>, key: &Key<Self>) -> Self;
}

/// Which texts a key accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// What errors say is expected.
    pub want: Cow<'static, str>,
    /// What each item must be.
    pub accepts: Accepts,
    /// Whether there may be several items, separated by commas or white space.
    pub list: bool,
}

/// What an item must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Any text, as far as the chart is concerned.
    Text,
    /// `true` or `false`.
    Switch,
    /// One of these names.
    Names(Vec<&'static str>),
    /// An integer in this range.
    Whole(u64, u64),
    /// A number with a decimal point or an exponent.
    Decimal,
    /// Text matching this Go regular expression.
    Pattern(&'static str),
}

impl Form {
    /// The form of a single item.
    pub fn new(want: impl Into<Cow<'static, str>>, accepts: Accepts) -> Self {
        Self { want: want.into(), accepts, list: false }
    }

    fn in_range(&self, text: &str) -> bool {
        match self.accepts {
            Accepts::Whole(least, most) => text.parse().is_ok_and(|number: u64| (least..=most).contains(&number)),
            _ => true,
        }
    }
}

impl<T: Value + Default> Field for T {
    fn form() -> Form {
        T::form()
    }

    fn read(reader: &mut Reader<'_>, key: &Key<Self>) -> Self {
        value(reader, key).unwrap_or_default()
    }
}

impl<T: Value> Field for Option<T> {
    fn form() -> Form {
        T::form()
    }

    fn read(reader: &mut Reader<'_>, key: &Key<Self>) -> Self {
        value(reader, key)
    }
}

impl<T: Value> Field for Vec<T> {
    fn form() -> Form {
        Form { list: true, ..T::form() }
    }

    fn read(reader: &mut Reader<'_>, key: &Key<Self>) -> Self {
        let form = key.form();
        let mut values = Self::new();
        for item in words(reader.given(key.name).unwrap_or(key.default)) {
            match T::parse(item).filter(|_| form.in_range(item)) {
                Some(value) => values.push(value),
                None => reader.refuse(key.name, item, form.want.clone()),
            }
        }
        values
    }
}

/// A text that may be set to the empty string: the default is only for a missing key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verbatim(pub String);

impl Field for Verbatim {
    fn form() -> Form {
        <String as Value>::form()
    }

    fn read(reader: &mut Reader<'_>, key: &Key<Self>) -> Self {
        Self(reader.values.get(key.name).map_or(key.default, |text| text.trim()).to_owned())
    }
}

/// The key's value or, if that is invalid, its default. None only if there is no default either.
fn value<T: Value, F: Field>(reader: &mut Reader<'_>, key: &Key<F>) -> Option<T> {
    let form = key.form();
    let parse = |text: &str| T::parse(text).filter(|_| form.in_range(text));
    let mut texts = [reader.given(key.name), Some(key.default).filter(|text| !text.is_empty())].into_iter().flatten();
    texts.find_map(|text| {
        let value = parse(text);
        if value.is_none() {
            reader.refuse(key.name, text, form.want.clone());
        }
        value
    })
}

impl<T: Choice> Value for T {
    fn form() -> Form {
        Form::new(T::WANT, Accepts::Names(T::NAMES.iter().map(|(name, _)| *name).collect()))
    }

    fn parse(text: &str) -> Option<Self> {
        T::NAMES.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }
}

macro_rules! values {
    ($($type:ty: $want:literal, $accepts:expr, $parse:expr;)*) => {$(
        impl Value for $type {
            fn form() -> Form {
                Form::new($want, $accepts)
            }

            fn parse(text: &str) -> Option<Self> {
                $parse(text)
            }
        }
    )*};
}

fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

values! {
    bool: "\"true\" or \"false\"", Accepts::Switch, parsed;
    u8: "a number in range", Accepts::Whole(0, u8::MAX.into()), parsed;
    u16: "a number in range", Accepts::Whole(0, u16::MAX.into()), parsed;
    u32: "a number in range", Accepts::Whole(0, u32::MAX.into()), parsed;
    f64: "a number in range", Accepts::Decimal, parsed;
    String: "a text", Accepts::Text, parsed;
    PathBuf: "an absolute path", Accepts::Pattern("^/"), |text: &str| Path::new(text).is_absolute().then(|| text.into());
    Duration: "a duration such as 5s or 1m30s", Accepts::Pattern(DURATION), duration;
    SocketAddr: "an address and port such as :4244", Accepts::Pattern(LISTEN_ADDRESS), listen_address;
    Ipv4Net: "an IPv4 prefix", Accepts::Pattern(IPV4_PREFIX), parsed;
    Ipv6Net: "an IPv6 prefix", Accepts::Pattern(IPV6_PREFIX), parsed;
    IpNet: "a prefix of addresses", Accepts::Pattern(IP_PREFIX), parsed;
}

const DURATION: &str = "^(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(h|ms|m|s|us|µs|ns))+)$";
const LISTEN_ADDRESS: &str = concat!(
    r"^(localhost|((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|\[[0-9a-fA-F:.]+\])?",
    ":0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[0-5]?[0-9]{1,4})$"
);
macro_rules! ipv4_prefix {
    () => {
        "^((25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])/(3[0-2]|[0-2]?[0-9])$"
    };
}
macro_rules! ipv6_prefix {
    () => {
        concat!(
            "(?i)^(([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,7}:|([0-9a-f]{1,4}:){1,6}(:[0-9a-f]{1,4})",
            "|([0-9a-f]{1,4}:){1,5}(:[0-9a-f]{1,4}){1,2}|([0-9a-f]{1,4}:){1,4}(:[0-9a-f]{1,4}){1,3}",
            "|([0-9a-f]{1,4}:){1,3}(:[0-9a-f]{1,4}){1,4}|([0-9a-f]{1,4}:){1,2}(:[0-9a-f]{1,4}){1,5}",
            "|[0-9a-f]{1,4}:((:[0-9a-f]{1,4}){1,6})|:((:[0-9a-f]{1,4}){1,7}|:)",
            "|[0-9a-f:]*::?([0-9]{1,3}[.]){3}[0-9]{1,3})/(12[0-8]|1[01][0-9]|0?[0-9]?[0-9])$"
        )
    };
}
const IPV4_PREFIX: &str = ipv4_prefix!();
const IPV6_PREFIX: &str = ipv6_prefix!();
const IP_PREFIX: &str = concat!(ipv4_prefix!(), "|", ipv6_prefix!());
