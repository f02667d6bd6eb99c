//! Durations: text with units, both ways.

use std::{ops::RangeInclusive, time::Duration};

use crate::config::error::{Problem, Scope};

/// A duration as files have it: "5m", "1h 30m", "500ms".
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The duration that `text` stands for, where it is in `range`.
pub(super) fn parse(
    text: &str,
    field: &str,
    range: &RangeInclusive<Duration>,
    scope: &Scope,
) -> Result<Duration, Problem> {
    let refused = |reason: String| scope.problem(field, format!("{field} = {text:?}: {reason}"));
    let number = text.trim();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused(format!("add a unit, for example \"{number}s\"")));
    }
    let duration = humantime::parse_duration(text).map_err(|_| {
        refused(
            "not a duration: write numbers with units, for example \"500ms\", \"2s\" or \"5m\"".to_owned(),
        )
    })?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = (format_duration(*range.start()), format_duration(*range.end()));
    Err(refused(format!("out of range: use {low} to {high}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{format_duration, parse};
    use crate::config::error::Scope;

    fn read(text: &str) -> Result<Duration, String> {
        let range = Duration::from_secs(1)..=Duration::from_secs(36_000);
        let scope = Scope::service("web", None, None);
        parse(text, "idle_timeout", &range, &scope).map_err(|problem| problem.message)
    }

    #[test]
    fn units_are_needed_and_understood() {
        assert_eq!(read("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(read("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(read("1s500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(read("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(read("5"), Err("idle_timeout = \"5\": add a unit, for example \"5s\"".to_owned()));
        for text in ["", "m", "5 parsecs", "-5s", "99999999999999999999y"] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains("not a duration: write numbers with units"), "{refused}");
        }
        let out_of_range = "idle_timeout = \"11h\": out of range: use 1s to 10h";
        assert_eq!(read("11h"), Err(out_of_range.to_owned()));
        assert!(read("999ms").is_err());
    }

    #[test]
    fn durations_are_short_to_read() {
        let cases =
            [(300_000, "5m"), (2000, "2s"), (500, "500ms"), (5_400_000, "1h 30m"), (1500, "1s 500ms")];
        for (millis, text) in cases {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in 1_000_000_000_u64..=36_000_000_000_000) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(read(&format_duration(duration)), Ok(duration));
        }
    }
}
