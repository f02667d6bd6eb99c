//! `use` declarations written out: `use std::{fs, io::Read}` is `std::fs` and `std::io::Read`.

use super::code::words_at;

/// Each path that is used, with where its last part stands.
pub(super) fn used_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for at in words_at(code, "use") {
        let start = at + "use".len();
        // Not `impl Trait + use<'a>`.
        if !code[start..].starts_with(char::is_whitespace) {
            continue;
        }
        let end = code[start..].find(';').map_or(code.len(), |length| start + length);
        flatten(&code[start..end], start, "", &mut paths);
    }
    paths
}

fn flatten(tree: &str, at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) {
    let Some(open) = tree.find('{') else {
        let path = tree.trim();
        if !path.is_empty() {
            let leading = tree.len() - tree.trim_start().len();
            paths.push((at + leading, format!("{prefix}{path}")));
        }
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let close = tree.rfind('}').unwrap_or(tree.len()).max(open + 1);
    let inner = &tree[open + 1..close];
    let mut start = 0;
    let mut depth = 0_usize;
    for (end, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                flatten(&inner[start..end], at + open + 1 + start, &prefix, paths);
                start = (end + 1).min(inner.len());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        used_paths(code).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn groups_are_written_out() {
        assert_eq!(paths("use std::fs;"), ["std::fs"]);
        assert_eq!(
            paths("pub use std::{\n    fs,\n    io::{self, Read as R},\n    time::Instant,\n};\nuse a::*;"),
            ["std::fs", "std::io::self", "std::io::Read as R", "std::time::Instant", "a::*"]
        );
        assert_eq!(paths("fn reuse() -> impl Sized + use<> {}"), Vec::<String>::new());
    }

    #[test]
    fn places_are_those_of_the_last_part() {
        let code = "use crate::{\n    packet,\n    maps::FLOWS,\n};";
        for (at, path) in used_paths(code) {
            let last = path.strip_prefix("crate::").expect("all begin so");
            assert!(code[at..].starts_with(last), "{path}");
        }
    }

    #[test]
    fn unfinished_code_does_no_harm() {
        assert_eq!(paths("use a::{b"), ["a::b"]);
        assert_eq!(paths("use }{"), Vec::<String>::new());
    }
}
