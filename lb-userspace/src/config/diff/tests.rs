use proptest::prelude::*;

use super::diff;
use crate::{
    api::schema::{BackendChange, ServiceChange},
    config::{
        edit,
        entry::BackendEntry,
        testing::{any_desired, in_file, service},
    },
    model::{AdminState, Desired, Limits, Origin},
};

fn lines(old: &Desired, new: &Desired) -> Vec<String> {
    diff(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn each_change_is_one_line() {
    let limits = Limits::default();
    let web = "web".parse().unwrap();
    let backend = "10.2.0.11:8080".parse().unwrap();
    let none = Desired::default();
    let one = edit::add_service(&none, service("web", "10.1.0.10", &["10.2.0.11"]), &limits).unwrap();
    assert_eq!(lines(&none, &one), ["service web added"]);
    assert_eq!(lines(&one, &none), ["service web removed"]);

    let change = BackendChange {
        weight: Some(20),
        admin_state: Some(AdminState::Draining),
        ..BackendChange::default()
    };
    let overridden = edit::set_backend(&one, &web, backend, change).unwrap();
    assert_eq!(
        lines(&one, &overridden),
        [
            "backend web 10.2.0.11:8080: weight 10 -> 20",
            "backend web 10.2.0.11:8080: admin_state enabled -> draining"
        ]
    );

    let change = ServiceChange { idle_timeout: Some("1m".to_owned()), ..ServiceChange::default() };
    let set = edit::set_service(&one, &web, &change, &limits).unwrap();
    assert_eq!(lines(&one, &set), ["service web: idle_timeout 5m -> 1m"]);

    let entry =
        BackendEntry { address: "10.2.0.12".to_owned(), port: None, weight: None, ..BackendEntry::default() };
    let two = edit::add_backend(&one, &web, &entry, &limits).unwrap();
    assert_eq!(lines(&one, &two), ["backend web 10.2.0.12:80 added"]);
    assert_eq!(lines(&two, &one), ["backend web 10.2.0.12:80 removed"]);

    let health = serde_json::from_str(r#"{"type":"none"}"#).unwrap();
    let change = ServiceChange { health: Some(health), ..ServiceChange::default() };
    let unprobed = edit::set_service(&one, &web, &change, &limits).unwrap();
    assert_eq!(lines(&one, &unprobed), ["service web: health.type tcp -> none"]);
}

#[test]
fn a_declared_weight_that_an_override_hides_is_told() {
    let limits = Limits::default();
    let mut web = service("web", "10.1.0.10", &["10.2.0.11"]);
    let old =
        edit::replace_file_services(&Desired::default(), vec![(web.clone(), in_file(3))], &limits).unwrap();
    let change = BackendChange { weight: Some(20), admin_state: None, ..BackendChange::default() };
    let old = edit::set_backend(&old, &web.name, web.backends[0].address, change).unwrap();
    web.backends[0].weight = 30;
    let new = edit::replace_file_services(&old, vec![(web, in_file(3))], &limits).unwrap();
    assert_eq!(lines(&old, &new), ["backend web 10.2.0.11:8080: declared weight 10 -> 30"]);
}

/// Without what makes no difference.
fn essence(desired: &Desired) -> Desired {
    let mut desired = desired.clone();
    for entry in desired.services.values_mut() {
        entry.origin = Origin::Cli;
        entry.service.backends.sort_by_key(|backend| backend.address);
    }
    desired
}

proptest! {
    #[test]
    fn there_are_changes_exactly_where_there_is_a_difference(old in any_desired(), new in any_desired()) {
        prop_assert!(diff(&old, &old).is_empty());
        prop_assert_eq!(diff(&old, &new).is_empty(), essence(&old) == essence(&new));
        prop_assert_eq!(diff(&old, &new).len(), diff(&new, &old).len());
    }

    #[test]
    fn an_override_is_told_and_told_back(desired in any_desired(), weight in 0_u16..=1000) {
        for entry in desired.services.values() {
            let Some(backend) = entry.service.backends.first() else { continue };
            let change = BackendChange { weight: Some(weight), admin_state: None, ..BackendChange::default() };
            let set = edit::set_backend(&desired, &entry.service.name, backend.address, change).unwrap();
            let changes = diff(&desired, &set);
            prop_assert_eq!(changes.len(), usize::from(entry.weight(backend.address) != weight));
        }
    }
}
