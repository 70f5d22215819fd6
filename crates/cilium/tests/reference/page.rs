// SPDX-License-Identifier: Apache-2.0
//! The parts that pages are made of, and how a page that is not up to date differs.

/// The first line of every page.
const GENERATED: &str =
    "<!-- Generated from the code by `make docs` and compared by `make check`: change the code, not this page. -->";
/// How many lines of a difference are shown of each side.
const SHOWN: usize = 20;

/// A page of the reference, in Markdown.
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn new(title: &str, text: &str) -> Self {
        let mut page = Self(format!("{GENERATED}\n\n# {title}\n"));
        page.text(text);
        page
    }

    pub(crate) fn heading(&mut self, level: usize, title: &str) {
        self.0.push_str(&format!("\n{} {title}\n", "#".repeat(level)));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.0.push_str(&format!("\n{}\n", text.trim()));
    }

    pub(crate) fn block(&mut self, text: &str) {
        self.text(&format!("```text\n{}\n```", text.trim_end()));
    }

    /// A table, unless it has no rows.
    pub(crate) fn table<const N: usize>(&mut self, head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        self.0.push_str(&format!("\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(N)));
        for row in rows {
            self.0.push_str(&format!(
                "| {} |\n",
                row.map(|cell| cell.replace('|', r"\|").replace('\n', " ")).join(" | ")
            ));
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Text in the type of code; nothing of nothing.
pub(crate) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Items in the type of code, with commas between.
pub(crate) fn codes<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| code(item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Where the page differs from what it should be: what both begin and end with is left out. None when they are equal.
pub(crate) fn difference(found: &str, wanted: &str) -> Option<String> {
    if found == wanted {
        return None;
    }
    let (found, wanted): (Vec<&str>, Vec<&str>) = (found.lines().collect(), wanted.lines().collect());
    let begin = found.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let (found, wanted) = (&found[begin..], &wanted[begin..]);
    let end = found.iter().rev().zip(wanted.iter().rev()).take_while(|(a, b)| a == b).count();
    let side = |sign: char, lines: &[&str]| {
        let lines = &lines[..lines.len() - end];
        let more = lines.len().saturating_sub(SHOWN);
        let mut text: String = lines.iter().take(SHOWN).map(|line| format!("{sign} {line}\n")).collect();
        if more > 0 {
            text.push_str(&format!("{sign} ... and {more} lines more\n"));
        }
        text
    };
    Some(format!("@ line {}\n{}{}", begin + 1, side('-', found), side('+', wanted)))
}

#[test]
fn a_difference_shows_only_the_lines_that_differ() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(difference("a\nb\nc\n", "a\nx\ny\nc\n").as_deref(), Some("@ line 2\n- b\n+ x\n+ y\n"));
    assert_eq!(difference("", "a\n").as_deref(), Some("@ line 1\n+ a\n"));
}
