//! The rules on Rust files.

use std::collections::BTreeSet;

use super::{
    Violation,
    code::{code_of, line_at, tests_at, words_at},
    rules::{BANS, Ban, FILE_LINES_MAX, is_in},
    uses::used_paths,
};

/// How far above an `unsafe` its statement, and thus its comment, may begin.
const STATEMENT_LINES_MAX: usize = 6;

pub(super) fn check(file: &str, source: &str) -> Vec<Violation> {
    let code = code_of(source);
    let violation = |(line, rule, advice): (usize, &'static str, String)| Violation {
        file: file.to_owned(),
        line,
        rule,
        advice,
    };
    BANS.iter()
        .flat_map(|ban| banned(ban, file, &code))
        .chain(too_long(source))
        .chain(without_reason(&code))
        .chain(undocumented_unsafe(source, &code))
        .map(violation)
        .collect()
}

type Found = (usize, &'static str, String);

fn banned(ban: &Ban, file: &str, code: &str) -> Vec<Found> {
    let applies = ban.places.iter().any(|place| is_in(file, place))
        && !ban.except.iter().any(|place| is_in(file, place));
    if !applies {
        return Vec::new();
    }
    let is_test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
    let end = match (ban.in_tests, is_test_file) {
        (true, _) => code.len(),
        (false, true) => 0,
        (false, false) => tests_at(code),
    };
    let code = &code[..end];
    let used = used_paths(code);
    // Once a line and word: most are found both in a `use` and in its path.
    let mut lines = BTreeSet::new();
    for word in ban.words {
        let in_uses = used.iter().filter(|(_, path)| words_at(path, word).next().is_some());
        let places = words_at(code, word).chain(in_uses.map(|(at, _)| *at));
        lines.extend(places.map(|at| (line_at(code, at), *word)));
    }
    lines.into_iter().map(|(line, word)| (line, ban.rule, format!("`{word}`: {}", ban.advice))).collect()
}

fn too_long(source: &str) -> Option<Found> {
    let lines = source.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let advice = format!("{lines} lines, {FILE_LINES_MAX} at most: split it by job");
        (FILE_LINES_MAX + 1, "file-length", advice)
    })
}

fn without_reason(code: &str) -> Vec<Found> {
    ["allow", "expect"]
        .iter()
        .flat_map(|word| words_at(code, word).map(move |at| (at, *word)))
        .filter(|(at, word)| is_attribute(code, *at) && code[at + word.len()..].starts_with('('))
        .filter(|(at, _)| words_at(parenthesised(&code[*at..]), "reason").next().is_none())
        .map(|(at, word)| {
            let advice = format!("say why: #[{word}(…, reason = \"…\")]");
            (line_at(code, at), "lint-reason", advice)
        })
        .collect()
}

/// Whether an attribute is open here: `#[…` or `#![…`, `cfg_attr` included.
fn is_attribute(code: &str, at: usize) -> bool {
    let before = &code[..at];
    before.rfind("#[").max(before.rfind("#![")).is_some_and(|open| !before[open..].contains(']'))
}

/// Up to the parenthesis that closes the first one.
fn parenthesised(code: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return &code[..at],
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    code
}

fn undocumented_unsafe(source: &str, code: &str) -> Vec<Found> {
    let source: Vec<&str> = source.lines().collect();
    let code_lines: Vec<&str> = code.lines().collect();
    let needs_comment: BTreeSet<usize> = words_at(code, "unsafe")
        .filter(|&at| is_block_or_item(&code[at + "unsafe".len()..]))
        .map(|at| line_at(code, at))
        .collect();
    needs_comment
        .into_iter()
        .filter(|&line| !is_documented(&source, &code_lines, line - 1))
        .map(|line| {
            let advice = "say above it what makes it sound: `// SAFETY: …`, or a `# Safety` section";
            (line, "unsafe-comment", advice.to_owned())
        })
        .collect()
}

/// Not `#[unsafe(no_mangle)]`, and not the type `unsafe fn(…)`.
fn is_block_or_item(after: &str) -> bool {
    let after = after.trim_start();
    let function = after
        .strip_prefix("extern")
        .map_or(after, |abi| abi.trim_start_matches(|c: char| c.is_whitespace() || c == '"'));
    match function.strip_prefix("fn") {
        Some(name) => !name.trim_start().starts_with('('),
        None => !after.starts_with('('),
    }
}

