// SPDX-License-Identifier: Apache-2.0
//! The paths in a source, as far as it takes to tell which files it uses.

use std::{collections::BTreeMap, iter::Peekable, vec::IntoIter};

use super::Module;

type Tokens<'a> = Peekable<IntoIter<&'a str>>;

/// What a source names.
#[derive(Default)]
pub(super) struct Names<'a> {
    /// Its submodules.
    submodules: Vec<&'a str>,
    /// What it imports, and under which name.
    imports: Vec<(Vec<&'a str>, &'a str)>,
    /// All paths of more than one segment elsewhere.
    paths: Vec<Vec<&'a str>>,
}

impl<'a> Names<'a> {
    pub(super) fn of(source: &'a str) -> Self {
        let mut tokens = tokens(source).into_iter().peekable();
        let mut names = Self::default();
        while let Some(token) = tokens.next() {
            match token {
                "use" => {
                    import(&mut tokens, &[], &mut names.imports);
                }
                "mod" => {
                    let name = tokens.next();
                    names.submodules.extend(name.filter(|_| tokens.peek() == Some(&";")));
                }
                word if is_word(word) => {
                    let path = path(word, &mut tokens);
                    names.paths.extend((path.len() > 1).then_some(path));
                }
                _ => {}
            }
        }
        names
    }

    /// Those of the paths that lead to something of this crate, from its root.
    pub(super) fn absolute_paths(&self, module: &Module) -> Vec<Module> {
        let mut scope: BTreeMap<&str, Module> = BTreeMap::new();
        for &name in &self.submodules {
            scope.insert(name, absolute(&["self", name], module, &scope).unwrap_or_default());
        }
        let mut found = Vec::new();
        for (path, name) in &self.imports {
            if let Some(path) = absolute(path, module, &scope) {
                scope.insert(name, path.clone());
                found.push(path);
            }
        }
        found.extend(self.paths.iter().filter_map(|path| absolute(path, module, &scope)));
        found
    }
}

/// A path from the root, if it leads to something of this crate.
fn absolute(path: &[&str], module: &Module, scope: &BTreeMap<&str, Module>) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    let mut absolute = match *first {
        "crate" => Module::new(),
        "self" => module.clone(),
        "super" => parent(module),
        name => scope.get(name)?.clone(),
    };
    for segment in rest {
        match *segment {
            "super" => absolute = parent(&absolute),
            "self" | "*" => {}
            name => absolute.push(name.into()),
        }
    }
    Some(absolute)
}

fn parent(module: &Module) -> Module {
    module.split_last().map_or_else(Module::new, |(_, parent)| parent.to_vec())
}

/// What a `use` imports, one branch of it; returns the sign that ends the branch.
fn import<'a>(
    tokens: &mut Tokens<'a>,
    prefix: &[&'a str],
    imports: &mut Vec<(Vec<&'a str>, &'a str)>,
) -> Option<&'a str> {
    let mut path = prefix.to_vec();
    let (mut alias, mut branches) = (None, false);
    loop {
        match tokens.next()? {
            "::" => {}
            "as" => alias = tokens.next(),
            "{" => {
                branches = true;
                while import(tokens, &path, imports)? == "," {}
            }
            end @ ("," | "}" | ";") => {
                if !branches && path.len() > prefix.len() {
                    let name = path.iter().rfind(|segment| **segment != "self").copied();
                    imports.extend(alias.or(name).map(|name| (path, name)));
                }
                return Some(end);
            }
            segment => path.push(segment),
        }
    }
}

/// A path that begins with that word.
fn path<'a>(first: &'a str, tokens: &mut Tokens<'a>) -> Vec<&'a str> {
    let mut path = vec![first];
    while tokens.next_if_eq(&"::").is_some() {
        let Some(segment) = tokens.next_if(|token| is_word(token)) else { break };
        path.push(segment);
    }
    path
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first == '_' || first.is_alphabetic())
}

/// Words and signs of a source, `::` as one, without comments, strings and characters.
fn tokens(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let left_out = comment(rest).or_else(|| literal(rest));
        let length = match first {
            _ if left_out.is_some() => left_out.unwrap_or_default(),
            _ if is_part(first) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let Some((token, after)) = rest.split_at_checked(length) else { break };
        if left_out.is_none() && !first.is_whitespace() {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// Length of the comment at the beginning, if there is one.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then(|| rest.find("*/").map_or(rest.len(), |end| end + 2))
}

/// Length of the string or character at the beginning, if there is one. A single quote may be that of a lifetime.
fn literal(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    let mut characters = rest.char_indices().skip(1);
    let mut inside = 0;
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote && (quote == '"' || inside == 1) => return Some(at + 1),
            '\\' => drop(characters.next()),
            _ => {}
        }
        inside += 1;
        if quote == '\'' && inside > 1 {
            break;
        }
    }
    (quote == '"').then_some(rest.len())
}
