// SPDX-License-Identifier: Apache-2.0
//! Which expressions are let in. What one costs grows with the labels of a flow, which whoever owns a pod may have thousands of: so loops do not
//! nest, nothing makes a list longer, and regular expressions are compiled once and within bounds.

use crate::filter::text::regex;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::common::types::CelString;
use regex::Regex;
use std::collections::HashMap;

/// Regular expressions by their text.
pub(super) type Patterns = HashMap<String, Regex>;

/// Macros that look at each element of a list.
const LOOPS: [&str; 5] = ["all", "exists", "exists_one", "existsOne", "filter"];

/// What was seen of an expression whose macros are not expanded.
#[derive(Default)]
pub(super) struct Shape {
    patterns: Patterns,
}

impl Shape {
    /// Its regular expressions; the error says what is expected instead.
    pub(super) fn check(expression: &Expr) -> Result<Patterns, &'static str> {
        let mut shape = Self::default();
        shape.look(expression, false)?;
        Ok(shape.patterns)
    }

    fn look(&mut self, expression: &Expr, looping: bool) -> Result<(), &'static str> {
        match expression {
            Expr::Call(call) => self.call(call, looping),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.look(&element.expr, looping)),
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr), looping),
            Expr::Struct(structure) => self.entries(structure.entries.iter().map(|entry| &entry.expr), looping),
            Expr::Select(select) => self.look(&select.operand.expr, looping),
            Expr::Comprehension(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn entries<'a>(
        &mut self,
        mut entries: impl Iterator<Item = &'a EntryExpr>,
        looping: bool,
    ) -> Result<(), &'static str> {
        entries.try_for_each(|entry| match entry {
            EntryExpr::StructField(field) => self.look(&field.value.expr, looping),
            EntryExpr::MapEntry(entry) => {
                self.look(&entry.key.expr, looping)?;
                self.look(&entry.value.expr, looping)
            }
        })
    }

    fn call(&mut self, call: &CallExpr, looping: bool) -> Result<(), &'static str> {
        let name = call.func_name.as_str();
        let loops = LOOPS.contains(&name);
        match name {
            "has" => return Err("supported: compare the field with its default instead of has()"),
            "map" => return Err("supported without map()"),
            _ if loops && looping => return Err("supported: write it without a loop within a loop"),
            "matches" => self.pattern(call)?,
            _ => {}
        }
        if let Some(target) = &call.target {
            self.look(&target.expr, looping)?;
        }
        call.args.iter().try_for_each(|argument| self.look(&argument.expr, looping || loops))
    }

    /// The last argument of `matches()`.
    fn pattern(&mut self, call: &CallExpr) -> Result<(), &'static str> {
        const WANT: &str = "supported: call matches() with regular expressions in quotes that are not too large";
        let text = match call.args.last().map(|argument| &argument.expr) {
            Some(Expr::Literal(LiteralValue::String(text))) => CelString::inner(text),
            _ => return Err(WANT),
        };
        self.patterns.insert(text.to_owned(), regex("matches", text).map_err(|_| WANT)?);
        Ok(())
    }
}