/// Looks at the line itself, then upwards to where its statement or item begins.
fn is_documented(source: &[&str], code: &[&str], line: usize) -> bool {
    let says_why = |line: usize| {
        let text = source[line];
        // A string that says it does not count, and neither does code.
        let comment = text.find("//").map_or("", |at| &text[at..]);
        comment.contains("SAFETY:") || comment.contains("# Safety")
    };
    let mut statement_lines = 0;
    if says_why(line) {
        return true;
    }
    for above in (0..line).rev() {
        if says_why(above) {
            return true;
        }
        let code = code[above].trim();
        if code.is_empty() {
            if source[above].trim().is_empty() {
                return false;
            }
            continue;
        }
        statement_lines += 1;
        let ends_another = code.ends_with([';', '}']) || words_at(code, "unsafe").next().is_some();
        if ends_another || statement_lines > STATEMENT_LINES_MAX {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, source: &str) -> Vec<(usize, &'static str)> {
        check(file, source).into_iter().map(|found| (found.line, found.rule)).collect()
    }

    #[test]
    fn bans_hold_where_they_should() {
        for (file, source, expected) in [
            ("lb-common/src/lib.rs", "use flowgate::model;", vec![(1, "crate-order")]),
            ("lb-userspace/src/api.rs", "use aya::maps::Array;", vec![(1, "aya-in-datapath")]),
            ("lb-userspace/src/api.rs", "\nlet e: aya_obj::Error;", vec![(2, "aya-in-datapath")]),
            ("lb-userspace/src/datapath/maps.rs", "use aya::maps::Array;", vec![]),
            ("lb-userspace/src/main.rs", "use flowgate::cli;", vec![]),
            ("lb-userspace/src/model/id.rs", "use std::{\n  fs,\n};", vec![(2, "pure")]),
            ("lb-userspace/src/model/id.rs", "use std::fmt;", vec![]),
            ("lb-userspace/src/health/fsm.rs", "let now = Instant::now();", vec![(1, "pure")]),
            ("lb-userspace/src/health/probe.rs", "let now = Instant::now();", vec![]),
            ("lb-ebpf/src/forward/nat.rs", "use crate::{packet, egress};", vec![(1, "forward-without-maps")]),
            ("lb-ebpf/src/select/mod.rs", "crate::packet::parse();", vec![(1, "select-without-packets")]),
            ("tests/src/lib.rs", "todo!()", vec![(1, "unfinished")]),
            ("tests/src/lib.rs", "// todo!()\nlet x = \"todo!()\";", vec![]),
            ("tests/tests/net.rs", "#[test]\n#[ignore = \"slow\"]", vec![(2, "ignored-test")]),
        ] {
            assert_eq!(found(file, source), expected, "{file}: {source}");
        }
    }

    #[test]
    fn tests_of_pure_code_may_have_a_clock() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { Instant::now(); } }\n";
        assert_eq!(found("lb-userspace/src/ring/table.rs", source), []);
        assert_eq!(found("lb-userspace/src/ring/tests.rs", "Instant::now();"), []);
    }

    #[test]
    fn long_files_are_split() {
        let fits = "\n".repeat(FILE_LINES_MAX);
        assert_eq!(found("tests/tests/a.rs", &fits), []);
        assert_eq!(found("tests/tests/a.rs", &(fits + "\n")), [(501, "file-length")]);
    }

    #[test]
    fn lint_exceptions_have_reasons() {
        for (source, expected) in [
            ("#[allow(dead_code)]", vec![(1, "lint-reason")]),
            ("#![expect(dead_code)]", vec![(1, "lint-reason")]),
            ("#[cfg_attr(test, allow(dead_code))]", vec![(1, "lint-reason")]),
            ("#[expect(\n    dead_code,\n    reason = \"later\"\n)]", vec![]),
            ("value.expect(\"it is there\")", vec![]),
            ("#[test]\nfn a() { b.expect(c) }", vec![]),
        ] {
            assert_eq!(found("tests/src/lib.rs", source), expected, "{source}");
        }
    }

    #[test]
    fn unsafe_code_says_why() {
        let bad = vec![(1, "unsafe-comment")];
        for (source, expected) in [
            ("unsafe { a() }", bad.clone()),
            ("unsafe impl Pod for A {}", bad.clone()),
            ("pub unsafe fn a() {}", bad.clone()),
            ("unsafe extern \"C\" fn a() {}", bad.clone()),
            ("#[unsafe(no_mangle)]", vec![]),
            ("let f: unsafe fn(u32) = g;", vec![]),
            ("let f: unsafe extern \"C\" fn(u32) = g;", vec![]),
            ("// unsafe { a() }", vec![]),
            ("unsafe { a() } // SAFETY: a is fine", vec![]),
            ("// SAFETY: a is fine\n#[inline]\nlet x =\n    unsafe { a() };", vec![]),
            ("/// # Safety\n///\n/// Never twice.\npub unsafe fn a() {}", vec![]),
            ("// SAFETY: b\nb();\nunsafe { a() }", vec![(3, "unsafe-comment")]),
            ("// SAFETY: b\n\nunsafe { a() }", vec![(3, "unsafe-comment")]),
        ] {
            assert_eq!(found("lb-ebpf/src/a.rs", source), expected, "{source}");
        }
    }
}
