//! How a service may have packets in parts steered.

use crate::{
    config::{
        entry::ServiceEntry,
        error::{Problem, Scope},
    },
    model::{Fragments, Mode, Protocol},
};

/// Validates `fragments`; the default where there is none.
pub(super) fn validate(entry: &ServiceEntry, mode: Mode, scope: &Scope) -> Result<Fragments, Problem> {
    let refused = |why: String| Err(scope.problem("fragments", why));
    match (entry.fragments, entry.protocol, mode) {
        (None | Some(Fragments::FollowFirst), ..) => Ok(Fragments::FollowFirst),
        (Some(Fragments::ByAddress), Protocol::Tcp, _) => refused(
            "fragments = \"by-address\" is for udp: a connection's packets would part ways; use \"follow-first\"".into(),
        ),
        (Some(Fragments::ByAddress), Protocol::Udp, Mode::FullNat | Mode::Nat) => refused(format!(
            "fragments = \"by-address\" does not work in mode = \"{mode}\", whose answers are told by their ports: use \
             \"follow-first\", or mode = \"dsr\", \"ipip\" or \"gue\""
        )),
        (Some(Fragments::ByAddress), Protocol::Udp, Mode::Dsr | Mode::Ipip | Mode::Gue) => {
            Ok(Fragments::ByAddress)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{
        testing,
        validate::{read, validate_service},
    };

    fn service(mode: Mode, protocol: Protocol, fragments: Option<Fragments>) -> Result<Fragments, String> {
        let mut entry = testing::entry("dns", "10.1.0.10", &["10.2.0.11"]);
        entry.mode = Some(mode);
        entry.protocol = protocol;
        entry.fragments = fragments;
        entry.backends[0].port = None;
        validate_service(&entry).map(|service| service.fragments).map_err(|error| error.to_string())
    }

    #[test]
    fn parts_follow_the_first_unless_something_else_is_asked_for() {
        for mode in [Mode::FullNat, Mode::Nat, Mode::Dsr, Mode::Ipip, Mode::Gue] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for fragments in [None, Some(Fragments::FollowFirst)] {
                    assert_eq!(service(mode, protocol, fragments), Ok(Fragments::FollowFirst));
                }
            }
        }
    }

    #[test]
    fn by_address_wants_its_address_for_itself() {
        let file = |address: &str, protocol: &str| {
            let service = |name: &str, address: &str, port: u16, protocol: &str, line: &str| {
                format!(
                    "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\nprotocol = \"{protocol}\"\n\
                     mode = \"dsr\"\n{line}\n[[service.backend]]\naddress = \"10.2.0.11\"\n"
                )
            };
            let dns = service("dns", "10.1.0.10", 53, "udp", "fragments = \"by-address\"");
            let text = dns + &service("other", address, 99, protocol, "");
            read(&text, Path::new("flowgate.toml")).map_err(|error| error.to_string())
        };
        file("10.1.0.11", "udp").expect("another address");
        file("10.1.0.10", "tcp").expect("another protocol");
        let error = file("10.1.0.10", "udp").expect_err("the same address");
        assert!(error.contains("and service \"other\" (line 10) has the same address"), "{error}");
        assert!(error.contains("use \"follow-first\", or another address"), "{error}");
    }

    #[test]
    fn by_address_is_refused_where_it_cannot_work() {
        let by_address = Some(Fragments::ByAddress);
        for mode in [Mode::Dsr, Mode::Ipip, Mode::Gue] {
            assert_eq!(service(mode, Protocol::Udp, by_address), Ok(Fragments::ByAddress));
            let error = service(mode, Protocol::Tcp, by_address).expect_err("not valid");
            assert!(error.contains("is for udp"), "{error}");
        }
        for mode in [Mode::FullNat, Mode::Nat] {
            let error = service(mode, Protocol::Udp, by_address).expect_err("not valid");
            assert!(error.contains("or mode = \"dsr\", \"ipip\" or \"gue\""), "{error}");
        }
    }
}
