//! Colours: few, and only where a terminal shows them.

use std::env;

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing in particular.
    Plain,
    /// A title.
    Title,
    /// Traffic may be lost.
    Warning,
    /// Traffic is being lost.
    Bad,
}

impl Paint {
    /// Colours where `terminal` holds, unless the environment is against it (`NO_COLOR`, `TERM=dumb`).
    pub(crate) fn for_terminal(terminal: bool) -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self(terminal && !unwanted)
    }

    #[cfg(test)]
    pub(crate) fn new(colours: bool) -> Self {
        Self(colours)
    }

    /// `text` in the colour of `tone`.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Title => "1",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
