// SPDX-License-Identifier: Apache-2.0
//! Everything about a configuration key. The flag, its help, the reference and the chart's files are generated from it.

use super::{Accepts, Field, Form};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

/// A configuration key whose value is a `T`.
pub struct Key<T> {
    /// Name, in the ConfigMap and as a flag.
    pub name: &'static str,
    /// The value of an unset key; empty if it has none.
    pub default: &'static str,
    meaning: &'static str,
    chart: Chart,
    within: Option<(u64, u64)>,
    want: Option<&'static str>,
    value: PhantomData<fn() -> T>,
}

/// A [`Key`] without the type of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyKey {
    /// Name, in the ConfigMap and as a flag.
    pub name: &'static str,
    /// What it is for, without a full stop.
    pub meaning: &'static str,
    /// The value of an unset key; empty if it has none.
    pub default: &'static str,
    /// Which texts it accepts.
    pub form: Form,
    /// How the chart sets it.
    pub chart: Chart,
}

/// How the chart sets a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chart {
    /// Where the key's value comes from.
    pub source: Source,
    /// The value in `values.yaml`, in YAML, if not the key's default.
    pub initial: Option<&'static str>,
    /// The JSON schema of the chart's value, if not that of the key's form.
    pub schema: Option<&'static str>,
    /// The template condition under which the key is written.
    pub when: Option<&'static str>,
}

/// Where a key's value comes from, in the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Only from `extraConfig`.
    Extra,
    /// The chart's value of this path.
    Value(&'static str),
    /// The same, but empty, null or 0 leaves the key out.
    Optional(&'static str),
    /// The same, but empty means the key's default.
    OrDefault(&'static str),
    /// Always this text.
    Always(&'static str),
    /// A template, over values that belong to no single key.
    Template(&'static str),
}

impl Source {
    /// The chart value that sets this key.
    #[must_use]
    pub const fn path(self) -> Option<&'static str> {
        match self {
            Self::Value(path) | Self::Optional(path) | Self::OrDefault(path) => Some(path),
            Self::Extra | Self::Always(_) | Self::Template(_) => None,
        }
    }
}

impl<T> Key<T> {
    /// A key without a default that the chart does not set. The meaning is a sentence.
    #[must_use]
    pub const fn new(name: &'static str, meaning: &'static str) -> Self {
        let chart = Chart { source: Source::Extra, initial: None, schema: None, when: None };
        Self { name, default: "", meaning, chart, within: None, want: None, value: PhantomData }
    }

    /// Sets the default.
    #[must_use]
    pub const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// Lets the chart's value `path` set it.
    #[must_use]
    pub const fn value(self, path: &'static str) -> Self {
        self.source(Source::Value(path))
    }

    /// Lets the chart's value `path` set it unless that is empty, null or 0.
    #[must_use]
    pub const fn optional(self, path: &'static str) -> Self {
        self.source(Source::Optional(path))
    }

    /// Lets the chart's value `path` set it, where empty means the key's default.
    #[must_use]
    pub const fn or_default(self, path: &'static str) -> Self {
        self.source(Source::OrDefault(path))
    }

    /// Lets the chart set it to a fixed text.
    #[must_use]
    pub const fn always(self, text: &'static str) -> Self {
        self.source(Source::Always(text))
    }

    /// Lets a template of the chart set it.
    #[must_use]
    pub const fn template(self, template: &'static str) -> Self {
        self.source(Source::Template(template))
    }

    const fn source(self, source: Source) -> Self {
        Self { chart: Chart { source, ..self.chart }, ..self }
    }

    /// The value in `values.yaml`, in YAML, if not the default.
    #[must_use]
    pub const fn initial(self, yaml: &'static str) -> Self {
        Self { chart: Chart { initial: Some(yaml), ..self.chart }, ..self }
    }

    /// The JSON schema of the chart's value, if not that of the type.
    #[must_use]
    pub const fn schema(self, json: &'static str) -> Self {
        Self { chart: Chart { schema: Some(json), ..self.chart }, ..self }
    }

    /// The template condition under which the chart writes the key.
    #[must_use]
    pub const fn when(self, condition: &'static str) -> Self {
        Self { chart: Chart { when: Some(condition), ..self.chart }, ..self }
    }

    /// Restricts an integer to a range.
    #[must_use]
    pub const fn within(self, range: RangeInclusive<u64>) -> Self {
        Self { within: Some((*range.start(), *range.end())), ..self }
    }

    /// What errors say is expected, if not what the type says.
    #[must_use]
    pub const fn want(self, want: &'static str) -> Self {
        Self { want: Some(want), ..self }
    }
}

impl<T: Field> Key<T> {
    /// Which texts the key accepts.
    #[must_use]
    pub fn form(&self) -> Form {
        let mut form = T::form();
        if let Some((least, most)) = self.within {
            form.want = format!("a number from {least} to {most}").into();
            form.accepts = Accepts::Whole(least, most);
        }
        form.want = self.want.map_or(form.want, Into::into);
        form
    }

    /// The key without its type.
    #[must_use]
    pub fn any(&self) -> AnyKey {
        let meaning = self.meaning.trim().trim_end_matches('.');
        AnyKey { name: self.name, meaning, default: self.default, form: self.form(), chart: self.chart }
    }
}

impl AnyKey {
    /// Whether it is a switch: as a flag it needs no value.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.form.accepts == Accepts::Switch
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
