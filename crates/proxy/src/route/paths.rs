// SPDX-License-Identifier: Apache-2.0
//! Matches of one host, found by path.

use super::action::RouteRule;
use super::condition::{Condition, Lack};
use super::entries::Entries;
use super::expression::Expressions;
use super::sought::Sought;
use crate::invalid::{InField, Invalid};
use imbl::HashMap;
use l7::{Name, PathMatch, Precedence, RouteMatch};
use regex::Regex;
use std::sync::Arc;

/// One match of a route.
#[derive(Debug)]
pub(crate) struct Entry {
    route: Arc<RouteRule>,
    /// Which of the route's matches it is.
    index: u32,
    place: PathKey,
    condition: Condition,
}

/// Where a match is filed.
#[derive(Debug)]
enum PathKey {
    Exact(Arc<str>),
    Start(Arc<str>),
    /// Without a final slash.
    Prefix(Arc<str>),
    Regex(Arc<Regex>),
}

impl Entry {
    /// All matches of a route.
    pub(super) fn all(route: &Arc<RouteRule>, known: &mut Expressions) -> Result<Entries, Invalid> {
        let matches = (0..).zip(route.given.matches.iter());
        matches.map(|(index, rule)| Self::parse(index, rule, route, known).map(Arc::new)).collect()
    }

    fn parse(index: u32, rule: &RouteMatch, route: &Arc<RouteRule>, known: &mut Expressions) -> Result<Self, Invalid> {
        let place = match &rule.path {
            PathMatch::Exact(path) => PathKey::Exact(absolute(path)?.into()),
            PathMatch::Start(path) => PathKey::Start(absolute(path)?.into()),
            PathMatch::Prefix(path) => PathKey::Prefix(absolute(path)?.trim_end_matches('/').into()),
            PathMatch::Regex(text) => PathKey::Regex(known.get(text).in_field("path")?),
        };
        let condition = Condition::parse(rule, known)?;
        Ok(Self { index, route: Arc::clone(route), place, condition })
    }

    pub(super) fn order(&self) -> (Option<&Precedence>, &Name) {
        let rule = self.route.given.matches.get(self.index as usize);
        (rule.map(|rule| &rule.precedence), self.route.name())
    }

    pub(crate) fn route(&self) -> &Arc<RouteRule> {
        &self.route
    }

    /// Whether the path of a request is the one that this match is for.
    pub(crate) fn is_on(&self, path: &str) -> bool {
        match &self.place {
            PathKey::Exact(exact) => **exact == *path,
            PathKey::Start(start) => path.starts_with(&**start),
            PathKey::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathKey::Regex(regex) => regex.is_match(path),
        }
    }

    /// The path that this match is for, for people.
    pub(crate) fn path(&self) -> String {
        match &self.place {
            PathKey::Exact(path) => format!("={path}"),
            PathKey::Start(start) => format!("{start}*"),
            PathKey::Prefix(prefix) => format!("{prefix}/*"),
            PathKey::Regex(regex) => format!("~{}", regex.as_str()),
        }
    }

    /// Length of the prefix that this match replaces when its route rewrites one.
    pub(crate) fn prefix_length(&self, path: &str) -> usize {
        match &self.place {
            PathKey::Start(prefix) | PathKey::Prefix(prefix) => prefix.len(),
            PathKey::Exact(_) | PathKey::Regex(_) => path.len(),
        }
    }
}

fn absolute(path: &str) -> Result<&str, Invalid> {
    path.starts_with('/').then_some(path).ok_or_else(|| Invalid::new("path", format!("{path:?} does not begin with /")))
}

/// All matches of one host. A clone shares what does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    exact: HashMap<Arc<str>, Entries>,
    prefix: HashMap<Arc<str>, Entries>,
    /// How many prefixes there are by number of segments, so that a path of many slashes costs no more than there are.
    depths: imbl::OrdMap<usize, usize>,
    start: HashMap<Arc<str>, Entries>,
    /// How many beginnings there are by length.
    lengths: imbl::OrdMap<usize, usize>,
    regex: Entries,
}

impl Paths {
    pub(crate) fn insert(&mut self, entry: &Arc<Entry>) {
        match &entry.place {
            PathKey::Exact(path) => self.exact.entry(path.clone()).or_default().insert(entry),
            PathKey::Prefix(path) => {
                *self.depths.entry(segments(path)).or_default() += 1;
                self.prefix.entry(path.clone()).or_default().insert(entry);
            }
            PathKey::Start(start) => {
                *self.lengths.entry(start.len()).or_default() += 1;
                self.start.entry(start.clone()).or_default().insert(entry);
            }
            PathKey::Regex(_) => self.regex.insert(entry),
        }
    }

    /// Takes out an entry that was put in.
    pub(crate) fn remove(&mut self, entry: &Arc<Entry>) {
        match &entry.place {
            PathKey::Exact(path) => take_from(&mut self.exact, path, entry),
            PathKey::Prefix(path) => {
                take_from(&mut self.prefix, path, entry);
                one_less(&mut self.depths, segments(path));
            }
            PathKey::Start(start) => {
                take_from(&mut self.start, start, entry);
                one_less(&mut self.lengths, start.len());
            }
            PathKey::Regex(_) => self.regex.remove(entry),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.start.is_empty() && self.regex.is_empty()
    }

    /// The match that precedes all others for the request. `passed` sees those that are looked at and are not for it.
    pub(crate) fn find<'a>(
        &'a self,
        sought: &Sought<'_>,
        mut passed: impl FnMut(&'a Entry, Lack<'a>),
    ) -> Option<&'a Entry> {
        let path = sought.path();
        let deepest = self.depths.get_max().map_or(0, |(depth, _)| *depth);
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]).take(deepest);
        let prefixes = std::iter::once("").chain(ends.filter_map(|end| path.get(..end)));
        let buckets = self.exact.get(path).into_iter().chain(prefixes.filter_map(|prefix| self.prefix.get(prefix)));
        let starts = self.lengths.keys().map_while(|length| path.get(..*length));
        let buckets = buckets.chain(starts.filter_map(|start| self.start.get(start)));
        let mut best: Option<&Entry> = None;
        for bucket in buckets.chain([&self.regex]) {
            for entry in bucket.iter() {
                if best.is_some_and(|best| best.order() <= entry.order()) {
                    break;
                }
                let on_path = match &entry.place {
                    PathKey::Regex(regex) => regex.is_match(path),
                    PathKey::Exact(_) | PathKey::Start(_) | PathKey::Prefix(_) => true,
                };
                if !on_path {
                    continue;
                }
                match entry.condition.lacks(sought) {
                    Some(lack) => passed(entry, lack),
                    None => {
                        best = Some(entry);
                        break;
                    }
                }
            }
        }
        best
    }

    /// All matches, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let buckets = self.exact.values().chain(self.prefix.values()).chain(self.start.values()).chain([&self.regex]);
        buckets.flat_map(|bucket| bucket.iter().map(Arc::as_ref))
    }
}

fn segments(prefix: &str) -> usize {
    prefix.matches('/').count()
}

fn one_less(counts: &mut imbl::OrdMap<usize, usize>, key: usize) {
    match counts.get(&key) {
        Some(1) | None => drop(counts.remove(&key)),
        Some(count) => drop(counts.insert(key, count - 1)),
    }
}

fn take_from(buckets: &mut HashMap<Arc<str>, Entries>, path: &Arc<str>, entry: &Arc<Entry>) {
    let Some(bucket) = buckets.get_mut(path) else { return };
    bucket.remove(entry);
    if bucket.is_empty() {
        buckets.remove(path);
    }
}
