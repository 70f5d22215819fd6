// SPDX-License-Identifier: Apache-2.0
//! Envoy's objects as they are written: fields are taken one by one, and what nobody takes is not passed over.

use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is told of one object at most.
const NOTES: usize = 64;
/// Length of one thing that is told, in letters.
const LONGEST_NOTE: usize = 400;
/// Expressions that one object may have: each takes memory in every proxy.
const EXPRESSIONS: usize = 128;

/// A field that makes what it belongs to unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// What is found while an object is read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    notes: RefCell<Vec<String>>,
    further: Cell<usize>,
    expressions: Cell<usize>,
    pub(super) limits: RefCell<Vec<l7::RateLimit>>,
}

impl Reading {
    /// Takes note of what is not honoured.
    pub(super) fn note(&self, note: impl AsRef<str>) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < NOTES {
            notes.push(told(note.as_ref()));
        } else {
            self.further.set(self.further.get() + 1);
        }
    }

    /// All that was noted.
    pub(super) fn notes(self) -> Vec<String> {
        let mut notes = self.notes.into_inner();
        if self.further.get() > 0 {
            notes.push(format!("{} things more", self.further.get()));
        }
        notes
    }

    /// Counts an expression.
    pub(super) fn expression(&self) -> std::result::Result<(), String> {
        self.expressions.set(self.expressions.get() + 1);
        if self.expressions.get() > EXPRESSIONS {
            return Err(format!("there are more than {EXPRESSIONS} expressions"));
        }
        Ok(())
    }
}

/// What can be shown to people, wherever it is from.
pub(super) fn told(text: &str) -> String {
    text.chars().take(LONGEST_NOTE).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// Whether a name can be shown, and is no longer than one of Kubernetes.
pub(super) fn is_plain(name: &str) -> bool {
    name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A value, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) reading: &'a Reading,
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn fault<T>(&self, reason: impl std::fmt::Display) -> Result<T> {
        Err(Fault(format!("{}: {reason}", self.path)))
    }

    pub(super) fn fields(&self) -> Result<Fields<'a>> {
        let Value::Object(map) = self.value else { return self.fault("is no object") };
        let known = map.iter().filter(|(_, value)| !value.is_null());
        let left = known.map(|(name, value)| (snake_case(name), value)).collect();
        Ok(Fields { reading: self.reading, path: self.path.clone(), left })
    }

    pub(super) fn items(&self) -> Result<Vec<Node<'a>>> {
        let Value::Array(items) = self.value else { return self.fault("is no list") };
        let item = |(number, value)| Node { reading: self.reading, path: format!("{}[{number}]", self.path), value };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.as_str().map_or_else(|| self.fault("is no text"), Ok)
    }

    /// A whole number, which may be written as a text.
    pub(super) fn number<T: TryFrom<u64>>(&self) -> Result<T> {
        let number = self.value.as_u64().or_else(|| self.value.as_str()?.parse().ok());
        let number = number.and_then(|number| T::try_from(number).ok());
        number.map_or_else(|| self.fault("is no number that it can be"), Ok)
    }

    pub(super) fn flag(&self) -> Result<bool> {
        self.value.as_bool().map_or_else(|| self.fault("is neither true nor false"), Ok)
    }

    fn duration(&self) -> Result<Duration> {
        let duration = seconds(self.text()?);
        duration.map_or_else(|| self.fault("is no duration, such as 1.5s"), Ok)
    }

    /// What may not be there. The reason is the proxy's, which reads such texts too.
    pub(super) fn usable<T>(&self, read: std::result::Result<T, String>) -> Result<T> {
        read.or_else(|reason| self.fault(reason))
    }
}

