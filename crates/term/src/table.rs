//! Tables without lines, as docker prints them.

use std::io;

use crate::{human::safe, print};

/// Columns of text under their heads.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Whether a column's values stand at its right edge.
    right: Vec<bool>,
}

impl Table {
    /// A table with these heads. The values of a column whose head begins with `>` are numbers,
    /// and stand to the right.
    pub fn new(heads: &[&str]) -> Self {
        Self {
            right: heads.iter().map(|head| head.starts_with('>')).collect(),
            rows: vec![
                heads
                    .iter()
                    .map(|head| head.trim_start_matches('>').to_owned())
                    .collect(),
            ],
        }
    }

    /// A table without heads: names and what they stand for.
    pub fn of_facts() -> Self {
        Self::default()
    }

    /// Adds a row. What could drive a terminal is taken out of its values.
    pub fn row(&mut self, values: impl IntoIterator<Item = String>) {
        self.rows
            .push(values.into_iter().map(|value| safe(&value)).collect());
    }

    /// The whole table as text.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|value| value.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, value) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - value.chars().count());
                if column > 0 {
                    line.push_str("   ");
                }
                if self.right.get(column) == Some(&true) {
                    line.extend([pad.as_str(), value]);
                } else {
                    line.extend([value.as_str(), &pad]);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints it.
    pub fn print(&self) -> io::Result<()> {
        print(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let mut table = Table::new(&["NAME", ">SIZE", "NOTE"]);
        table.row(["a".into(), "10GiB".into(), String::new()]);
        table.row(["längerer".into(), "1B".into(), "x\x1b[31my\n".into()]);
        assert_eq!(
            table.text(),
            "NAME        SIZE   NOTE\na          10GiB\nlängerer      1B   x?[31my?\n"
        );
        let mut facts = Table::of_facts();
        facts.row(["Name".into(), "data".into()]);
        facts.row(["Schedule".into(), "none".into()]);
        assert_eq!(facts.text(), "Name       data\nSchedule   none\n");
        assert_eq!(Table::of_facts().text(), "");
    }
}
