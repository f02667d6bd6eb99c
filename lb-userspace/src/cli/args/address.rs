//! Addresses as they are written: `10.2.0.11:8080`, `[2001:db8::1]:80`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::{config::entry::BackendEntry, model::Backend};

/// `ADDRESS[:PORT]`: without a port, the service's is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewBackend {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

impl NewBackend {
    /// The request for it.
    pub(crate) fn entry(
        self,
        weight: Option<u16>,
        priority: Option<u8>,
        max_flows: Option<u32>,
    ) -> BackendEntry {
        BackendEntry { address: self.address.to_string(), port: self.port, weight, priority, max_flows }
    }
}

/// `ADDRESS[:PORT][@WEIGHT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WeightedBackend {
    pub(crate) backend: NewBackend,
    pub(crate) weight: Option<u16>,
}

/// Reads `ADDRESS:PORT`.
pub(super) fn backend_address(text: &str) -> Result<SocketAddr, String> {
    let NewBackend { address, port } = new_backend(text)?;
    let port = port.ok_or_else(|| {
        let example = SocketAddr::new(address, 8080);
        format!("the port is missing: a backend is named by ADDRESS:PORT, for example {example}")
    })?;
    Ok(SocketAddr::new(address, port))
}

/// Reads `ADDRESS[:PORT]`.
pub(super) fn new_backend(text: &str) -> Result<NewBackend, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) =
            rest.split_once(']').ok_or("the bracket is not closed: write [2001:db8::1]:80")?;
        let address = address
            .parse::<Ipv6Addr>()
            .map_err(|_| format!("{address:?} is not an IPv6 address: write [2001:db8::1]:80"))?;
        let port = match rest.strip_prefix(':') {
            Some(text) => Some(port(text)?),
            None if rest.is_empty() => None,
            None => return Err(format!("{rest:?} after the bracket: write [2001:db8::1]:80")),
        };
        return Ok(NewBackend { address: address.into(), port });
    }
    if let Ok(address) = text.parse() {
        return Ok(NewBackend { address, port: None });
    }
    match text.rsplit_once(':') {
        Some((address, text)) if !address.contains(':') => {
            Ok(NewBackend { address: ip_address(address)?, port: Some(port(text)?) })
        }
        Some(_) => Err("not an IPv6 address; with a port it goes into brackets: [2001:db8::1]:80".to_owned()),
        None => Ok(NewBackend { address: ip_address(text)?, port: None }),
    }
}

/// Reads `ADDRESS[:PORT][@WEIGHT]`.
pub(super) fn weighted_backend(text: &str) -> Result<WeightedBackend, String> {
    let Some((address, text)) = text.rsplit_once('@') else {
        return Ok(WeightedBackend { backend: new_backend(text)?, weight: None });
    };
    Ok(WeightedBackend { backend: new_backend(address)?, weight: Some(weight(text)?) })
}

/// `ADDRESS:PORT[=WEIGHT]`: a backend that is there, and perhaps its new weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReweightedBackend {
    pub(crate) backend: SocketAddr,
    pub(crate) weight: Option<u16>,
}

/// Reads `ADDRESS:PORT[=WEIGHT]`.
pub(super) fn reweighted_backend(text: &str) -> Result<ReweightedBackend, String> {
    match text.split_once('=') {
        None => Ok(ReweightedBackend { backend: backend_address(text)?, weight: None }),
        Some((address, text)) => {
            Ok(ReweightedBackend { backend: backend_address(address)?, weight: Some(weight(text)?) })
        }
    }
}

/// Reads an address without a port.
pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        if text.parse::<SocketAddr>().is_ok() {
            return "an address without a port is wanted here: the port has an option of its own".to_owned();
        }
        format!("{text:?} is not an IP address, and names are not looked up")
    })
}

/// Reads a weight.
pub(super) fn weight(text: &str) -> Result<u16, String> {
    let max = Backend::MAX_WEIGHT;
    let weight = text.parse().ok().filter(|weight| *weight <= max);
    weight.ok_or_else(|| format!("{text:?} is not a weight: it is 0 to {max}, 0 for no new flows"))
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{text:?} is not a port: it is 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Option<u16>) {
        let NewBackend { address, port } = new_backend(text).unwrap();
        (address.to_string(), port)
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        assert_eq!(read("10.2.0.11:8080"), ("10.2.0.11".to_owned(), Some(8080)));
        assert_eq!(read("10.2.0.11"), ("10.2.0.11".to_owned(), None));
        assert_eq!(read("[2001:db8::1]:80"), ("2001:db8::1".to_owned(), Some(80)));
        assert_eq!(read("[2001:db8::1]"), ("2001:db8::1".to_owned(), None));
        assert_eq!(read("2001:db8::1"), ("2001:db8::1".to_owned(), None));
    }

    #[test]
    fn a_backend_that_exists_is_named_with_its_port() {
        assert_eq!(backend_address("[2001:db8::1]:80").unwrap().to_string(), "[2001:db8::1]:80");
        let error = backend_address("10.2.0.11").unwrap_err();
        assert!(error.ends_with("for example 10.2.0.11:8080"), "{error}");
        let error = backend_address("2001:db8::1").unwrap_err();
        assert!(error.ends_with("for example [2001:db8::1]:8080"), "{error}");
    }

    #[test]
    fn a_weight_follows_an_at_sign() {
        let read = |text| weighted_backend(text).unwrap().weight;
        assert_eq!(read("10.2.0.11:8080@5"), Some(5));
        assert_eq!(read("[2001:db8::1]:80@1000"), Some(1000));
        assert_eq!(read("2001:db8::1@0"), Some(0));
        assert_eq!(read("10.2.0.11"), None);
    }

    #[test]
    fn errors_explain() {
        for (text, words) in [
            ("web1:80", "\"web1\" is not an IP address"),
            ("web1", "\"web1\" is not an IP address"),
            ("", "\"\" is not an IP address"),
            ("10.2.0.11:0", "\"0\" is not a port"),
            ("10.2.0.11:65536", "\"65536\" is not a port"),
            ("10.2.0.11:", "\"\" is not a port"),
            ("10.2.0.256:80", "\"10.2.0.256\" is not an IP address"),
            ("[2001:db8::1:80", "not closed"),
            ("[10.2.0.11]:80", "not an IPv6 address"),
            ("[2001:db8::1]80", "after the bracket"),
            ("2001:db8::1::2:80", "into brackets"),
            ("10.2.0.11@x", "\"x\" is not a weight"),
            ("10.2.0.11@1001", "it is 0 to 1000"),
        ] {
            let error = weighted_backend(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(ip_address("10.1.0.10:80").unwrap_err().contains("an option of its own"));
    }
}
