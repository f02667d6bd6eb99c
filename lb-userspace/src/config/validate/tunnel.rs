//! What a service may ask of its tunnel.

use crate::{
    config::{
        entry::ServiceEntry,
        error::{Problem, Problems, Scope},
    },
    model::{Mode, Service, TunnelDontFragment},
};

/// Options that are valid, defaults filled in.
pub(super) struct Tunnel {
    pub(super) port: u16,
    pub(super) dont_fragment: TunnelDontFragment,
}

/// Validates what is said of a tunnel: nothing, where the mode has none.
pub(super) fn validate(
    entry: &ServiceEntry,
    mode: Mode,
    scope: &Scope,
    problems: &mut Problems,
) -> Option<Tunnel> {
    let port = problems.keep(port(entry.tunnel_port, mode, scope));
    let dont_fragment = problems.keep(dont_fragment(entry.tunnel_dont_fragment, mode, scope));
    Some(Tunnel { port: port?, dont_fragment: dont_fragment? })
}

fn port(port: Option<u16>, mode: Mode, scope: &Scope) -> Result<u16, Problem> {
    let refused = |message: String| Err(scope.problem("tunnel_port", message));
    match port {
        Some(port) if mode != Mode::Gue => refused(format!(
            "tunnel_port = {port} is for mode = \"gue\", and this is \"{mode}\": use that mode, or leave it out"
        )),
        Some(0) => refused(format!(
            "tunnel_port = 0 is not a port: leave it out to use {}",
            Service::DEFAULT_TUNNEL_PORT
        )),
        port => Ok(port.unwrap_or(Service::DEFAULT_TUNNEL_PORT)),
    }
}

fn dont_fragment(
    how: Option<TunnelDontFragment>,
    mode: Mode,
    scope: &Scope,
) -> Result<TunnelDontFragment, Problem> {
    match how {
        Some(how) if !mode.is_tunnel() => Err(scope.problem(
            "tunnel_dont_fragment",
            format!(
                "tunnel_dont_fragment = \"{how}\" is for mode = \"ipip\" or \"gue\", and this is \"{mode}\": use one of \
                 those modes, or leave it out"
            ),
        )),
        how => Ok(how.unwrap_or(TunnelDontFragment::Copy)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::{entry::ServiceEntry, testing, validate::validate_service},
        model::{Mode, Service, TunnelDontFragment},
    };

    fn entry(mode: Mode, backend: &str) -> ServiceEntry {
        let mut entry = testing::entry("web", "10.1.0.10", &[backend]);
        entry.mode = Some(mode);
        entry.backends[0].port = None;
        entry
    }

    #[test]
    fn tunnels_have_quiet_defaults_and_take_what_is_theirs() {
        for mode in [Mode::Ipip, Mode::Gue] {
            let service = validate_service(&entry(mode, "10.2.0.11")).expect("valid");
            assert_eq!(service.tunnel_port, Service::DEFAULT_TUNNEL_PORT);
            assert_eq!(service.tunnel_dont_fragment, TunnelDontFragment::Copy);
        }
        let mut gue = entry(Mode::Gue, "10.2.0.11");
        (gue.tunnel_port, gue.tunnel_dont_fragment) = (Some(5555), Some(TunnelDontFragment::Clear));
        let service = validate_service(&gue).expect("valid");
        assert_eq!((service.tunnel_port, service.tunnel_dont_fragment), (5555, TunnelDontFragment::Clear));
    }

    #[test]
    fn backends_of_tunnels_may_be_of_the_other_ip_version() {
        for mode in [Mode::Ipip, Mode::Gue] {
            validate_service(&entry(mode, "2001:db8::11")).expect("valid");
        }
        for mode in [Mode::FullNat, Mode::Nat, Mode::Dsr] {
            let error = validate_service(&entry(mode, "2001:db8::11")).expect_err("not valid").to_string();
            assert!(error.contains("or use mode = \"ipip\" or \"gue\""), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_tunnels_is_refused_with_the_way_out() {
        let refused = |mode, change: fn(&mut ServiceEntry)| {
            let mut entry = entry(mode, "10.2.0.11");
            change(&mut entry);
            validate_service(&entry).expect_err("not valid").to_string()
        };
        for mode in [Mode::FullNat, Mode::Nat, Mode::Dsr, Mode::Ipip] {
            let error = refused(mode, |entry| entry.tunnel_port = Some(6080));
            assert!(error.contains("tunnel_port = 6080 is for mode = \"gue\""), "{error}");
        }
        for mode in [Mode::FullNat, Mode::Nat, Mode::Dsr] {
            let error = refused(mode, |entry| entry.tunnel_dont_fragment = Some(TunnelDontFragment::Set));
            assert!(error.contains("use one of those modes, or leave it out"), "{error}");
        }
        let error = refused(Mode::Gue, |entry| entry.tunnel_port = Some(0));
        assert!(error.contains("tunnel_port = 0 is not a port: leave it out to use 6080"), "{error}");
        for mode in [Mode::Ipip, Mode::Gue, Mode::Dsr] {
            let error = refused(mode, |entry| entry.backends[0].port = Some(8080));
            let words =
                format!("mode = \"{mode}\" cannot rewrite ports: use port = 80, or mode = \"full-nat\"");
            assert!(error.contains(&words), "{error}");
        }
    }
}
