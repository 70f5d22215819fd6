// SPDX-License-Identifier: Apache-2.0
//! Expressions by their text. Each takes tens of kilobytes, and more with what is matched, so routes that ask for the same share it.

use imbl::HashMap;
use l7::syntax;
use regex::Regex;
use std::sync::{Arc, Weak};

/// So many are kept in mind before it is looked which of them are still asked for.
const LEAST: usize = 64;

/// Those that routes have. A clone shares everything that does not change.
#[derive(Clone, Debug, Default)]
pub(super) struct Expressions {
    known: HashMap<Arc<str>, Weak<Regex>>,
    /// How many there were when it was looked last.
    alive: usize,
}

impl Expressions {
    /// The expression of a text, all of which it matches.
    ///
    /// # Errors
    ///
    /// It is none, or takes too much.
    pub(super) fn get(&mut self, text: &str) -> Result<Arc<Regex>, String> {
        if let Some(known) = self.known.get(text).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let made = Arc::new(syntax::expression(text)?);
        if self.known.len() >= LEAST.max(2 * self.alive) {
            self.known.retain(|_, expression| expression.strong_count() > 0);
            self.alive = self.known.len();
        }
        self.known.insert(text.into(), Arc::downgrade(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::{Expressions, LEAST};
    use std::sync::Arc;

    #[test]
    fn one_that_is_asked_for_twice_is_there_once_and_those_of_nobody_are_forgotten() {
        let mut expressions = Expressions::default();
        let first = expressions.get("a+").unwrap();
        assert!(Arc::ptr_eq(&first, &expressions.get("a+").unwrap()));
        assert!(expressions.get("(").is_err());
        for number in 0..3 * LEAST {
            drop(expressions.get(&format!("b{number}")).unwrap());
        }
        assert!(expressions.known.len() <= LEAST, "{}", expressions.known.len());
        assert!(Arc::ptr_eq(&first, &expressions.get("a+").unwrap()), "somebody asks for it still");
    }
}
