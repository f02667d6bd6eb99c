//! IP addresses that packets can be sent to.

use std::net::{IpAddr, SocketAddr};

use crate::config::error::{Problem, Scope};

/// The address that `text` stands for, where it is one host's: unicast and not of this host alone.
/// `field` is empty where `text` is one of a list.
pub(super) fn unicast(text: &str, field: &str, scope: &Scope) -> Result<IpAddr, Problem> {
    let equals = if field.is_empty() { "" } else { " = " };
    let refused = |reason: String| scope.problem(field, format!("{field}{equals}{text:?} {reason}"));
    let address = parse(text).map_err(refused)?;
    match not_unicast(address) {
        None => Ok(address),
        Some(reason) => Err(refused(reason)),
    }
}

fn parse(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(both) = text.parse::<SocketAddr>() {
        let (ip, port) = (both.ip(), both.port());
        return Err(format!("has a port in it: write \"{ip}\", and port = {port} where a port belongs"));
    }
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(inner) = inner.filter(|inner| inner.parse::<IpAddr>().is_ok()) {
        return Err(format!("is in brackets: write \"{inner}\""));
    }
    if let Some((address, _)) = text.split_once('/').filter(|(address, _)| address.parse::<IpAddr>().is_ok())
    {
        return Err(format!("is a network: give one address, for example \"{address}\""));
    }
    if text.split_once('%').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()) {
        return Err("has a zone: give an address that is valid beyond one link".to_owned());
    }
    if text.trim() != text && text.trim().parse::<IpAddr>().is_ok() {
        return Err(format!("has spaces around it: write \"{}\"", text.trim()));
    }
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.chars().any(char::is_alphabetic) && text.chars().all(plain) {
        return Err("is a host name: give the IP address it stands for, names are not looked up".to_owned());
    }
    Err("is not an IP address: write it like \"10.1.0.10\" or \"2001:db8::10\"".to_owned())
}

fn not_unicast(address: IpAddr) -> Option<String> {
    let reason = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let v4 = address.to_canonical();
            return Some(format!("is an IPv4 address in IPv6 form: write \"{v4}\""));
        }
        _ if address.is_unspecified() => "is the unspecified address: give the one that packets carry",
        _ if address.is_multicast() => "is a multicast address: give one host's",
        _ if address.is_loopback() => {
            "is a loopback address, which never leaves a host: give one that is reached over the network"
        }
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address: give one host's",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "is a link-local address, which names no host without an interface: give one that is valid \
             beyond one link"
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::unicast;
    use crate::config::error::Scope;

    fn read(text: &str) -> Result<String, String> {
        let scope = Scope::service("web", None, None);
        unicast(text, "address", &scope).map(|address| address.to_string()).map_err(|problem| problem.message)
    }

    #[test]
    fn one_hosts_addresses_are_taken() {
        for text in ["10.1.0.10", "169.254.0.1", "2001:db8::10", "fd00::1"] {
            assert_eq!(read(text), Ok(text.to_owned()));
        }
        assert_eq!(read("2001:DB8:0::10"), Ok("2001:db8::10".to_owned()));
    }

    #[test]
    fn other_things_are_refused_with_the_way_out() {
        let cases = [
            ("1.2.3.4:80", "has a port in it: write \"1.2.3.4\", and port = 80"),
            ("[2001:db8::1]:80", "has a port in it: write \"2001:db8::1\", and port = 80"),
            ("[2001:db8::1]", "is in brackets: write \"2001:db8::1\""),
            ("10.0.0.0/24", "is a network"),
            ("fe80::1%eth0", "has a zone"),
            (" 10.0.0.1", "has spaces around it: write \"10.0.0.1\""),
            ("web.example.com", "is a host name"),
            ("localhost", "is a host name"),
            ("10.0.0", "is not an IP address"),
            ("10.0.0.256", "is not an IP address"),
            ("010.0.0.1", "is not an IP address"),
            ("", "is not an IP address"),
            ("0.0.0.0", "is the unspecified address"),
            ("::", "is the unspecified address"),
            ("224.0.0.1", "is a multicast address"),
            ("ff02::1", "is a multicast address"),
            ("255.255.255.255", "is the broadcast address"),
            ("127.0.0.53", "is a loopback address"),
            ("::1", "is a loopback address"),
            ("fe80::1", "is a link-local address"),
            ("::ffff:10.0.0.1", "is an IPv4 address in IPv6 form: write \"10.0.0.1\""),
            ("::ffff:127.0.0.1", "is an IPv4 address in IPv6 form"),
        ];
        for (text, expected) in cases {
            let refused = read(text).unwrap_err();
            assert!(refused.starts_with(&format!("address = {text:?} {expected}")), "{refused}");
        }
    }
}
