// SPDX-License-Identifier: GPL-2.0
//! The line that a message is about, as a person sees it.

use super::decode::visible;
use super::node::At;

/// Of a longer line only the part around the place is shown; JSON may be one line.
const MAX_COLUMNS: usize = 100;
const BEFORE: usize = 40;

pub struct Lines<'t> {
    lines: Vec<&'t str>,
}

impl<'t> Lines<'t> {
    /// Divided as libyaml counts: YAML 1.1 has more line breaks than YAML 1.2.
    pub fn of(text: &'t str) -> Self {
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(end) = rest.find(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
            let (line, after) = rest.split_at(end);
            lines.push(line);
            let mut chars = after.chars();
            if chars.next() == Some('\r') && chars.as_str().starts_with('\n') {
                chars.next();
            }
            rest = chars.as_str();
        }
        lines.push(rest);
        Lines { lines }
    }

    /// Two lines, each behind a line break; nothing for a place behind the end.
    pub fn excerpt(&self, at: At) -> String {
        let index = (at.line as usize).saturating_sub(1);
        let Some(line) = self.lines.get(index).filter(|line| !line.trim().is_empty()) else {
            return String::new();
        };
        let column = (at.column as usize).saturating_sub(1);
        let first = if line.chars().count() > MAX_COLUMNS {
            column.saturating_sub(BEFORE)
        } else {
            0
        };
        let shown = |from: usize, to: usize| -> String {
            let part: String = line
                .chars()
                .skip(from)
                .take(to.saturating_sub(from))
                .collect();
            visible(&part.replace('\t', " "))
        };
        let cut = |is_cut: bool| if is_cut { "..." } else { "" };
        let before = format!("{}{}", cut(first > 0), shown(first, column));
        let after = shown(column, first + MAX_COLUMNS);
        let more = line.chars().nth(first + MAX_COLUMNS).is_some();
        let number = at.line.to_string();
        format!(
            "\n  {number} | {before}{after}{}\n  {:width$} | {:indent$}^",
            cut(more),
            "",
            "",
            width = number.len(),
            indent = before.chars().count(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, line: u32, column: u32) -> String {
        Lines::of(text).excerpt(At { line, column })
    }

    #[test]
    fn the_caret_is_under_the_place() {
        assert_eq!(excerpt("a\r\nb: c\r\n", 2, 4), "\n  2 | b: c\n    |    ^");
        assert_eq!(excerpt("\tx\n", 1, 2), "\n  1 |  x\n    |  ^");
        assert_eq!(excerpt("a\n", 2, 1), "");
        assert_eq!(excerpt("a\n", 9, 1), "");
        assert_eq!(
            excerpt("a: \u{1b}[31m\n", 1, 4),
            "\n  1 | a: \\u{1b}[31m\n    |    ^"
        );
    }

    #[test]
    fn long_lines_are_cut() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let text = excerpt(&line, 1, 501);
        let mut lines = text.lines().skip(1);
        let (shown, caret) = (
            lines.next().expect("a line"),
            lines.next().expect("a caret"),
        );
        assert_eq!(shown.find('X'), caret.find('^'), "{text}");
        assert!(shown.contains("...a") && shown.ends_with("b..."), "{text}");
        assert!(shown.len() < 120, "{text}");
    }
}
