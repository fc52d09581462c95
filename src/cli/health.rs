//! The probe of `causeway health`: one request, one status, within seconds.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use thiserror::Error;

const PATIENCE: Duration = Duration::from_secs(2);
/// No status of ours is longer.
const LONGEST: u64 = 16 * 1024;

/// Why a gateway does not count as healthy.
#[derive(Debug, Error)]
pub(super) enum Unhealthy {
    #[error("{0:?} cannot be asked: expected http://host:port/path")]
    Url(String),
    #[error("nobody answers at {0}: {1}")]
    Away(String, std::io::Error),
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Asks for a page; only status 200 is healthy.
pub(super) fn check(url: &str) -> Result<(), Unhealthy> {
    let (authority, path) = parts(url).ok_or_else(|| Unhealthy::Url(url.to_owned()))?;
    let answer = ask(authority, path).map_err(|error| Unhealthy::Away(url.to_owned(), error))?;
    let status = answer.split(' ').nth(1);
    if answer.starts_with("HTTP/1.") && status == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    Err(Unhealthy::NotReady(
        format!("{} {body}", status.unwrap_or("no HTTP"))
            .trim()
            .to_owned(),
    ))
}

fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/readyz"),
    };
    let plain = url.bytes().all(|b| b.is_ascii_graphic());
    (plain && authority.contains(':')).then_some((authority, path))
}

fn ask(authority: &str, path: &str) -> std::io::Result<String> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in authority.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        return Ok(String::from_utf8_lossy(&answer).into_owned());
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers once.
    fn once(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap();
            assert!(head[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    #[test]
    fn only_200_is_healthy() {
        assert!(check(&once("HTTP/1.1 200 OK\r\n\r\n{}")).is_ok());
        let error = check(&once("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}")).unwrap_err();
        assert_eq!(error.to_string(), "not ready: 503 {\"ready\":false}");
        let error = check(&once("hello 200 ")).unwrap_err();
        assert!(matches!(error, Unhealthy::NotReady(_)));
    }

    #[test]
    fn nobody_there_and_nowhere_to_ask() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(
            check(&format!("http://{closed}/")),
            Err(Unhealthy::Away(..))
        ));
        for url in ["", "https://127.0.0.1:1/", "http://host", "http://a:1/\r\nx: y"] {
            assert!(matches!(check(url), Err(Unhealthy::Url(_))), "{url}");
        }
    }
}
