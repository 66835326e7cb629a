//! Tables for people: aligned columns, no borders, a head in bold. Programs take `--json`.

use anstyle::{Effects, Style};
use comfy_table::{ContentArrangement, Table as Comfy, presets};

use super::text::plain;

const HEAD: Style = Style::new().effects(Effects::BOLD);

/// A table that is being filled.
#[derive(Debug)]
pub struct Table {
    table: Comfy,
}

impl Table {
    /// With these columns. `width` is the terminal's; `None` wraps nothing.
    #[must_use]
    pub fn new(head: &[&str], width: Option<u16>) -> Self {
        let mut table = Comfy::new();
        table
            .load_preset(presets::NOTHING)
            .set_header(head.to_vec());
        match width {
            Some(width) => table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    /// Adds a row. What would be a control character or the end of a line is made harmless.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells = cells
            .into_iter()
            .map(|cell| plain(cell.as_ref()).replace(['\n', '\t'], " "));
        self.table.add_row(cells.collect::<Vec<_>>());
    }

    /// The table's text, with a line end after each line.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (number, line) in self.table.lines().enumerate() {
            let line = line.trim_end();
            match number {
                0 => text.push_str(&format!("{HEAD}{line}{HEAD:#}\n")),
                _ => text.push_str(&format!("{line}\n")),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn columns_are_aligned_without_borders_or_trailing_blanks() {
        let mut table = Table::new(&["THING", "STATE"], None);
        table.row(["Käsefräse", "online"]);
        table.row(["Fan", "offline"]);
        let text = strip_str(&table.render()).to_string();
        assert_eq!(
            text,
            "THING      STATE\nKäsefräse  online\nFan        offline\n"
        );
    }

    #[test]
    fn a_cell_cannot_break_its_row_or_the_terminal() {
        let mut table = Table::new(&["THING"], None);
        table.row(["a\nb\u{1b}[31m"]);
        assert_eq!(
            strip_str(&table.render()).to_string(),
            "THING\na b\u{fffd}[31m\n"
        );
    }

    #[test]
    fn a_narrow_terminal_wraps_and_a_pipe_does_not() {
        let long = "word ".repeat(20);
        let render = |width| {
            let mut table = Table::new(&["A", "B"], width);
            table.row(["x", long.trim()]);
            strip_str(&table.render()).to_string()
        };
        let narrow = render(Some(40));
        assert!(
            narrow.lines().count() > 2 && narrow.lines().all(|line| line.len() <= 40),
            "{narrow}"
        );
        assert_eq!(render(None).lines().count(), 2);
    }
}
