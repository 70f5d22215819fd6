// SPDX-License-Identifier: Apache-2.0
//! Tables whose columns are as wide as their widest cell, some spaces apart, as every command prints them.

use std::fmt;

const GAP: usize = 3;

/// A table. Rows may differ in length; lines have no trailing spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    gap: usize,
    rows: Vec<Vec<String>>,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_gap(GAP)
    }
}

impl Table {
    /// A table with a header.
    pub(crate) fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        let mut table = Self::default();
        table.row(header);
        table
    }

    /// An empty table with this many spaces between columns.
    pub(crate) fn with_gap(gap: usize) -> Self {
        Self { gap, rows: Vec::new() }
    }

    /// Adds the rows of another table, and aligns them with these.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            // The last cell of a line widens nothing, since nothing follows it.
            let padded = row.len().saturating_sub(1);
            widths.resize(widths.len().max(row.len()), 0);
            for (widest, cell) in widths.iter_mut().zip(row).take(padded) {
                *widest = cell.chars().count().max(*widest);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', (width + self.gap).saturating_sub(cell.chars().count())));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_space() {
        let mut table = Table::new(["ID", "LABELS"]);
        table.row(["1", "reserved:host"]);
        table.row(["12345", ""]);
        table.row(["", "k8s:a=b"]);
        table.row(["a line of its own, however long"]);
        let want = "ID      LABELS\n1       reserved:host\n12345\n        k8s:a=b\na line of its own, however long\n";
        assert_eq!(table.to_string(), want);
    }
}
