//! Every command line that is promised is taken, and what is wrong is refused with exit code 2.

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, Command};
use crate::agent::AgentOptions;

fn leaves(command: &clap::Command, path: &str, each: &mut impl FnMut(&str, &clap::Command)) {
    each(path, command);
    for sub in command.get_subcommands() {
        leaves(sub, &format!("{path} {}", sub.get_name()), each);
    }
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_does_and_shows_examples_that_parse() {
    leaves(&Cli::command(), "flowgate", &mut |path, command| {
        let about = command.get_about().unwrap_or_else(|| panic!("{path} has no description")).to_string();
        assert!(!about.contains("`flowgate"), "{path} has the description of its arguments: {about}");
        let help = command.get_after_help().unwrap_or_else(|| panic!("{path} has no examples")).to_string();
        for line in help.lines() {
            assert!(line.len() <= 80, "{path}: a narrow terminal would break {line}");
        }
        let help = help.replace("\\\n", "");
        let examples: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  flowgate ")).collect();
        assert!(help.starts_with("EXAMPLES:\n") && !examples.is_empty(), "{path}: {help}");
        for example in examples {
            let line = format!("flowgate {}", example.split(" > ").next().unwrap());
            assert!(line.starts_with(path), "{line} is no example of {path}");
            if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("{line}: {error}");
            }
        }
    });
}

#[test]
fn every_client_takes_socket_and_output() {
    leaves(&Cli::command(), "flowgate", &mut |path, command| {
        let without = ["flowgate agent", "flowgate completions", "flowgate config check", "flowgate decap"];
        if command.has_subcommands() || without.contains(&path) {
            return;
        }
        for option in ["output", "socket"] {
            assert!(command.get_arguments().any(|arg| arg.get_long() == Some(option)), "{path} --{option}");
        }
    });
}

#[test]
fn wrong_usage_is_exit_code_2_and_explains() {
    for (line, words) in [
        ("flowgate", "Usage:"),
        ("flowgate statsu", "stats"),
        ("flowgate agent", "--config <FILE>"),
        ("flowgate backend list we/b", "service name \"we/b\" is not valid"),
        ("flowgate backend show web 10.2.0.11", "the port is missing"),
        ("flowgate backend add web web1:80", "\"web1\" is not an IP address"),
        ("flowgate backend set web --weight 5", "<ADDRESS:PORT[=WEIGHT]>"),
        ("flowgate backend set web 10.2.0.11:80=x", "is not a weight"),
        ("flowgate backend add web 10.2.0.11:80 --priority 16", "0..=15"),
        ("flowgate backend set web 10.2.0.11:80 --weight 1001", "it is 0 to 1000"),
        ("flowgate backend drain web 10.2.0.11:80 --timeout 1m", "--wait"),
        ("flowgate backend drain web 10.2.0.11:80 --wait --timeout 1", "time unit needed"),
        ("flowgate service add web --address 10.1.0.10:80 --port 80 --protocol tcp", "without a port"),
        (
            "flowgate service add web --address 10.1.0.10 --port 80 --protocol sctp",
            "[possible values: tcp, udp]",
        ),
        ("flowgate service set web --idle-timeout 5", "write it with its unit"),
        ("flowgate service set web --health-rise 0", "0 is not in 1.."),
    ] {
        let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(words), "{line}: {error}");
    }
}

#[test]
fn the_agents_options_reach_it() {
    let line = "flowgate agent --config lb.toml --interface eth0 --interface eth1 --socket s --state-dir d \
                --pin-dir p --log-format json --debug-packets";
    let Command::Agent(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
        panic!("not the agent");
    };
    let wanted = AgentOptions {
        config: Some("lb.toml".into()),
        interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        socket: Some("s".into()),
        state_dir: Some("d".into()),
        pin_dir: Some("p".into()),
        log_format: crate::agent::LogFormat::Json,
        debug_packets: true,
    };
    assert_eq!(AgentOptions::from(args), wanted);
}
