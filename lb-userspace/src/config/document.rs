//! Where things are in a file's text: from a path such as `service`, 2, `port` to a line, and back.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One step from a table or an array to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a table.
    Key(String),
    /// Into an array.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A file's text, as far as it is TOML.
#[derive(Debug)]
pub(super) struct Document<'a> {
    lines: Lines,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Reads the text as TOML.
    pub(super) fn new(text: &'a str) -> Result<Self, toml::de::Error> {
        Ok(Self { root: DeTable::parse(text)?, lines: Lines::new(text) })
    }

    /// The value at the end of `steps`.
    pub(super) fn value(&self, steps: &[Step]) -> Option<&Spanned<DeValue<'a>>> {
        let (first, rest) = steps.split_first()?;
        let Step::Key(first) = first else { return None };
        let mut value = self.root.get_ref().iter().find(|(key, _)| key.get_ref() == first)?.1;
        for step in rest {
            value = child(value.get_ref(), step)?.1;
        }
        Some(value)
    }

    /// The line, from 1, of what is at the end of `steps`, or of the last thing on the way that is there.
    pub(super) fn line(&self, steps: &[Step]) -> Option<usize> {
        let parents = (1..=steps.len()).rev().map(|depth| steps.split_at(depth).0.split_last());
        parents.flatten().find_map(|(last, parent)| self.start(parent, last)).map(|at| self.lines.line(at))
    }

    fn start(&self, parent: &[Step], last: &Step) -> Option<usize> {
        if parent.is_empty() {
            let Step::Key(last) = last else { return None };
            return self.root.get_ref().keys().find(|key| key.get_ref() == last).map(|key| key.span().start);
        }
        child(self.value(parent)?.get_ref(), last).map(|(span, _)| span.start)
    }

    /// The path of the innermost thing whose key or value holds `span`.
    pub(super) fn path_at(&self, span: &Range<usize>) -> Vec<Step> {
        let mut best = Vec::new();
        search_table(self.root.get_ref(), span, &mut Vec::new(), &mut best);
        best
    }
}

/// Line and column, from 1, of a byte of `text`; columns are characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let at = text.floor_char_boundary(at);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Lines of many places in one text.
#[derive(Debug)]
pub(super) struct Lines {
    newlines: Vec<usize>,
}

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        Self { newlines: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    /// The line, from 1, of a byte of the text.
    pub(super) fn line(&self, at: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < at) + 1
    }
}

fn child<'v, 'a>(value: &'v DeValue<'a>, step: &Step) -> Option<(Range<usize>, &'v Spanned<DeValue<'a>>)> {
    match (value, step) {
        (DeValue::Table(table), Step::Key(name)) => {
            table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, value)| (key.span(), value))
        }
        (DeValue::Array(array), Step::Index(index)) => array.get(*index).map(|value| (value.span(), value)),
        _ => None,
    }
}

fn search_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<Step>, best: &mut Vec<Step>) {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref().to_string()));
        if holds(&key.span(), span) && path.len() > best.len() {
            best.clone_from(path);
        }
        search_value(value, span, path, best);
        path.pop();
    }
}

fn search_value(
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
    path: &mut Vec<Step>,
    best: &mut Vec<Step>,
) {
    if holds(&value.span(), span) && path.len() > best.len() {
        best.clone_from(path);
    }
    match value.get_ref() {
        DeValue::Table(table) => search_table(table, span, path, best),
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                path.push(Step::Index(index));
                search_value(value, span, path, best);
                path.pop();
            }
        }
        _ => {}
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

#[cfg(test)]
mod tests {
    use super::{Document, Lines, Step, position};

    const TEXT: &str = r#"[agent]
interfaces = ["eth0",
  "eth1"]

[[service]]
name = "a"

[[service]]
name = "b"
health.type = "tcp"
[[service.backend]]
address = "10.0.0.1"
"#;

    fn steps(text: &str) -> Vec<Step> {
        text.split('.').map(|step| step.parse().map_or_else(|_| step.into(), Step::Index)).collect()
    }

    #[test]
    fn paths_lead_to_lines() {
        let document = Document::new(TEXT).unwrap();
        let cases = [
            ("agent", 1),
            ("agent.interfaces", 2),
            ("agent.interfaces.1", 3),
            ("service.0", 5),
            ("service.1", 8),
            ("service.1.name", 9),
            ("service.1.health.type", 10),
            ("service.1.health.path", 10),
            ("service.1.backend.0", 11),
            ("service.1.backend.0.address", 12),
            ("service.1.backend.0.port", 11),
        ];
        for (path, line) in cases {
            assert_eq!(document.line(&steps(path)), Some(line), "{path}");
        }
        assert_eq!(document.line(&steps("limits")), None);
    }

    #[test]
    fn spans_lead_to_paths() {
        let document = Document::new(TEXT).unwrap();
        for (word, path) in [
            ("eth1", "agent.interfaces.1"),
            ("\"b\"", "service.1.name"),
            ("type", "service.1.health.type"),
            ("10.0.0.1", "service.1.backend.0.address"),
        ] {
            let at = TEXT.find(word).unwrap();
            assert_eq!(document.path_at(&(at..at + word.len())), steps(path), "{word}");
        }
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("é = 1\nüb", 0), (1, 1));
        assert_eq!(position("é = 1\nüb", 3), (1, 3));
        assert_eq!(position("é = 1\nüb", 9), (2, 2));
        assert_eq!(position("a\n", 2), (2, 1));
        assert_eq!(position("", 7), (1, 1));
    }

    #[test]
    fn both_ways_to_a_line_agree() {
        let lines = Lines::new(TEXT);
        for at in 0..=TEXT.len() {
            assert_eq!(lines.line(at), position(TEXT, at).0, "{at}");
        }
    }
}
