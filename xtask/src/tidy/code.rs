//! Rust source with comments and the insides of literals blanked out.

/// The code of a file: same lines, same columns, but spaces for whatever is not code.
pub(super) fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let before_is_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (kept, length) = match first {
            '/' if rest.starts_with("//") => (0, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (0, block_comment_length(rest)),
            '"' => (1, quoted_length(rest, '"')),
            '\'' => match char_literal_length(rest) {
                Some(length) => (1, length),
                None => (1, 1),
            },
            'r' | 'b' | 'c' if !before_is_name => match raw_string_length(rest) {
                Some(length) => (1, length),
                None => (1, 1),
            },
            _ => (first.len_utf8(), first.len_utf8()),
        };
        code.push_str(&rest[..kept]);
        // The closing quote stays, so that a literal is still seen to be one.
        code.extend(rest[kept..length].chars().map(blank));
        if length > 1 && first == '"' {
            code.pop();
            code.push('"');
        }
        rest = &rest[length..];
    }
    code
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// None for a lifetime.
fn char_literal_length(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, content) = chars.next()?;
    if content == '\\' {
        return Some(quoted_length(text, '\''));
    }
    let (at, end) = chars.next()?;
    (end == '\'').then_some(at + 1)
}

/// `r"…"`, `r#"…"#`, and with `b` or `c` before; None for anything else.
fn raw_string_length(text: &str) -> Option<usize> {
    let hashes_at = text.find('r').filter(|at| *at <= 1)? + 1;
    if hashes_at == 2 && !text.starts_with(['b', 'c']) {
        return None;
    }
    let quote_at = hashes_at + text[hashes_at..].find(|c| c != '#')?;
    if !text[quote_at..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", &text[hashes_at..quote_at]);
    let body_at = quote_at + 1;
    Some(text[body_at..].find(&end).map_or(text.len(), |at| body_at + at + end.len()))
}

/// Where a word begins: not within a longer name.
pub(super) fn words_at<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let end = at + word.len();
        let goes_on_before = word.starts_with(is_name) && code[..at].ends_with(is_name);
        let goes_on_after = word.ends_with(is_name) && code[end..].starts_with(is_name);
        !goes_on_before && !goes_on_after
    })
}

/// The number of the line, from 1.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where the unit tests begin, by our habit the last thing in a file.
pub(super) fn tests_at(code: &str) -> usize {
    code.match_indices("#[cfg(test)]")
        .map(|(at, attribute)| (at, code[at + attribute.len()..].trim_start()))
        .find(|(_, item)| item.starts_with("mod ") && opens_a_block(item))
        .map_or(code.len(), |(at, _)| at)
}

fn opens_a_block(item: &str) -> bool {
    item.find(['{', ';']).is_some_and(|at| item[at..].starts_with('{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go() {
        for (source, expected) in [
            ("let a = 1; // todo!", "let a = 1;         "),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"todo! \\\" x\") + 1", "f(\"          \") + 1"),
            ("x = r#\"a \" b\"# + y", "x = r          + y"),
            ("br\"dbg!\" y", "b        y"),
            ("'x' '\\'' 'a: b", "'   '    'a: b"),
            ("var\"s\"", "var\" \""),
            ("/* a\nb */ c", "    \n     c"),
            ("\"open", "\"   \""),
        ] {
            let code = code_of(source);
            assert_eq!(code.trim_end(), expected.trim_end(), "{source}");
        }
    }

    #[test]
    fn words_are_whole() {
        let code = "use aya::maps; ayatollah; xaya; aya_log; aya";
        assert_eq!(words_at(code, "aya").collect::<Vec<_>>(), [4, 41]);
        assert_eq!(words_at("my_todo!() todo!()", "todo!").collect::<Vec<_>>(), [11]);
        assert_eq!(words_at("crate::flow_table", "crate::flow").count(), 0);
    }

    #[test]
    fn finds_where_tests_begin() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(line_at(code, tests_at(code)), 2);
        for without in ["fn a() {}", "#[cfg(test)]\nmod tests;\nfn a() {}", "#[cfg(test)]\nfn a() {}"] {
            assert_eq!(tests_at(without), without.len(), "{without}");
        }
    }
}
