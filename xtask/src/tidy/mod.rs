//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that a program can check.
//!
//! The rules are tables in `rules.rs`; here they are applied to every file, and all that is
//! wrong is said at once.

mod code;
mod docs;
mod manifests;
mod rules;
mod sources;
mod uses;

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::paths;

/// Something against a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// Relative to the repository.
    file: String,
    line: usize,
    rule: &'static str,
    advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.advice)
    }
}

/// Checks everything; says how much that was.
pub(crate) fn tidy() -> Result<String> {
    let root = paths::root();
    let files = files_below(&root)?;
    let mut violations = docs::check_presence(&root);
    for file in &files {
        let path = root.join(file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {} (is it UTF-8?)", path.display()))?;
        let found = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => sources::check(file, &text),
            Some("md") => docs::check(file, &text, |target| root.join(target).exists()),
            _ => manifests::check(file, &text),
        };
        violations.extend(found);
    }
    violations.sort();
    if !violations.is_empty() {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        bail!("tidy found {}:\n{}", violations.len(), lines.join("\n"));
    }
    Ok(format!("{} files keep the rules", files.len()))
}

/// All Rust, Markdown and Cargo.toml files, relative to the root and sorted.
fn files_below(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if entry.file_type()?.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    dirs.push(entry.path());
                }
            } else if name == "Cargo.toml" || name.ends_with(".rs") || name.ends_with(".md") {
                found.extend(relative(root, &entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    path.strip_prefix(root).ok()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_reads_like_a_compilers() {
        let violation = Violation {
            file: "lb-common/src/lib.rs".to_owned(),
            line: 7,
            rule: "file-length",
            advice: "split it".to_owned(),
        };
        assert_eq!(violation.to_string(), "lb-common/src/lib.rs:7: file-length: split it");
    }

    #[test]
    fn finds_this_file() {
        let files = files_below(&paths::root()).expect("the repository is readable");
        assert!(files.contains(&"xtask/src/tidy/mod.rs".to_owned()));
        assert!(files.contains(&"lb-ebpf/Cargo.toml".to_owned()));
        assert!(!files.iter().any(|file| file.starts_with("target/")));
    }
}
