use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::testing::{any_desired, in_file, service};

fn state(names: &[&str]) -> StateFile {
    let services = names
        .iter()
        .zip(1..)
        .map(|(name, host)| service_to_entry(&service(name, &format!("10.1.0.{host}"), &["10.2.0.11"])));
    let backend = "10.2.0.11:8080".parse().unwrap();
    let override_entry = |name: &&str| OverrideEntry {
        service: name.parse().unwrap(),
        backend,
        weight: Some(20),
        admin_state: Some(AdminState::Draining),
    };
    StateFile {
        format: 1,
        services: services.collect(),
        overrides: names.iter().map(override_entry).collect(),
    }
}

fn loaded(dir: &TempDir) -> StateFile {
    let loaded = load(dir.path()).unwrap().unwrap();
    assert_eq!(loaded.warning, None);
    loaded.state
}

fn files(dir: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_saved_is_loaded_and_the_one_before_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path()).unwrap().is_none());
    save(dir.path(), &state(&[])).unwrap();
    assert_eq!(files(&dir), [CURRENT]);
    save(dir.path(), &state(&["a"])).unwrap();
    save(dir.path(), &state(&["a", "b"])).unwrap();
    assert_eq!(loaded(&dir), state(&["a", "b"]));
    assert_eq!(read(&dir.path().join(PREVIOUS)).unwrap(), Some(state(&["a"])));
    assert_eq!(files(&dir), [CURRENT, PREVIOUS]);
    let mode = fs::metadata(dir.path().join(CURRENT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn the_directory_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("lib/flowgate");
    assert!(load(&deep).unwrap().is_none());
    save(&deep, &state(&["a"])).unwrap();
    assert_eq!(load(&deep).unwrap().unwrap().state, state(&["a"]));
}

#[test]
fn a_file_cut_anywhere_is_refused_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &state(&["a"])).unwrap();
    let current = dir.path().join(CURRENT);
    let text = fs::read(&current).unwrap();
    for length in 0..text.len() {
        fs::write(&current, &text[..length]).unwrap();
        match load(dir.path()) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with(&format!("{}: damaged (", current.display())), "{error}");
                assert!(error.ends_with(
                    "put a good copy in its place, or remove it to begin with no \
                    services from the command line"
                ));
            }
            // Only the newline at the end is missing.
            Ok(loaded) => {
                assert_eq!(length, text.len() - 1);
                assert_eq!(loaded.unwrap().state, state(&["a"]));
            }
        }
    }
}

#[test]
fn a_damaged_file_gives_way_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &state(&["a"])).unwrap();
    save(dir.path(), &state(&["a", "b"])).unwrap();
    let current = dir.path().join(CURRENT);
    let text = fs::read(&current).unwrap();
    for length in 0..text.len() - 1 {
        fs::write(&current, &text[..length]).unwrap();
        let loaded = load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.state, state(&["a"]));
        let warning = loaded.warning.unwrap();
        assert!(
            warning.contains("state.json: damaged") && warning.contains("state.json.previous"),
            "{warning}"
        );
    }
    // Saving over it pushes out neither the good one before nor the damaged one.
    save(dir.path(), &state(&["c"])).unwrap();
    assert_eq!(loaded(&dir), state(&["c"]));
    assert_eq!(read(&dir.path().join(PREVIOUS)).unwrap(), Some(state(&["a"])));
    assert_eq!(fs::read(dir.path().join(UNREADABLE)).unwrap(), text[..text.len() - 2]);
}

#[test]
fn another_format_is_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    let newer = br#"{ "format": 2, "services": { "of": "another shape" } }"#;
    fs::write(dir.path().join(CURRENT), newer).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("state.json: has format 2, and this version of flowgate reads format 1"),
        "{error}"
    );
    fs::write(dir.path().join(PREVIOUS), serde_json::to_vec(&state(&["a"])).unwrap()).unwrap();
    let loaded = load(dir.path()).unwrap().unwrap();
    assert_eq!(loaded.state, state(&["a"]));
    assert!(loaded.warning.unwrap().contains("has format 2"));
}

#[test]
fn what_a_crash_leaves_behind_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &state(&["a"])).unwrap();
    // Killed before the last rename: both names are one file, and the new one is half written.
    fs::hard_link(dir.path().join(CURRENT), dir.path().join(PREVIOUS)).unwrap();
    fs::hard_link(dir.path().join(CURRENT), dir.path().join(LINK)).unwrap();
    fs::write(dir.path().join(NEW), "{").unwrap();
    assert_eq!(loaded(&dir), state(&["a"]));
    save(dir.path(), &state(&["b"])).unwrap();
    assert_eq!(loaded(&dir), state(&["b"]));
    assert_eq!(read(&dir.path().join(PREVIOUS)).unwrap(), Some(state(&["a"])));
    assert_eq!(files(&dir), [CURRENT, PREVIOUS]);
}

#[test]
fn a_service_that_no_longer_fits_is_left_out_and_kept() {
    let saved = state(&["a", "b"]);
    let file = vec![(service("b", "10.1.0.99", &[]), in_file(3))];
    let restored = saved.restore(file, &Limits::default()).unwrap();
    assert_eq!(restored.desired.services.len(), 2);
    assert_eq!(restored.left_out, [saved.services[1].clone()]);
    assert!(
        restored.warnings[0]
            .starts_with("service b, made on the command line, is left out: service b is there already")
    );
    assert!(
        restored.warnings[1].starts_with("an override has ended: service b has no backend 10.2.0.11:8080")
    );
    let again = StateFile::of(&restored.desired, &restored.left_out);
    assert_eq!(again.services, saved.services);
}

proptest! {
    #[test]
    fn what_is_restored_is_what_was(desired in any_desired()) {
        let of_file = desired.services.values().filter(|entry| entry.origin != Origin::Cli);
        let file = of_file.map(|entry| (entry.service.clone(), entry.origin.clone())).collect();
        let text = serde_json::to_vec(&StateFile::of(&desired, &[])).unwrap();
        let restored = parse(&text).unwrap().restore(file, &Limits::default()).unwrap();
        prop_assert_eq!(restored.desired, desired);
        prop_assert!(restored.left_out.is_empty() && restored.warnings.is_empty());
    }
}
