//! Echo servers: the name, a blank, and what was sent.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpStream, UdpSocket},
};

use super::Session;

/// Answers lines.
pub(super) fn serve_tcp(stream: &TcpStream, session: &Session) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut line = String::new();
    while !session.is_stopping() && reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        session.count_request();
        let answer = format!("{} {line}", session.shared.name);
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}

/// Answers datagrams.
pub(super) fn serve_udp(socket: &UdpSocket, session: &Session) {
    let mut buffer = vec![0; 1 << 16];
    let mut answer = Vec::new();
    while !session.is_stopping() {
        // Timeouts come by every few milliseconds; ICMP errors about old answers are nothing to us.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        session.count_request();
        answer.clear();
        answer.extend_from_slice(session.shared.name.as_bytes());
        answer.push(b' ');
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, client);
    }
}
