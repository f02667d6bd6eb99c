//! What the audience sees: headings, sentences, and one live block of figures.
//!
//! On a terminal the block is drawn over itself once a second; elsewhere there is one line a second.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    colours: bool,
    begun: Instant,
    /// The lines of the live block, which is right above the cursor.
    block: Vec<String>,
    /// Whether the columns of the plain lines have their heads.
    headed: bool,
}

/// Requests of one service in one second.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The service.
    pub(super) service: String,
    /// Answered requests, in the order of the backends.
    pub(super) answered: Vec<u64>,
    /// Requests without an answer.
    pub(super) failed: u64,
}

const LABEL: usize = 16;
const COLUMN: usize = 7;

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { terminal, colours, begun: Instant::now(), block: Vec::new(), headed: false }
    }

    /// The demo's title.
    pub(super) fn title(&mut self, text: &str) {
        println!("\n{}\n{}", self.bold(text), "=".repeat(text.chars().count()));
    }

    /// The title of a part. What was drawn stays above it.
    pub(super) fn heading(&mut self, text: &str) {
        self.block.clear();
        self.headed = false;
        println!("\n{}\n", self.bold(text));
    }

    /// A sentence, or several lines: above the live block.
    pub(super) fn say(&mut self, text: &str) {
        self.erase_block();
        for line in text.lines() {
            println!("{}", format!("  {line}").trim_end());
        }
        self.print_block();
    }

    /// A sentence about something that happens now.
    pub(super) fn event(&mut self, text: &str) {
        let mark = self.bold(&format!("{:>5.1} s", self.begun.elapsed().as_secs_f64()));
        self.say(&format!("{mark}  {text}"));
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.say("\n");
    }

    /// The last second's requests, with a remark that may be empty.
    pub(super) fn show(&mut self, backends: &[&str], rows: &[Row], remark: &str) {
        if self.terminal {
            self.draw(backends, rows, remark);
        } else {
            self.print_line(backends, rows, remark);
        }
        let _ = std::io::stdout().flush();
    }

    /// Bold, where the terminal can.
    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Green, where the terminal can.
    pub(super) fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Red, where the terminal can.
    pub(super) fn red(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn draw(&mut self, backends: &[&str], rows: &[Row], remark: &str) {
        self.erase_block();
        let mut block = vec![String::new(), head(backends)];
        block.extend(rows.iter().map(|row| self.row(&row.service, row)));
        block.push(self.row("all", &sum(rows)));
        if !remark.is_empty() {
            block.push(remark.to_owned());
        }
        self.block = block;
        self.print_block();
    }

    fn print_line(&mut self, backends: &[&str], rows: &[Row], remark: &str) {
        if !self.headed {
            println!("  {}", head(backends));
            self.headed = true;
        }
        let time = format!("{:>5.1} s", self.begun.elapsed().as_secs_f64());
        let line = format!("  {}  {remark}", self.row(&time, &sum(rows)));
        println!("{}", line.trim_end());
    }

    fn row(&self, label: &str, row: &Row) -> String {
        let mut line = format!("{label:<LABEL$}");
        for answered in &row.answered {
            line.push_str(&format!("{answered:>COLUMN$}"));
        }
        let failed = format!("{:>1$}", row.failed, COLUMN + 1);
        line.push_str(&if row.failed > 0 { self.red(&failed) } else { failed });
        line
    }

    fn print_block(&self) {
        for line in &self.block {
            println!("  {line}");
        }
    }

    /// Takes the live block away, so that text can go where it was.
    fn erase_block(&self) {
        if !self.block.is_empty() {
            print!("\x1b[{}A\x1b[J", self.block.len());
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn head(backends: &[&str]) -> String {
    let mut line = format!("{:<LABEL$}", "requests/s");
    for backend in backends {
        line.push_str(&format!("{backend:>COLUMN$}"));
    }
    line.push_str(&format!("{:>1$}", "failed", COLUMN + 1));
    line
}

fn sum(rows: &[Row]) -> Row {
    let backends = rows.first().map_or(0, |row| row.answered.len());
    Row {
        service: "all".to_owned(),
        answered: (0..backends).map(|n| rows.iter().map(|row| row.answered[n]).sum()).collect(),
        failed: rows.iter().map(|row| row.failed).sum(),
    }
}
