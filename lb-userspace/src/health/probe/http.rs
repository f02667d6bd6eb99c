//! Is an HTTP/1.1 request answered with an expected status?

use std::{io, net::SocketAddr, pin::pin};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Fault;
use crate::model::HttpCheck;

/// The status line and all headers of an answer fit in this.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most headers of an answer.
const MAX_HEADERS: usize = 100;

/// Sends one GET over a connection of its own, and reads the answer's head. The body is not read, and redirects
/// are not followed: the status is the answer.
pub(super) async fn ask(check: &HttpCheck, target: SocketAddr) -> Result<(), Fault> {
    let request = request(check, target)?;
    let stream = TcpStream::connect(target).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fault(&error))?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let mut open = true;
    let answer = loop {
        tokio::select! {
            // The answer first: a connection that ends with it has still answered.
            biased;
            answer = &mut answer => break answer.map_err(|error| fault(&error))?,
            _ = &mut connection, if open => open = false,
        }
    };
    let status = answer.status().as_u16();
    let (low, high) = check.expect_status;
    if (low..=high).contains(&status) {
        return Ok(());
    }
    let expected = if low == high { low.to_string() } else { format!("{low}-{high}") };
    Err(Fault::Backend(format!("HTTP status {status}, expected {expected}")))
}

fn request(check: &HttpCheck, target: SocketAddr) -> Result<Request<Empty<Bytes>>, Fault> {
    let host = check.host.clone().unwrap_or_else(|| target.to_string());
    Request::get(&check.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("flowgate/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Fault::Ours(format!("the check's path or host cannot be sent ({error}): change it")))
}

fn fault(error: &hyper::Error) -> Fault {
    let too_large = "the head of the answer is above 16 KiB or 100 headers";
    if error.is_parse_too_large() {
        return Fault::Backend(too_large.to_owned());
    }
    if error.is_parse() {
        return Fault::Backend("the answer is not HTTP/1.1".to_owned());
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Fault::Backend("connection closed without an answer".to_owned());
    }
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code).into(),
        None => Fault::Backend(error.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
        time::sleep,
    };

    use super::*;
    use crate::{
        health::{Outcome, probe::probe},
        model::Probe,
    };

    pub(in crate::health) fn check(path: &str) -> HttpCheck {
        HttpCheck { path: path.to_owned(), host: None, expect_status: (200, 399) }
    }

    /// A server for one connection: what is sent, byte by byte where `pause` is not 0. Answers with the request.
    async fn server(
        answer: Vec<u8>,
        pause: Duration,
    ) -> io::Result<(SocketAddr, JoinHandle<io::Result<String>>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = async move {
            let (mut stream, _) = listener.accept().await?;
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await?;
            request.truncate(length);
            if pause.is_zero() {
                // The probe may hang up before it has taken everything in.
                drop(stream.write_all(&answer).await);
            } else {
                for byte in answer {
                    stream.write_all(&[byte]).await?;
                    sleep(pause).await;
                }
            }
            Ok(String::from_utf8_lossy(&request).into_owned())
        };
        Ok((address, tokio::spawn(serving)))
    }

    async fn outcome_of(check: HttpCheck, answer: impl Into<Vec<u8>>) -> io::Result<Outcome> {
        let (address, _server) = server(answer.into(), Duration::ZERO).await?;
        Ok(probe(&Probe::Http(check), address, Duration::from_secs(1)).await)
    }

    #[tokio::test]
    async fn the_request_is_whole_and_polite() -> io::Result<()> {
        let (address, served) = server(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Duration::ZERO).await?;
        let outcome = probe(&Probe::Http(check("/healthz?full=1")), address, Duration::from_secs(1)).await;
        assert!(matches!(outcome, Outcome::Pass { .. }), "{outcome:?}");
        let request = served.await??;
        assert!(request.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nhost: {address}\r\n")), "{request}");
        assert!(request.contains("\r\nuser-agent: flowgate/"), "{request}");
        assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"), "{request}");
        Ok(())
    }

    #[tokio::test]
    async fn the_host_can_be_chosen() -> io::Result<()> {
        let (address, served) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Duration::ZERO).await?;
        let named = HttpCheck { host: Some("shop.example".to_owned()), ..check("/") };
        probe(&Probe::Http(named), address, Duration::from_secs(1)).await;
        assert!(served.await??.contains("\r\nhost: shop.example\r\n"));
        Ok(())
    }

    #[tokio::test]
    async fn answers_and_their_verdicts() -> io::Result<()> {
        let exactly = HttpCheck { expect_status: (204, 204), ..check("/") };
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
        let too_large = Some("the head of the answer is above 16 KiB or 100 headers");
        let table = [
            (check("/"), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", None),
            (check("/"), "HTTP/1.0 200 OK\r\n\r\n", None),
            (check("/"), "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\n\r\n", None),
            (check("/"), "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", None),
            (check("/"), "HTTP/1.1 503 No\r\n\r\n", Some("HTTP status 503, expected 200-399")),
            (exactly, "HTTP/1.1 200 OK\r\n\r\n", Some("HTTP status 200, expected 204")),
            (check("/"), "SSH-2.0-OpenSSH_9.2\r\n", Some("the answer is not HTTP/1.1")),
            (check("/"), "", Some("connection closed without an answer")),
            (check("/"), "HTTP/1.1 200 OK\r\n", Some("connection closed without an answer")),
            (check("/"), &long, too_large),
            (check("/"), &many, too_large),
        ];
        for (check, answer, expected) in table {
            let outcome = outcome_of(check, answer).await?;
            let reason = match &outcome {
                Outcome::Pass { .. } => None,
                Outcome::Fail { reason, .. } => Some(reason.as_str()),
                Outcome::NotAsked { reason } => panic!("{reason}"),
            };
            assert_eq!(reason, expected, "{answer:.80}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn one_byte_at_a_time_does_not_stretch_the_timeout() -> io::Result<()> {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
        let (address, server) = server(answer, Duration::from_millis(50)).await?;
        let outcome = probe(&Probe::Http(check("/")), address, Duration::from_millis(300)).await;
        server.abort();
        let Outcome::Fail { reason, took } = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason, "no answer within 300ms");
        assert!(took < Duration::from_millis(600), "{took:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_sent_is_no_fault_of_the_backend() {
        let outcome =
            probe(&Probe::Http(check("/a b")), ([127, 0, 0, 1], 9).into(), Duration::from_secs(1)).await;
        assert!(matches!(outcome, Outcome::NotAsked { .. }), "{outcome:?}");
    }
}