/// The fields of an object that are still to be read.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    reading: &'a Reading,
    pub(super) path: String,
    left: BTreeMap<String, &'a Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn reading(&self) -> &'a Reading {
        self.reading
    }

    pub(super) fn fault<T>(&self, reason: impl std::fmt::Display) -> Result<T> {
        Err(Fault(format!("{}: {reason}", self.path)))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let value = self.left.remove(name)?;
        Some(Node { reading: self.reading, path: format!("{}.{name}", self.path), value })
    }

    /// The message that the object is, without what all of them begin with.
    pub(super) fn kind(&mut self) -> Result<&'a str> {
        let kind = self.left.remove("@type").and_then(Value::as_str);
        kind.map_or_else(|| self.fault("has no @type"), |kind| Ok(kind.rsplit('/').next().unwrap_or(kind)))
    }

    pub(super) fn required(&mut self, name: &str) -> Result<Node<'a>> {
        self.take(name).map_or_else(|| self.fault(format_args!("has no {name}")), Ok)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<&'a str>> {
        self.take(name).map(|node| node.text()).transpose()
    }

    pub(super) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>> {
        self.take(name).map(|node| node.number()).transpose()
    }

    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>> {
        self.take(name).map(|node| node.duration()).transpose()
    }

    pub(super) fn items(&mut self, name: &str) -> Result<Vec<Node<'a>>> {
        self.take(name).map(|node| node.items()).transpose().map(Option::unwrap_or_default)
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Fields<'a>>> {
        self.take(name).map(|node| node.fields()).transpose()
    }

    pub(super) fn is_set(&mut self, name: &str) -> Result<bool> {
        Ok(self.take(name).map(|node| node.flag()).transpose()?.unwrap_or_default())
    }

    /// What must be off, since it cannot be done.
    pub(super) fn off(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            if self.is_set(name)? {
                return self.fault(format_args!("{name} is not supported"));
            }
        }
        Ok(())
    }

    /// What says nothing here, whatever it says.
    pub(super) fn skip(&mut self, names: &[&str]) {
        for name in names {
            self.left.remove(*name);
        }
    }

    /// What can be left out without letting anybody through, and is.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            if self.left.remove(*name).is_some() {
                self.reading.note(format!("{}.{name} is not honoured", self.path));
            }
        }
    }

    /// Whatever is left may change who gets what.
    pub(super) fn end(self) -> Result<()> {
        match self.left.keys().next() {
            Some(name) => self.fault(format_args!("{name} is not supported")),
            None => Ok(()),
        }
    }
}

/// As Envoy's definitions name fields. Manifests have either way. Names of extensions, which have dots, stay.
fn snake_case(name: &str) -> String {
    if name.contains('.') {
        return name.to_owned();
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Protocol Buffers' durations: seconds with up to nine decimals.
fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || part.len() > 9 || !digits(whole) || !digits(part) {
        return None;
    }
    let nanoseconds = format!("{part:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanoseconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_either_name_and_what_nobody_takes_is_a_fault_that_names_it() {
        let (reading, value) =
            (Reading::default(), json!({"maxTokens": "5", "stat_prefix": "x", "added_later": 1, "none": null}));
        let node = Node { reading: &reading, path: "resources[0]".into(), value: &value };
        let mut fields = node.fields().unwrap();
        assert_eq!(fields.number::<u32>("max_tokens").unwrap(), Some(5));
        fields.ignore(&["stat_prefix"]);
        assert_eq!(fields.end().unwrap_err(), Fault("resources[0]: added_later is not supported".into()));
        assert_eq!(reading.notes(), ["resources[0].stat_prefix is not honoured"]);
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(seconds("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(seconds("0.000000001s"), Some(Duration::from_nanos(1)));
        assert_eq!(seconds("5s"), Some(Duration::from_secs(5)));
        for text in ["", "s", "5", "-1s", "1.0000000000s", "1ms", "1.s5", "9999999999s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_noted_and_how_many_expressions_there_are_has_bounds() {
        let reading = Reading::default();
        (0..1000).for_each(|number| reading.note(number.to_string()));
        assert!((0..EXPRESSIONS).all(|_| reading.expression().is_ok()));
        assert!(reading.expression().is_err());
        let notes = reading.notes();
        assert_eq!((notes.len(), notes.last().unwrap().as_str()), (NOTES + 1, "936 things more"));
    }
}
