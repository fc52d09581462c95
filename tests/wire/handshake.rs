//! The opening handshake: what passes, what is refused and how, and whose pages may connect.

use causeway::wire::handshake::{Refusal, accept_key, check, origin_allowed};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Header lines as text: `name: value`.
fn headers(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value).unwrap(),
        );
    }
    map
}

fn good() -> Vec<&'static str> {
    vec![
        "Host: 127.0.0.1:8080",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
}

/// The good request with one header replaced, and lines added.
fn with(name: &str, lines: &[&'static str]) -> Result<String, Refusal> {
    let mut all = good();
    all.retain(|line| !line.starts_with(name));
    all.extend(lines);
    check(&headers(&all), &Method::GET, Version::HTTP_11).map(|key| key.accept().to_owned())
}

#[test]
fn the_key_of_the_rfc() {
    assert_eq!(accept_key(KEY).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(with("-", &[]).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn keys_that_are_none() {
    for key in [
        "",
        "abc",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==\n",
        "dGhlIHNhbXBsZSBub25j",
        "SGVsbG8sIHdvcmxkIQ==",
        "dGhlIHNhbXBsZSBub25jZSEh",
        "dGhlIHNhbXBsZSBub25jZSEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhIQ==",
        "!!!!IHNhbXBsZSBub25jZQ==",
    ] {
        assert_eq!(accept_key(key), None, "{key:?}");
    }
    assert!(
        accept_key("dGhlIHNhbXBsZSBub25jZR==").is_some(),
        "left-over bits do no harm"
    );
}

#[test]
fn requests_that_pass() {
    for (name, lines) in [
        ("Connection", ["Connection: keep-alive, Upgrade"].as_slice()),
        ("Connection", &["Connection: keep-alive", "Connection: UPGRADE"]),
        ("Upgrade", &["Upgrade: h2c, WebSocket"]),
        (
            "-",
            &[
                "Sec-WebSocket-Extensions: permessage-deflate",
                "Sec-WebSocket-Extensions: permessage-deflate",
            ],
        ),
        ("-", &["Sec-WebSocket-Protocol: chat, superchat"]),
        ("-", &["X-Forwarded-For: "]),
        ("-", &["X-Forwarded-For: 1.2.3.4, 127.0.0.1"]),
    ] {
        assert!(with(name, lines).is_ok(), "{lines:?}");
    }
}

#[test]
fn requests_that_do_not() {
    for (name, lines, refusal, status) in [
        ("Upgrade", [].as_slice(), Refusal::Upgrade, 426),
        ("Upgrade", &["Upgrade: h2c"], Refusal::Upgrade, 426),
        ("Upgrade", &["Upgrade: websockets"], Refusal::Upgrade, 426),
        ("Connection", &[], Refusal::Connection, 400),
        ("Connection", &["Connection: close"], Refusal::Connection, 400),
        ("Sec-WebSocket-Version", &[], Refusal::Version, 426),
        (
            "Sec-WebSocket-Version",
            &["Sec-WebSocket-Version: 12"],
            Refusal::Version,
            426,
        ),
        (
            "Sec-WebSocket-Version",
            &["Sec-WebSocket-Version: 113"],
            Refusal::Version,
            426,
        ),
        ("-", &["Sec-WebSocket-Version: 8"], Refusal::Version, 426),
        ("Sec-WebSocket-Key", &[], Refusal::Key, 400),
        ("Sec-WebSocket-Key", &["Sec-WebSocket-Key: x"], Refusal::Key, 400),
        (
            "-",
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
            Refusal::Key,
            400,
        ),
    ] {
        assert_eq!(with(name, lines), Err(refusal), "{lines:?}");
        assert_eq!(refusal.status().as_u16(), status);
        assert!(!refusal.text().is_empty());
    }
    assert_eq!(Refusal::Version.header(), Some(("sec-websocket-version", "13")));
    let good = headers(&good());
    assert_eq!(
        check(&good, &Method::POST, Version::HTTP_11),
        Err(Refusal::Method)
    );
    assert_eq!(
        check(&good, &Method::HEAD, Version::HTTP_11),
        Err(Refusal::Method)
    );
    assert_eq!(check(&good, &Method::GET, Version::HTTP_10), Err(Refusal::Http));
    assert_eq!(check(&good, &Method::GET, Version::HTTP_2), Err(Refusal::Http));
}

#[test]
fn whose_pages_may_connect() {
    let none: &[&str] = &[];
    let app = ["https://app.example"].as_slice();
    for (lines, allowed, passes) in [
        (["Host: gw:8080"].as_slice(), none, true),
        (&["Host: gw:8080", "Origin: null"], none, false),
        (&["Host: gw:8080", "Origin: null"], &["null"], false),
        (&["Host: gw:8080", "Origin: null"], &["*"], true),
        (&["Host: gw:8080", "Origin: https://anyone.example"], &["*"], true),
        (
            &["Host: a", "Origin: http://localhost", "Origin: http://localhost"],
            &["*"],
            false,
        ),
        // this machine
        (
            &["Host: 127.0.0.1:8080", "Origin: http://localhost:3000"],
            none,
            true,
        ),
        (&["Host: 127.0.0.1:8080", "Origin: https://localhost"], none, true),
        (
            &["Host: localhost:8080", "Origin: http://127.0.0.1:5173"],
            none,
            true,
        ),
        (&["Host: [::1]:8080", "Origin: http://[::1]:5173"], none, true),
        (
            &["Host: evil.example", "Origin: http://LOCALHOST:3000"],
            none,
            true,
        ),
        (
            &["Host: localhost", "Origin: http://localhost.evil.example"],
            none,
            false,
        ),
        (
            &["Host: localhost", "Origin: http://localhost@evil.example"],
            none,
            false,
        ),
        (&["Host: localhost", "Origin: http://localhost:80/"], none, false),
        (
            &["Host: localhost", "Origin: http://localhost:99999"],
            none,
            false,
        ),
        (&["Host: localhost", "Origin: http://"], none, false),
        (&["Host: localhost", "Origin: ftp://localhost"], none, false),
        // served from where it connects to
        (
            &["Host: 10.0.0.5:8080", "Origin: http://10.0.0.5:8080"],
            none,
            true,
        ),
        (&["Host: 10.0.0.5", "Origin: http://10.0.0.5:80"], none, true),
        (
            &["Host: [fd00::5]:8080", "Origin: http://[FD00::5]:8080"],
            none,
            true,
        ),
        (
            &["Host: 10.0.0.5:8080", "Origin: http://10.0.0.5:9090"],
            none,
            false,
        ),
        (
            &["Host: 10.0.0.5:8080", "Origin: https://10.0.0.5:8080"],
            none,
            false,
        ),
        (&["Host: 10.0.0.5", "Origin: https://10.0.0.5"], none, false),
        (
            &["Host: 10.0.0.5", "Host: 10.0.0.6", "Origin: http://10.0.0.5"],
            none,
            false,
        ),
        (&["Origin: http://10.0.0.5"], none, false),
        // a name pointed at our address after its page was loaded
        (
            &["Host: evil.example:8080", "Origin: http://evil.example:8080"],
            none,
            false,
        ),
        (
            &["Host: app.example:8080", "Origin: http://app.example:8080"],
            &["http://app.example:8080"],
            true,
        ),
        // listed
        (&["Host: gw", "Origin: https://app.example"], app, true),
        (&["Host: gw", "Origin: https://app.example:443"], app, true),
        (&["Host: gw", "Origin: HTTPS://App.Example"], app, true),
        (&["Host: gw", "Origin: http://app.example"], app, false),
        (&["Host: gw", "Origin: https://app.example:8443"], app, false),
        (
            &["Host: gw", "Origin: https://app.example.evil.example"],
            app,
            false,
        ),
        (
            &["Host: gw", "Origin: vscode-webview://abc"],
            &["vscode-webview://abc"],
            true,
        ),
        (&["Host: gw", "Origin: vscode-webview://abc"], none, false),
    ] {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        assert_eq!(
            origin_allowed(&headers(lines), &allowed),
            passes,
            "{lines:?} {allowed:?}"
        );
    }
}
