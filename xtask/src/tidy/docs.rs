//! The rules on Markdown files, and on files that must be there.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::{Violation, rules::REQUIRED};

/// Where paths named in prose begin.
const TOP_DIRS: [&str; 5] = ["lb-common/", "lb-ebpf/", "lb-userspace/", "tests/", "xtask/"];

pub(super) fn check_presence(root: &Path) -> Vec<Violation> {
    REQUIRED
        .iter()
        .flat_map(|(file, phrases)| missing(file, phrases, fs::read_to_string(root.join(file)).ok()))
        .collect()
}

fn missing(file: &str, phrases: &[&str], text: Option<String>) -> Vec<Violation> {
    let violation = |advice| Violation { file: file.to_owned(), line: 1, rule: "required", advice };
    let Some(text) = text else {
        return vec![violation("this file must be there: add it".to_owned())];
    };
    phrases
        .iter()
        .filter(|phrase| !text.contains(*phrase))
        .map(|phrase| violation(format!("must name `{phrase}`: say what it does")))
        .collect()
}

/// Links, and in ARCHITECTURE.md also paths in backticks, lead to something that exists.
pub(super) fn check(file: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Violation> {
    let dir = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for (line, text) in prose(text) {
        let links = links(text).map(|target| (target, normal(&dir.join(target))));
        let named =
            named_paths(text).filter(|_| file == "ARCHITECTURE.md").map(|path| (path, PathBuf::from(path)));
        found.extend(links.chain(named).filter(|(_, path)| !exists(path)).map(|(target, _)| Violation {
            file: file.to_owned(),
            line,
            rule: "dead-link",
            advice: format!("`{target}` does not exist: correct or remove it"),
        }));
    }
    found
}

/// Numbered lines without those of code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    })
}

/// Relative targets of `[text](target)`, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|after| {
        let target = after.split([')', ' ']).next()?;
        let path = target.split('#').next()?;
        let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!is_elsewhere && !path.is_empty()).then_some(path)
    })
}

/// Whole paths from the repository's root in backticks; no patterns.
fn named_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|name| {
        TOP_DIRS.iter().any(|dir| name.starts_with(dir))
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c))
            && !name.contains("...")
    })
}

/// Without `.` and `..`, as there is no file system to ask.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(file: &str, text: &str) -> Vec<usize> {
        let there = ["README.md", "docs/a.md", "lb-ebpf/src", "lb-ebpf/src/main.rs"];
        check(file, text, |path| there.iter().any(|file| Path::new(file) == path))
            .iter()
            .map(|violation| violation.line)
            .collect()
    }

    #[test]
    fn links_lead_somewhere() {
        assert_eq!(dead("README.md", "[a](docs/a.md) [b](docs/a.md#part)\n[c](docs/c.md)"), [2]);
        assert_eq!(dead("docs/a.md", "[up](../README.md) [no](README.md)"), [1]);
        assert_eq!(dead("README.md", "[w](https://a.b/c) [m](mailto:a@b) [h](#here)"), []);
        assert_eq!(dead("README.md", "```\n[c](docs/c.md)\n```\n[c](docs/c.md \"title\")"), [4]);
    }

    #[test]
    fn paths_in_the_architecture_exist() {
        let text = "`lb-ebpf/src/main.rs` and `lb-ebpf/src/`\n`lb-ebpf/src/gone.rs`\n`tests/*.rs`";
        assert_eq!(dead("ARCHITECTURE.md", text), [2]);
        assert_eq!(dead("README.md", text), []);
    }

    #[test]
    fn required_files_name_what_they_must() {
        let advice = |text: Option<&str>| -> Vec<String> {
            missing("README.md", &["cargo xtask demo"], text.map(str::to_owned))
                .into_iter()
                .map(|violation| violation.advice)
                .collect()
        };
        assert_eq!(advice(None), ["this file must be there: add it"]);
        assert_eq!(advice(Some("nothing")), ["must name `cargo xtask demo`: say what it does"]);
        assert_eq!(advice(Some("run `cargo xtask demo`")), Vec::<String>::new());
    }
}
