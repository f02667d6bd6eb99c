use proptest::prelude::*;

use super::*;
use crate::{
    config::testing::{any_desired, in_file, service},
    model::Mode,
};

fn limits() -> Limits {
    Limits::default()
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn weight(weight: u16) -> BackendChange {
    BackendChange { weight: Some(weight), admin_state: None, ..BackendChange::default() }
}

fn backend(address: &str, port: Option<u16>) -> BackendEntry {
    BackendEntry { address: address.to_owned(), port, weight: None, ..BackendEntry::default() }
}

/// `web` of the file and `db` of the command line.
fn two() -> Desired {
    let file = vec![(service("web", "10.1.0.10", &["10.2.0.11", "10.2.0.12"]), in_file(12))];
    let desired = replace_file_services(&Desired::default(), file, &limits()).unwrap();
    add_service(&desired, service("db", "10.1.0.20", &["10.2.0.21"]), &limits()).unwrap()
}

fn conflict<T: std::fmt::Debug>(result: Result<T, CommandError>) -> String {
    match result {
        Err(CommandError::Conflict(reason)) => reason,
        other => panic!("no conflict: {other:?}"),
    }
}

fn not_found<T: std::fmt::Debug>(result: Result<T, CommandError>) -> String {
    match result {
        Err(CommandError::NotFound(reason)) => reason,
        other => panic!("found: {other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, CommandError>) -> String {
    match result {
        Err(CommandError::Invalid(reason)) => reason,
        other => panic!("valid: {other:?}"),
    }
}

#[test]
fn what_belongs_to_the_file_is_changed_there() {
    let desired = two();
    let web = name("web");
    let expected =
        "service web belongs to /etc/flowgate.toml line 12: change it there and run `flowgate config reload`";
    let at = address("10.2.0.11:8080");
    assert_eq!(conflict(set_service(&desired, &web, &ServiceChange::default(), &limits())), expected);
    assert_eq!(conflict(remove_service(&desired, &web)), expected);
    assert_eq!(conflict(add_backend(&desired, &web, &backend("10.2.0.13", None), &limits())), expected);
    assert_eq!(conflict(remove_backend(&desired, &web, at)), expected);
    assert_eq!(set_backend(&desired, &web, at, weight(20)).unwrap().services[&web].weight(at), 20);
}

#[test]
fn what_is_not_there_is_not_found_and_the_nearest_named() {
    let desired = two();
    assert_eq!(
        not_found(remove_service(&desired, &name("wbe"))),
        "there is no service wbe: did you mean web?"
    );
    assert_eq!(
        not_found(remove_service(&desired, &name("mail"))),
        "there is no service mail: `flowgate service list` shows what there is"
    );
    let cases = [
        ("10.2.0.21:80", "service db has no backend 10.2.0.21:80: did you mean 10.2.0.21:8080?"),
        ("10.2.0.22:8080", "service db has no backend 10.2.0.22:8080: did you mean 10.2.0.21:8080?"),
        ("[::9]:1", "service db has no backend [::9]:1: `flowgate backend list db` shows what there is"),
    ];
    for (at, expected) in cases {
        assert_eq!(not_found(reset_backend(&desired, &name("db"), address(at))), expected);
    }
}

#[test]
fn services_that_clash_are_not_added() {
    let desired = two();
    let add = |name: &str, address: &str, backends: &[&str]| {
        conflict(add_service(&desired, service(name, address, backends), &limits()))
    };
    assert_eq!(
        add("web", "10.1.0.30", &[]),
        "service web is there already; it belongs to /etc/flowgate.toml line 12: choose another name"
    );
    assert!(add("db", "10.1.0.30", &[]).starts_with("service db is there already; change it with"));
    // It is the new one that the message is about, although its name comes first.
    assert_eq!(
        add("a", "10.1.0.10", &[]),
        "service \"a\": address 10.1.0.10:80 and protocol tcp are also those of service \"web\" \
         (/etc/flowgate.toml line 12): change or remove one"
    );
    let mut loops = service("loops", "10.1.0.30", &["10.1.0.20"]);
    loops.backends[0].address.set_port(80);
    let refused = conflict(add_service(&desired, loops, &limits()));
    assert!(refused.starts_with(
        "service \"loops\", backend 10.1.0.20:80: address is the one that clients of service \"db\""
    ));
    let full = Limits { services: 2, ..limits() };
    let refused = conflict(add_service(&desired, service("mail", "10.1.0.30", &[]), &full));
    assert!(refused.starts_with("limits: services = 2 is not enough for 3 services: raise it"), "{refused}");
}

#[test]
fn a_change_of_a_service_leaves_the_rest() {
    let desired = two();
    let change = ServiceChange { idle_timeout: Some("1m".to_owned()), ..ServiceChange::default() };
    let set = set_service(&desired, &name("db"), &change, &limits()).unwrap();
    let mut expected = desired.clone();
    expected.services.get_mut(&name("db")).unwrap().service.idle_timeout = std::time::Duration::from_secs(60);
    assert_eq!(set, expected);

    let to_dsr = ServiceChange { mode: Some(Mode::Dsr), ..ServiceChange::default() };
    let refused = invalid(set_service(&desired, &name("db"), &to_dsr, &limits()));
    assert!(refused.contains("mode = \"dsr\" cannot rewrite ports"), "{refused}");
}

#[test]
fn backends_come_and_go_with_their_overrides() {
    let desired = two();
    let db = name("db");
    let added = add_backend(&desired, &db, &backend("10.2.0.22", None), &limits()).unwrap();
    let at = address("10.2.0.22:80");
    assert!(added.services[&db].service.backend(at).is_some());
    let twice = conflict(add_backend(&added, &db, &backend("10.2.0.22", Some(80)), &limits()));
    assert_eq!(twice, "backend db 10.2.0.22:80 is there already: change it with `flowgate backend set`");
    let refused = invalid(add_backend(&desired, &db, &backend("2001:db8::1", None), &limits()));
    assert!(refused.contains("is IPv6 and the service is IPv4"), "{refused}");

    let overridden = set_backend(&added, &db, at, weight(3)).unwrap();
    let kept = add_backend(&overridden, &db, &backend("10.2.0.23", None), &limits()).unwrap();
    assert_eq!(kept.services[&db].weight(at), 3);
    let removed = remove_backend(&overridden, &db, at).unwrap();
    assert_eq!(removed, desired);
}

#[test]
fn an_override_that_says_the_same_is_none() {
    let desired = two();
    let (web, at) = (name("web"), address("10.2.0.11:8080"));
    let drain = BackendChange {
        weight: Some(20),
        admin_state: Some(AdminState::Draining),
        ..BackendChange::default()
    };
    let drained = set_backend(&desired, &web, at, drain).unwrap();
    let enable =
        BackendChange { weight: None, admin_state: Some(AdminState::Enabled), ..BackendChange::default() };
    let enabled = set_backend(&drained, &web, at, enable).unwrap();
    assert_eq!(enabled.services[&web].overrides[&at], Override { weight: Some(20), admin_state: None });
    assert_eq!(set_backend(&enabled, &web, at, weight(10)).unwrap(), desired);
    assert_eq!(reset_backend(&drained, &web, at).unwrap(), desired);
    assert!(invalid(set_backend(&desired, &web, at, weight(1001))).contains("use 0 to 1000"));
}

#[test]
fn a_reload_replaces_the_files_services_and_keeps_overrides() {
    let desired = two();
    let web = name("web");
    let desired = set_backend(&desired, &web, address("10.2.0.11:8080"), weight(20)).unwrap();
    let desired = set_backend(&desired, &web, address("10.2.0.12:8080"), weight(20)).unwrap();
    let file = vec![
        (service("web", "10.1.0.10", &["10.2.0.12", "10.2.0.13"]), in_file(3)),
        (service("mail", "10.1.0.30", &[]), in_file(30)),
    ];
    let reloaded = replace_file_services(&desired, file, &limits()).unwrap();
    let names: Vec<&str> = reloaded.services.keys().map(ServiceName::as_str).collect();
    assert_eq!(names, ["db", "mail", "web"]);
    assert_eq!(reloaded.services[&web].origin, in_file(3));
    let overridden: Vec<&SocketAddr> = reloaded.services[&web].overrides.keys().collect();
    assert_eq!(overridden, [&address("10.2.0.12:8080")]);
    let emptied = replace_file_services(&reloaded, Vec::new(), &limits()).unwrap();
    assert_eq!(emptied.services.keys().collect::<Vec<_>>(), [&name("db")]);
}

#[test]
fn a_reload_that_clashes_with_the_command_line_is_refused_whole() {
    let file =
        vec![(service("db", "10.1.0.40", &[]), in_file(3)), (service("other", "10.1.0.20", &[]), in_file(9))];
    let refused = conflict(replace_file_services(&two(), file, &limits()));
    let lines: Vec<&str> = refused.lines().collect();
    assert_eq!(
        lines,
        [
            "service \"db\" (/etc/flowgate.toml line 3): a service made on the command line has this name: \
             rename one, or run `flowgate service remove db`",
            "service \"other\" (/etc/flowgate.toml line 9): address 10.1.0.20:80 and protocol tcp are also \
             those of service \"db\": change or remove one",
        ]
    );
}

proptest! {
    #[test]
    fn a_reload_of_the_same_changes_nothing(desired in any_desired()) {
        let of_file = |entry: &&DesiredService| entry.origin != Origin::Cli;
        let file = desired.services.values().filter(of_file);
        let file = file.map(|entry| (entry.service.clone(), entry.origin.clone())).collect();
        prop_assert_eq!(replace_file_services(&desired, file, &limits()).unwrap(), desired);
    }

    #[test]
    fn what_is_removed_can_be_added_again(desired in any_desired()) {
        for entry in desired.services.values().filter(|entry| entry.origin == Origin::Cli) {
            let name = &entry.service.name;
            let removed = remove_service(&desired, name).unwrap();
            prop_assert!(!removed.services.contains_key(name));
            let mut again = add_service(&removed, entry.service.clone(), &limits()).unwrap();
            again.services.get_mut(name).unwrap().overrides.clone_from(&entry.overrides);
            prop_assert_eq!(&again, &desired);
        }
    }

    #[test]
    fn overrides_never_repeat_the_declaration(desired in any_desired()) {
        for entry in desired.services.values() {
            for (address, set) in &entry.overrides {
                let declared = entry.service.backend(*address).unwrap();
                prop_assert!(!set.is_empty() && set.weight != Some(declared.weight));
                prop_assert_ne!(set.admin_state, Some(AdminState::Enabled));
            }
        }
    }
}
