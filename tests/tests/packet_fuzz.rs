//! A short run of `cargo xtask fuzz`: made-up and damaged frames, each judged by a model of what must become of it.

use std::time::Duration;

use harness::fuzz;

#[test]
fn damaged_frames_become_what_the_model_says() {
    // Another seed each day, and the same all day long.
    let day = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() / 86_400);
    let report =
        fuzz::run(Duration::from_secs(10), day * 1_000, |_| ()).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{} frames in {:.1?}: {}", report.frames, report.took, report.outcomes_in_words());
    // The frames are worth something only if many of them get somewhere.
    for kind in ["passed", "sent on", "part sent on", "expired", "icmp sent on"] {
        let count = report.outcomes.get(kind).copied().unwrap_or(0);
        assert!(count * 1_000 > report.frames, "{kind}: {count} of {}", report.frames);
    }
}
