//! Numbers and durations as people read them.

/// Three digits and a prefix: 999, 1.23k, 45.6M.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn si(number: u64) -> String {
    if number < 1000 {
        return number.to_string();
    }
    let mut value = number as f64;
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        value /= 1000.0;
        prefix = next;
        if value < 999.5 {
            break;
        }
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}{prefix}")
}

/// The same with its unit: 999 B, 1.23 kB.
pub(super) fn with_unit(number: u64, unit: &str) -> String {
    let text = si(number);
    let digits = text.trim_end_matches(char::is_alphabetic);
    format!("{digits} {}{unit}", &text[digits.len()..])
}

/// The two largest units: 42s, 3m 12s, 4d 5h.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A share of 0 to 1 in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (9_994, "9.99k"),
            (9_996, "10.0k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (98_765_432, "98.8M"),
            (40_000_000_000, "40.0G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(si(number), text, "{number}");
        }
    }

    #[test]
    fn units_stand_apart() {
        assert_eq!(with_unit(0, "B"), "0 B");
        assert_eq!(with_unit(45_600, "bit/s"), "45.6 kbit/s");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (192, "3m 12s"),
            (11_530, "3h 12m"),
            (86_400, "1d 0h"),
            (363_600, "4d 5h"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }
}
