//! Is a TCP connection accepted?

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Fault;

/// Connects, and closes at once in the ordinary way (FIN).
///
/// A reset (`SO_LINGER` 0) would spare this machine a socket in TIME_WAIT, but many servers log it as an error of
/// the client, every interval, for ever. The sockets are cheap: a local port is taken only towards that one
/// backend, where a probe every second leaves 60 of them.
pub(super) async fn ask(target: SocketAddr) -> Result<(), Fault> {
    TcpStream::connect(target).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use crate::{
        health::{Outcome, probe::probe},
        model::Probe,
    };

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_listener_passes_and_sees_an_ordinary_end() -> io::Result<()> {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await?;
            let outcome = probe(&Probe::Tcp, listener.local_addr()?, LIMIT).await;
            assert!(matches!(outcome, Outcome::Pass { took } if took < LIMIT), "{outcome:?}");
            let (mut stream, _) = listener.accept().await?;
            assert_eq!(stream.read(&mut [0; 1]).await?, 0, "an end of file, not a reset");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() -> io::Result<()> {
        let target = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let outcome = probe(&Probe::Tcp, target, LIMIT).await;
        assert!(
            matches!(&outcome, Outcome::Fail { reason, .. } if reason == "connection refused"),
            "{outcome:?}"
        );
        Ok(())
    }
}
