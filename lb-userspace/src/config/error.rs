//! What is wrong with a configuration: where, what, why and the way out.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::document::{Document, Step, position};

/// Why a file is not a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML, or not of the file's shape.
    #[error(transparent)]
    Text(#[from] TextError),
    /// What it says is not valid.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// The first thing in a text that is not TOML or not of the file's shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TextError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, and the way out.
    pub message: String,
    /// The text of that line.
    pub excerpt: String,
    /// So many characters of it are meant, at least 1.
    pub width: usize,
}

impl TextError {
    pub(super) fn new(path: &Path, text: &str, span: std::ops::Range<usize>, message: String) -> Self {
        let (line, column) = position(text, span.start);
        let excerpt = text.split('\n').nth(line - 1).unwrap_or_default().trim_end_matches('\r').to_owned();
        let meant =
            text.get(span).map_or(0, |meant| meant.lines().next().unwrap_or_default().chars().count());
        Self { path: path.to_owned(), line, column, message, excerpt, width: meant.max(1) }
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, message, excerpt, width } = self;
        let gutter = " ".repeat(line.to_string().len());
        // A tab stays a tab, so that the carets stand below what they point at.
        let blank = |c| if c == '\t' { '\t' } else { ' ' };
        let indent: String = excerpt.chars().take(column - 1).map(blank).collect();
        writeln!(f, "{}:{line}:{column}: {message}", path.display())?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {excerpt}")?;
        write!(f, "{gutter} | {indent}{}", "^".repeat(*width))
    }
}

/// One thing that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its line, from 1, where it is from a file.
    pub line: Option<usize>,
    /// The thing, for example `service "web" (line 12), backend 10.2.0.11`.
    pub subject: String,
    /// The field, for example `weight`; empty where it is the thing as a whole.
    pub field: String,
    /// What is wrong with it, why, and the way out.
    pub message: String,
    steps: Vec<Step>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// Everything that is not valid in a file or a request, in its order; displayed one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    path: Option<PathBuf>,
    problems: Vec<Problem>,
}

impl Problems {
    /// The problems one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Whether all is well.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// What came out, or nothing where it was a problem, which is kept.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.push(problem)).ok()
    }

    /// Finds the line of each problem, and sorts by it.
    pub(super) fn locate(&mut self, document: &Document<'_>, path: &Path) {
        self.path = Some(path.to_owned());
        for problem in &mut self.problems {
            problem.line = document.line(&problem.steps);
        }
        self.problems.sort_by_key(|problem| problem.line);
    }
}

impl Extend<Problem> for Problems {
    fn extend<T: IntoIterator<Item = Problem>>(&mut self, problems: T) {
        self.problems.extend(problems);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            match (&self.path, problem.line) {
                (Some(path), Some(line)) => write!(f, "{}:{line}: ", path.display())?,
                (Some(path), None) => write!(f, "{}: ", path.display())?,
                (None, _) => {}
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// The thing that is being looked at: what it is called, and its place in a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    subject: String,
    steps: Vec<Step>,
}

impl Scope {
    /// A section of the file.
    pub(super) fn section(name: &str) -> Self {
        Self { subject: name.to_owned(), steps: vec![name.into()] }
    }

    /// A service; `place` says where it was declared, `index` is its number in the file.
    pub(super) fn service(name: &str, place: Option<&str>, index: Option<usize>) -> Self {
        let place = place.map_or_else(String::new, |place| format!(" ({place})"));
        let steps = index.map_or_else(Vec::new, |index| vec!["service".into(), index.into()]);
        Self { subject: format!("service {name:?}{place}"), steps }
    }

    /// What the thing is called.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// A part of the thing; `label` is what it is called.
    pub(super) fn part(&self, label: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let subject = format!("{}, {label}", self.subject);
        Self { subject, steps: self.steps.iter().cloned().chain(steps).collect() }
    }

    /// A problem with one of its fields; the message names the field.
    pub(super) fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        let mut steps = self.steps.clone();
        if !field.is_empty() {
            steps.push(field.into());
        }
        Problem {
            line: None,
            subject: self.subject.clone(),
            field: field.to_owned(),
            message: message.into(),
            steps,
        }
    }
}
