//! Where a command's output goes, and how it looks there.

use std::io::Write;

use serde::Serialize;

use super::{args::Output, failure::Failure, render::Paint};

/// Standard output and standard error.
pub(crate) struct Terminal<'a> {
    /// What the command was run for.
    pub(crate) out: &'a mut dyn Write,
    /// Progress.
    pub(crate) err: &'a mut dyn Write,
    /// How `out` is coloured.
    pub(crate) paint: Paint,
    /// Whether `err` may be written over.
    pub(crate) err_is_terminal: bool,
}

impl Terminal<'_> {
    /// Prints `answer`: as the API's JSON, or as what `table` makes of it.
    pub(crate) fn answer<T: Serialize + ?Sized>(
        &mut self,
        output: Output,
        answer: &T,
        table: impl FnOnce(&T, Paint) -> String,
    ) -> Result<(), Failure> {
        match output {
            Output::Table => self.text(&table(answer, self.paint)),
            Output::Json => {
                let json = serde_json::to_string_pretty(answer);
                let json =
                    json.map_err(|error| Failure::Failed(format!("cannot write the answer: {error}")))?;
                self.text(&(json + "\n"))
            }
        }
    }

    /// Says how things stand, beside the answer.
    pub(crate) fn note(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.err, "{line}").and_then(|()| self.err.flush()).map_err(Failure::Output)
    }

    /// Prints text that ends its own lines.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Failure::Output)
    }
}
