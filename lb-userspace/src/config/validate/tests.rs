use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{read, validate_service};
use crate::{
    config::{
        entry::{BackendEntry, HealthEntry, HealthKind, ServiceEntry},
        error::ConfigError,
        testing,
    },
    model::{Config, HealthCheck, Limits, Mode, Origin, Probe, Protocol, Scheduler},
};

fn file(text: &str) -> Result<Config, ConfigError> {
    read(text, Path::new("/etc/flowgate.toml"))
}

fn refused(text: &str) -> Vec<String> {
    file(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

fn web() -> ServiceEntry {
    testing::entry("web", "10.1.0.10", &["10.2.0.11", "10.2.0.12"])
}

/// The one problem of an entry.
fn problem(change: impl FnOnce(&mut ServiceEntry)) -> String {
    let mut entry = web();
    change(&mut entry);
    let problems = validate_service(&entry).unwrap_err();
    assert_eq!(problems.iter().count(), 1, "{problems}");
    problems.to_string()
}

fn health(kind: HealthKind) -> HealthEntry {
    serde_json::from_value(serde_json::json!({ "type": kind })).unwrap()
}

fn health_problem(kind: HealthKind, change: impl FnOnce(&mut HealthEntry)) -> String {
    problem(|entry| {
        let mut health = health(kind);
        change(&mut health);
        entry.health = Some(health);
    })
}

#[test]
fn defaults_are_filled_in() {
    let service = validate_service(&web()).unwrap();
    assert_eq!((service.mode, service.scheduler), (Mode::FullNat, Scheduler::Maglev));
    assert_eq!(service.idle_timeout, Duration::from_secs(300));
    assert_eq!(service.health.probe, Probe::Tcp);
    assert_eq!(service.backends[0].weight, 10);

    let udp = validate_service(&ServiceEntry { protocol: Protocol::Udp, ..web() }).unwrap();
    assert_eq!(udp.health.probe, Probe::None);

    let mut portless = web();
    portless.backends[0].port = None;
    assert_eq!(validate_service(&portless).unwrap().backends[0].address, "10.2.0.11:80".parse().unwrap());

    let config = file("").unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.agent.pin_dir, Path::new("/sys/fs/bpf/flowgate"));
    assert_eq!(config.agent.socket, Path::new("/run/flowgate/flowgate.sock"));
    assert!(config.agent.interfaces.is_empty());
}

#[test]
fn health_defaults_are_filled_in() {
    let mut entry = web();
    entry.health = Some(HealthEntry { interval: Some("500ms".to_owned()), ..health(HealthKind::Http) });
    let check = validate_service(&entry).unwrap().health;
    assert_eq!((check.interval, check.timeout), (Duration::from_millis(500), Duration::from_millis(500)));
    assert_eq!((check.rise, check.fall, check.port), (2, 3, None));
    let Probe::Http(http) = check.probe else { panic!("not http") };
    assert_eq!((http.path.as_str(), http.host, http.expect_status), ("/", None, (200, 399)));

    entry.health = Some(HealthEntry { expect_status: Some("204".to_owned()), ..health(HealthKind::Http) });
    let Probe::Http(http) = validate_service(&entry).unwrap().health.probe else { panic!("not http") };
    assert_eq!(http.expect_status, (204, 204));

    entry.health = Some(health(HealthKind::None));
    let check = validate_service(&entry).unwrap().health;
    assert_eq!((check.probe, check.interval), (Probe::None, HealthCheck::DEFAULT_INTERVAL));
}

#[test]
fn services_are_refused_with_the_way_out() {
    let cases = [
        (
            problem(|web| web.name = "we b".to_owned()),
            "service \"we b\": service name \"we b\" is not valid: use",
        ),
        (
            problem(|web| web.port = 0),
            "service \"web\": port = 0 is not a port: give the port that clients connect to",
        ),
        (
            problem(|web| web.address = "10.1.0.10:80".to_owned()),
            "service \"web\": address = \"10.1.0.10:80\" has a port",
        ),
        (
            problem(|web| web.address = "127.0.0.1".to_owned()),
            "service \"web\": address = \"127.0.0.1\" is a loopback",
        ),
        (
            problem(|web| web.idle_timeout = Some("5".to_owned())),
            "service \"web\": idle_timeout = \"5\": add a unit, for",
        ),
        (
            problem(|web| web.idle_timeout = Some("11h".to_owned())),
            "idle_timeout = \"11h\": out of range: use 1s to 10h",
        ),
    ];
    for (problem, expected) in cases {
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn backends_are_refused_with_the_way_out() {
    let first = |change: fn(&mut BackendEntry)| problem(|web| change(&mut web.backends[0]));
    let cases = [
        (
            first(|backend| backend.port = Some(0)),
            "backend 10.2.0.11:0: port = 0 is not a port: leave it out",
        ),
        (first(|backend| backend.weight = Some(1001)), "weight = 1001 is out of range: use 0 to 1000"),
        (
            first(|backend| backend.address = "web1".to_owned()),
            "backend 1: address = \"web1\" is a host name",
        ),
        (
            first(|backend| backend.address = "2001:db8::1".to_owned()),
            "backend [2001:db8::1]:8080: address = \"2001:db8::1\" is IPv6 and the service is IPv4: give an \
             IPv4 address",
        ),
        (
            first(|backend| backend.address = "10.2.0.12".to_owned()),
            "service \"web\", backend 10.2.0.12:8080: 10.2.0.12:8080 is there twice: remove one",
        ),
    ];
    for (problem, expected) in cases {
        assert!(problem.contains(expected), "{problem}");
    }
    // A port left out is the service's.
    let twice = problem(|web| {
        web.backends[0] = BackendEntry {
            address: "10.2.0.12".to_owned(),
            port: None,
            weight: None,
            ..BackendEntry::default()
        };
        web.backends[1].port = Some(80);
    });
    assert!(twice.ends_with("10.2.0.12:80 is there twice: remove one, or give it another port"), "{twice}");
}

#[test]
fn dsr_cannot_rewrite_ports() {
    let problem = problem(|web| {
        web.mode = Some(Mode::Dsr);
        web.backends.truncate(1);
    });
    assert_eq!(
        problem,
        "service \"web\", backend 10.2.0.11:8080: port = 8080 is not the service's port 80, and mode = \
         \"dsr\" cannot rewrite ports: use port = 80, or mode = \"full-nat\" or \"nat\""
    );
    let mut same = web();
    same.mode = Some(Mode::Dsr);
    same.backends.iter_mut().zip([None, Some(80)]).for_each(|(backend, port)| backend.port = port);
    assert!(validate_service(&same).is_ok());
}

#[test]
fn health_checks_are_refused_with_the_way_out() {
    use HealthKind::{Http, None, Tcp};
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        (
            health_problem(Tcp, |check| check.path = text("/x")),
            "path has no effect with type = \"tcp\": remove it, or use",
        ),
        (health_problem(Tcp, |check| check.host = text("x")), "host has no effect with type = \"tcp\""),
        (
            health_problem(None, |check| check.rise = Some(2)),
            "rise has no effect with type = \"none\", which never probes",
        ),
        (
            health_problem(None, |check| check.expect_status = text("200")),
            "expect_status has no effect with type = \"none\"",
        ),
        (health_problem(Http, |check| check.path = text("x")), "path = \"x\" does not begin with /"),
        (
            health_problem(Http, |check| check.path = text("/a b")),
            "path = \"/a b\" has ' ' in it: percent-encode it",
        ),
        (health_problem(Http, |check| check.path = text("/a\r\nX: y")), "has '\\r' in it"),
        (health_problem(Http, |check| check.path = text("/#x")), "has '#' in it"),
        (health_problem(Http, |check| check.path = text("/é")), "has 'é' in it"),
        (health_problem(Http, |check| check.host = text("a b")), "host = \"a b\" is not a host"),
        (health_problem(Http, |check| check.host = text("")), "host = \"\" is not a host"),
        (
            health_problem(Http, |check| check.expect_status = text("2xx")),
            "expect_status = \"2xx\" is not a status",
        ),
        (
            health_problem(Http, |check| check.expect_status = text("99")),
            "expect_status = \"99\" is not a status",
        ),
        (
            health_problem(Http, |check| check.expect_status = text("300-200")),
            "expect_status = \"300-200\" is not a status",
        ),
        (health_problem(Http, |check| check.expect_status = text("200-600")), "within 100 to 599"),
        (
            health_problem(Tcp, |check| check.interval = text("2")),
            "interval = \"2\": add a unit, for example \"2s\"",
        ),
        (
            health_problem(Tcp, |check| check.interval = text("9ms")),
            "interval = \"9ms\": out of range: use 10ms to 1h",
        ),
        (
            health_problem(Tcp, |check| check.timeout = text("3s")),
            "timeout = \"3s\" is longer than the interval of 2s",
        ),
        (health_problem(Tcp, |check| check.timeout = text("0s")), "timeout = \"0s\": out of range"),
        (health_problem(Tcp, |check| check.rise = Some(0)), "rise = 0 is out of range: use 1 to 100"),
        (health_problem(Tcp, |check| check.fall = Some(101)), "fall = 101 is out of range: use 1 to 100"),
        (health_problem(Tcp, |check| check.port = Some(0)), "port = 0 is not a port: leave it out to probe"),
    ];
    for (problem, expected) in cases {
        let place = "service \"web\", health: ";
        assert!(problem.starts_with(place) && problem.contains(expected), "{problem}");
    }
}

#[test]
fn a_tcp_probe_of_a_udp_port_proves_nothing() {
    for kind in [HealthKind::Tcp, HealthKind::Http] {
        let problem = problem(|web| {
            web.protocol = Protocol::Udp;
            web.health = Some(health(kind));
        });
        assert!(problem.contains("would prove nothing: give the TCP port to probe"), "{problem}");
        let with_port = HealthEntry { port: Some(8080), ..health(kind) };
        let entry = ServiceEntry { protocol: Protocol::Udp, health: Some(with_port), ..web() };
        assert_eq!(validate_service(&entry).unwrap().health.port, Some(8080));
    }
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line() {
    let text = r#"[agent]
interfaces = ["eth0", "eth0",
  "a/b", "averyveryverylongname"]
socket = "run/x.sock"
pin_dir = "bpf"
source_addresses = ["10.0.0.1", "10.0.0.1", "x"]

[limits]
flows = 5
services = 20_000

[[service]]
name = "web"
address = "0.0.0.0"
port = 0
protocol = "tcp"
idle_timeout = "soon"

  [service.health]
  type = "tcp"
  path = "/"

  [[service.backend]]
  address = "10.2.0.11"
  weight = 2000
"#;
    let refused = refused(text);
    let expected = [
        "/etc/flowgate.toml:2: agent, interfaces: \"eth0\" is there twice: name every interface once",
        "/etc/flowgate.toml:3: agent, interfaces: \"a/b\" is not an interface's name",
        "/etc/flowgate.toml:3: agent, interfaces: \"averyveryverylongname\" is 21 bytes long",
        "/etc/flowgate.toml:4: agent: socket = \"run/x.sock\" is not an absolute path: begin it with /",
        "/etc/flowgate.toml:5: agent: pin_dir = \"bpf\" is not an absolute path",
        "/etc/flowgate.toml:6: agent, source_addresses: \"10.0.0.1\" is there twice",
        "/etc/flowgate.toml:6: agent, source_addresses: \"x\" is a host name",
        "/etc/flowgate.toml:9: limits: flows = 5 is out of range: use 1024 to 134217728",
        "/etc/flowgate.toml:10: limits: services = 20000 is out of range: use 1 to 16384",
        "/etc/flowgate.toml:14: service \"web\" (line 12): address = \"0.0.0.0\" is the unspecified address",
        "/etc/flowgate.toml:15: service \"web\" (line 12): port = 0 is not a port",
        "/etc/flowgate.toml:17: service \"web\" (line 12): idle_timeout = \"soon\": not a duration",
        "/etc/flowgate.toml:21: service \"web\" (line 12), health: path has no effect with type = \"tcp\"",
        "/etc/flowgate.toml:25: service \"web\" (line 12), backend 10.2.0.11: weight = 2000 is out of range",
    ];
    assert_eq!(refused.len(), expected.len(), "{refused:#?}");
    for (line, expected) in refused.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

fn pair(second: &str) -> String {
    format!(
        "[[service]]\nname = \"a\"\naddress = \"10.1.0.10\"\nport = 80\nprotocol = \"tcp\"\n\
         [[service]]\n{second}"
    )
}

#[test]
fn services_must_not_clash() {
    let cases = [
        (
            "name = \"a\"\naddress = \"10.1.0.11\"\nport = 80\nprotocol = \"tcp\"\n",
            "/etc/flowgate.toml:7: service \"a\" (line 6): the name is also that of service \"a\" (line 1): \
             choose another",
        ),
        (
            "name = \"b\"\naddress = \"10.1.0.10\"\nport = 80\nprotocol = \"tcp\"\n",
            "/etc/flowgate.toml:8: service \"b\" (line 6): address 10.1.0.10:80 and protocol tcp are also \
             those of service \"a\" (line 1)",
        ),
        (
            "name = \"b\"\naddress = \"10.1.0.11\"\nport = 80\nprotocol = \"tcp\"\nbackend = [{ address = \
             \"10.1.0.10\" }]\n",
            "/etc/flowgate.toml:11: service \"b\" (line 6), backend 10.1.0.10:80: address is the one that \
             clients of service \"a\" (line 1) connect to",
        ),
        (
            "name = \"b\"\naddress = \"10.1.0.11\"\nport = 80\nprotocol = \"tcp\"\nbackend = [{ address = \
             \"10.1.0.11\" }]\n",
            "/etc/flowgate.toml:11: service \"b\" (line 6), backend 10.1.0.11:80: address is the one that \
             clients of this service connect to",
        ),
    ];
    for (second, expected) in cases {
        let refused = refused(&pair(second));
        assert!(refused.len() == 1 && refused[0].starts_with(expected), "{refused:#?}");
    }
    for fine in [
        "name = \"b\"\naddress = \"10.1.0.10\"\nport = 80\nprotocol = \"udp\"\n",
        "name = \"b\"\naddress = \"10.1.0.10\"\nport = 81\nprotocol = \"tcp\"\n",
        "name = \"b\"\naddress = \"10.1.0.11\"\nport = 80\nprotocol = \"udp\"\nbackend = [{ address = \
         \"10.1.0.10\" }]\n",
    ] {
        assert!(file(&pair(fine)).is_ok(), "{fine}");
    }
}

#[test]
fn limits_hold_all_services() {
    let few = "[limits]\nservices = 1\nbackends = 1\n";
    let text = few.to_owned()
        + &pair(
            "name = \"b\"\naddress = \"10.1.0.11\"\nport = 80\nprotocol = \"tcp\"\nbackend = [{ address = \
             \"10.2.0.1\" }, { address = \"10.2.0.2\" }]\n",
        );
    let refused = refused(&text);
    assert!(
        refused[0].starts_with("/etc/flowgate.toml:2: limits: services = 1 is not enough for 2 services")
    );
    assert!(
        refused[1].starts_with("/etc/flowgate.toml:3: limits: backends = 1 is not enough for 2 backends")
    );

    let mut many = "[limits]\nring_slots = 65_536\n".to_owned();
    for number in 1..=15 {
        many += &format!(
            "[[service]]\nname = \"s{number}\"\naddress = \"10.1.0.{number}\"\nport = 80\nprotocol = \
             \"tcp\"\n"
        );
    }
    let refused = self::refused(&many);
    assert!(
        refused.len() == 1 && refused[0].contains("limits: ring_slots = 65536 is not enough for 65584 slots")
    );
}

#[test]
fn source_addresses_are_counted_by_version() {
    let list = |prefix: &str, count: u16| {
        (1..=count).map(|host| format!("\"{prefix}{host:x}\"")).collect::<Vec<_>>().join(", ")
    };
    assert!(
        file(&format!("[agent]\nsource_addresses = [{}, \"10.0.0.1\"]\n", list("2001:db8::", 255))).is_ok()
    );
    let refused = refused(&format!("[agent]\nsource_addresses = [{}]\n", list("2001:db8::", 256)));
    assert!(refused[0].ends_with("source_addresses has 256 IPv6 addresses: give at most 255"), "{refused:?}");
}

#[test]
fn services_know_where_they_were_declared() {
    let config =
        file(&pair("name = \"b\"\naddress = \"10.1.0.11\"\nport = 80\nprotocol = \"tcp\"\n")).unwrap();
    let origins: Vec<&Origin> = config.services.iter().map(|(_, origin)| origin).collect();
    assert_eq!(origins, [&testing::in_file(1), &testing::in_file(6)]);
}

proptest! {
    #[test]
    fn what_is_taken_as_a_path_can_be_sent(path in "/[ -~é]{0,12}") {
        let check = HealthEntry { path: Some(path.clone()), ..health(HealthKind::Http) };
        if let Ok(service) = validate_service(&ServiceEntry { health: Some(check), ..web() }) {
            let Probe::Http(http) = service.health.probe else { panic!("not http") };
            let sent: hyper::http::uri::PathAndQuery = http.path.parse().unwrap();
            prop_assert_eq!(sent.as_str(), path);
        }
    }

    #[test]
    fn no_entry_makes_it_panic(
        name in "[a-z .]{0,4}", address in "[0-9a-f:.%/\\[\\]x]{0,12}", port in any::<u16>(),
        idle_timeout in prop::option::of("[0-9a-z ]{0,5}"), status in prop::option::of("[0-9-]{0,8}"),
        backends in prop::collection::vec(("[0-9.:]{0,9}", any::<Option<u16>>(), any::<Option<u16>>()), 0..4),
    ) {
        let check = HealthEntry { expect_status: status, ..health(HealthKind::Http) };
        let backends = backends
            .into_iter()
            .map(|(address, port, weight)| BackendEntry { address, port, weight, ..BackendEntry::default() });
        let entry = ServiceEntry {
            name, address, port, idle_timeout, health: Some(check), backends: backends.collect(), ..web()
        };
        if let Err(problems) = validate_service(&entry) {
            prop_assert!(!problems.is_empty());
        }
    }
}
