use std::path::Path;

use proptest::prelude::*;

use super::parse;
use crate::{
    config::{
        entry::{FileEntry, InterfaceEntry},
        error::ConfigError,
    },
    model::{AttachMode, Mode},
};

fn read(text: &str) -> Result<FileEntry, ConfigError> {
    parse(text, Path::new("flowgate.toml"))
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

/// The first line of the refusal.
fn headline(text: &str) -> String {
    refusal(text).lines().next().unwrap().to_owned()
}

fn service(rest: &str) -> String {
    format!("[[service]]\nname = \"web\"\naddress = \"10.1.0.10\"\nport = 80\nprotocol = \"tcp\"\n{rest}")
}

#[test]
fn the_example_of_the_manual_is_read() {
    let text = r#"
[agent]
interfaces = ["eth0", { name = "eth1", mode = "generic" }, { name = "eth2" }]
debug_packets = true

[limits]
flows = 1_048_576

[[service]]
name = "web"
address = "10.1.0.10"
port = 80
protocol = "tcp"
mode = "dsr"

  [service.health]
  type = "http"
  path = "/healthz"

  [[service.backend]]
  address = "10.2.0.11"
  port = 8080
  weight = 10
"#;
    let file = read(text).unwrap();
    assert_eq!(file.agent.interfaces[0], InterfaceEntry::Name("eth0".to_owned()));
    let tables: Vec<AttachMode> = file
        .agent
        .interfaces
        .iter()
        .filter_map(|entry| if let InterfaceEntry::Table(table) = entry { Some(table.mode) } else { None })
        .collect();
    assert_eq!(tables, [AttachMode::Generic, AttachMode::Auto]);
    assert_eq!(file.limits.flows, Some(1_048_576));
    let web = file.services[0].get_ref();
    assert_eq!((web.mode, web.backends[0].port), (Some(Mode::Dsr), Some(8080)));
    assert_eq!(read("").unwrap(), FileEntry::default());
}

#[test]
fn the_line_is_shown_with_carets() {
    let expected = "flowgate.toml:2:1: service 1 (line 1): unknown field `adress`: did you mean \
        `address`?\n  |\n\
        2 | adress = \"10.1.0.10\"\n  | ^^^^^^";
    assert_eq!(refusal("[[service]]\nadress = \"10.1.0.10\"\n"), expected);
    let tabs = refusal("[agent]\r\n\tsokcet = 1\r\n");
    assert!(tabs.ends_with("2 | \tsokcet = 1\n  | \t^^^^^^"), "{tabs}");
}

#[test]
fn unknown_fields_name_the_nearest_or_all() {
    let cases = [
        ("[agent]\nsokcet = \"/x\"\n", "flowgate.toml:2:1: unknown field `sokcet`: did you mean `socket`?"),
        (
            "[agent]\ninterfaces = [{ nam = \"eth0\" }]\n",
            "flowgate.toml:2:17: unknown field `nam`: did you mean `name`?",
        ),
        ("[servce]\n", "flowgate.toml:1:2: unknown field `servce`: did you mean `service`?"),
        (
            "[limits]\ncolour = 1\n",
            "flowgate.toml:2:1: unknown field `colour`: known here are `flows`, `services`, `backends`, \
             `ring_slots` and `fragments`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(headline(text), expected);
    }
    let nested = service("[[service.backend]]\naddress = \"10.2.0.11\"\nwieght = 3\n");
    assert_eq!(
        headline(&nested),
        "flowgate.toml:8:1: service \"web\" (line 1), backend 1: unknown field `wieght`: did you mean \
         `weight`?"
    );
}

#[test]
fn unknown_words_list_what_there_is() {
    let cases = [
        ("mode = \"l4\"\n", "unknown mode `l4`: there is `full-nat`, `nat`, `dsr`, `ipip` and `gue`"),
        (
            "mode = \"full_nat\"\n",
            "unknown mode `full_nat`: did you mean `full-nat`? there is `full-nat`, `nat`, `dsr`, `ipip` and `gue`",
        ),
        (
            "scheduler = \"rr\"\n",
            "unknown scheduler `rr`: there is `maglev`, `source-hash`, `round-robin` and `least-conn`",
        ),
        (
            "on_down = \"kep\"\n",
            "unknown on_down `kep`: did you mean `keep`? there is `keep`, `rehash` and `reset`",
        ),
    ];
    for (rest, expected) in cases {
        let prefix = "flowgate.toml:6:";
        let headline = headline(&service(rest));
        assert!(headline.starts_with(prefix) && headline.ends_with(expected), "{headline}");
    }
    let health = headline(&service("[service.health]\ntype = \"grpc\"\n"));
    assert!(
        health.ends_with(
            "service \"web\" (line 1), health: unknown type `grpc`: there is `none`, `tcp` and `http`"
        ),
        "{health}"
    );
    let attach = headline("[agent]\ninterfaces = [{ name = \"eth0\", mode = \"natve\" }]\n");
    assert!(attach.contains("unknown mode `natve`: did you mean `native`?"), "{attach}");
}

#[test]
fn missing_fields_say_what_to_add() {
    let text = "# services\n\n[[service]]\nname = \"web\"\naddress = \"10.1.0.10\"\nport = 80\n";
    assert_eq!(
        headline(text),
        "flowgate.toml:3:1: service \"web\" (line 3): missing field `protocol`: add protocol = \"tcp\" or \
         \"udp\""
    );
    let text = service("[service.health]\ninterval = \"2s\"\n");
    assert!(
        headline(&text).ends_with("health: missing field `type`: add type = \"none\", \"tcp\" or \"http\"")
    );
    let text = service("[[service.backend]]\nport = 80\n");
    assert!(headline(&text).ends_with("backend 1: missing field `address`: add address = \"10.1.0.10\""));
}

#[test]
fn wrong_types_say_what_is_taken() {
    let replaced = |from: &str, to: &str| headline(&service("").replace(from, to));
    let cases = [
        (
            replaced("80", "\"80\""),
            "`port` is a text: it takes a whole number from 0 to 65535, without quotes",
        ),
        (
            replaced("80", "80.5"),
            "`port` is a number with a fraction: it takes a whole number from 0 to 65535",
        ),
        (replaced("80", "80000"), "`port` is out of range: it takes a whole number from 0 to 65535"),
        (replaced("80", "-1"), "`port` is out of range"),
        (
            replaced("\"tcp\"", "6"),
            "`protocol` is a number: it takes a text in quotes, for example protocol = \"tcp\"",
        ),
        (headline("[limits]\nflows = 99999999999999999999999\n"), "`flows` is out of range"),
        (headline("[agent]\ninterfaces = \"eth0\"\n"), "`interfaces` is a text: it takes a list in brackets"),
        (
            headline("[agent]\ninterfaces = [1]\n"),
            "`interfaces` is a number: it takes a name such as \"eth0\"",
        ),
        (headline("[agent]\ndebug_packets = 1\n"), "`debug_packets` is a number: it takes true or false"),
        (
            headline(&service("idle_timeout = 5\n")),
            "takes a text in quotes, for example idle_timeout = \"5m\"",
        ),
    ];
    for (headline, expected) in cases {
        assert!(headline.contains(expected), "{headline}");
    }
}

#[test]
fn tables_and_lists_of_tables_are_told_apart() {
    let cases = [
        ("[service]\nname = \"web\"\n".to_owned(), "write [[service]], with two brackets"),
        ("[[agent]]\n".to_owned(), "write [agent], once"),
        ("agent = []\n".to_owned(), "write [agent], once"),
        ("service = [[\"web\", \"10.1.0.10\", 80, \"tcp\"]]\n".to_owned(), "write [[service]]"),
        (service("backend = [[\"10.2.0.11\"]]\n"), "write [[service.backend]]"),
        (
            service("[service.backend]\naddress = \"10.2.0.11\"\n"),
            "write [[service.backend]], with two brackets",
        ),
        (service("health = [\"tcp\"]\n"), "write [service.health]"),
    ];
    for (text, expected) in cases {
        let headline = headline(&text);
        assert!(headline.ends_with(expected) || headline.contains(expected), "{headline}");
    }
}

#[test]
fn a_byte_order_mark_shifts_nothing() {
    assert!(read("\u{feff}[agent]\nsocket = \"/x\"\n").is_ok());
    assert!(headline("\u{feff}[agent]\nsokcet = \"/x\"\n").starts_with("flowgate.toml:2:1: unknown field"));
}

#[test]
fn what_is_no_toml_is_shown() {
    for (text, place) in
        [("[agent\n", "1:7"), ("a = \n", "1:5"), ("[agent]\n[agent]\n", "2:2"), ("x = \"abc", "1:9")]
    {
        let headline = headline(text);
        assert!(headline.starts_with(&format!("flowgate.toml:{place}: not valid TOML: ")), "{headline}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        lines in prop::collection::vec(
            prop_oneof![
                "\\[{0,2}(agent|service|service\\.backend|x)\\]{0,2}",
                "(port|name|health|backend|interfaces) ?= ?[0-9\"\\[\\]{}é, =a-z]{0,9}",
                "[a-zé\t \"=\\[\\]{},0-9.\r]{0,12}",
            ],
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        if let Err(error) = read(&text) {
            let shown = error.to_string();
            prop_assert!(shown.starts_with("flowgate.toml:"), "{shown}");
        }
    }
}
