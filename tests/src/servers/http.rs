//! Just enough of HTTP/1.1, from the server's side.

use std::{
    io::{self, BufRead, BufReader, Write as _},
    net::TcpStream,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::Session;

/// Answers requests until the client closes, or asks to.
pub(super) fn serve(stream: &TcpStream, session: &Session) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Ok(Some(request)) = read_request(&mut reader) {
        let Some(answer) = answer(&request, session) else { return };
        if session.is_stopping() || writer.write_all(&answer).is_err() || !request.keep_alive {
            return;
        }
    }
}

struct Request {
    path: String,
    keep_alive: bool,
}

/// None where the client has closed.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().skip(1);
    let path = words.next().unwrap_or("/").to_owned();
    let mut keep_alive = words.next() != Some("HTTP/1.0");
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Ok(Some(Request { path, keep_alive }));
        }
        if header == "connection: close" {
            keep_alive = false;
        }
    }
}

/// None where the server is stopped meanwhile.
fn answer(request: &Request, session: &Session) -> Option<Vec<u8>> {
    let name = &session.shared.name;
    let named = || format!("{name}\n").into_bytes();
    let path = request.path.as_str();
    let (status, body) = if path == "/healthz" {
        session.shared.health_requests.fetch_add(1, Ordering::Relaxed);
        let healthy = session.shared.healthy.load(Ordering::Relaxed);
        (if healthy { "200 OK" } else { "503 Service Unavailable" }, named())
    } else {
        session.count_request();
        if let Some(length) = number_after(path, "/bytes/") {
            ("200 OK", vec![b'x'; usize::try_from(length).ok()?])
        } else if let Some(milliseconds) = number_after(path, "/slow/") {
            sleep_unless_stopped(Duration::from_millis(milliseconds), session)?;
            ("200 OK", named())
        } else if path == "/" {
            ("200 OK", named())
        } else {
            ("404 Not Found", named())
        }
    };
    let connection = if request.keep_alive { "keep-alive" } else { "close" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nX-Backend: {name}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    Some(answer)
}

fn number_after(path: &str, prefix: &str) -> Option<u64> {
    path.strip_prefix(prefix)?.parse().ok()
}

fn sleep_unless_stopped(time: Duration, session: &Session) -> Option<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if session.is_stopping() {
            return None;
        }
        thread::sleep(Duration::from_millis(5).min(end.saturating_duration_since(Instant::now())));
    }
    Some(())
}
