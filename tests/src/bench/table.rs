//! Tables in Markdown, aligned so that a terminal shows them as well as a README.

use std::fmt;

use comfy_table::{CellAlignment, Table as Comfy, presets};

use super::statistics::Sample;

/// A table that is being filled. The first column is the row's name; the others are numbers, on the right.
#[derive(Debug)]
pub struct Table {
    table: Comfy,
    columns: usize,
}

impl Table {
    /// With these columns.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        let mut table = Comfy::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_header(head.to_vec());
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self {
            table,
            columns: head.len(),
        }
    }

    /// Adds a row; cells that are missing at its end are empty.
    pub fn row<T: Into<String>>(&mut self, name: &str, cells: impl IntoIterator<Item = T>) {
        let mut row = vec![name.to_owned()];
        row.extend(cells.into_iter().map(Into::into));
        row.resize(self.columns, String::new());
        self.table.add_row(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.table.lines().enumerate() {
            let line = match number {
                1 => to_the_right(&line),
                _ => line,
            };
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// Markdown's rule under the head, with every column but the first aligned to the right.
fn to_the_right(rule: &str) -> String {
    let mut columns: Vec<String> = rule.split('|').map(str::to_owned).collect();
    let last = columns.len().saturating_sub(1);
    for column in columns.iter_mut().take(last).skip(2) {
        column.pop();
        column.push(':');
    }
    columns.join("|")
}

/// p50, p95 and the largest, as cells.
#[must_use]
pub fn spread(sample: &Sample) -> [String; 3] {
    [sample.p50(), sample.p95(), sample.max()].map(number)
}

/// A measurement with three digits that count; a dash for what was not measured.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "-".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_numbers_on_the_right() {
        let mut table = Table::new(&["ms", "p50", "p95"]);
        table.row("frame", ["1.25", "10.5"]);
        table.row("text", [number(f64::NAN)]);
        let lines = "| ms    |  p50 |  p95 |\n|-------|-----:|-----:|\n| frame | 1.25 | 10.5 |\n| text  |    - |      |\n";
        assert_eq!(table.to_string(), lines);
    }

    #[test]
    fn three_digits_count() {
        assert_eq!(
            [0.0123, 1.234, 12.34, 1234.5].map(number),
            ["0.012", "1.23", "12.3", "1234"]
        );
    }
}
