//! "Did you mean …?"

/// The candidate that `word` was most likely meant to be; none where nothing is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let close = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= close)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_of_the_pen_are_understood() {
        let fields = ["name", "address", "port", "protocol", "idle_timeout"];
        let cases = [
            ("adress", Some("address")),
            ("Port", Some("port")),
            ("prot", Some("port")),
            ("idle-timeout", Some("idle_timeout")),
            ("colour", None),
            ("", None),
        ];
        for (word, meant) in cases {
            assert_eq!(nearest(word, fields), meant, "{word}");
        }
    }
}
