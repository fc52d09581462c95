//! The WebSocket opening handshake (RFC 6455, section 4.2) and the question whose pages may open one.

use std::net::IpAddr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use sha1::{Digest, Sha1};

/// Keys of careless clients leave bits of the last character set; they are 16 bytes all the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What RFC 6455 appends to a key before hashing it.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept` for a key; `None` when the key is not the base64 of 16 bytes.
#[must_use]
pub fn accept_key(key: &str) -> Option<String> {
    let mut nonce = [0; 18];
    if BASE64.decode_slice(key, &mut nonce).ok()? != 16 {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    Some(BASE64.encode(hash))
}

/// An upgrade that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    accept: String,
}

impl Key {
    /// The value of `Sec-WebSocket-Accept` in the answer.
    #[must_use]
    pub fn accept(&self) -> &str {
        &self.accept
    }
}

/// Why an upgrade is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not GET.
    Method,
    /// Not HTTP/1.1.
    Http,
    /// `Upgrade` does not name `websocket`.
    Upgrade,
    /// `Connection` does not name `upgrade`.
    Connection,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Key` is missing, repeated or no key.
    Key,
}

impl Refusal {
    /// The status to answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Http => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Upgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Connection | Self::Key => StatusCode::BAD_REQUEST,
        }
    }

    /// The header the answer must carry besides, where one says what would have been right.
    #[must_use]
    pub const fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Method => Some(("allow", "GET")),
            Self::Upgrade => Some(("upgrade", "websocket")),
            Self::Version => Some(("sec-websocket-version", "13")),
            Self::Http | Self::Connection | Self::Key => None,
        }
    }

    /// One sentence for whoever reads the answer.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Method => "a WebSocket opens with GET",
            Self::Http => "a WebSocket opens with HTTP/1.1",
            Self::Upgrade => "this address speaks WebSocket: send `Upgrade: websocket`",
            Self::Connection => "send `Connection: Upgrade` with `Upgrade: websocket`",
            Self::Version => "send `Sec-WebSocket-Version: 13`",
            Self::Key => "send one `Sec-WebSocket-Key`, the base64 of 16 bytes",
        }
    }
}

/// Whether a request asks for a WebSocket at all. Clients that offer another protocol with whatever they ask, HTTP/2
/// say, are content without it (RFC 9110, section 7.8).
#[must_use]
pub fn wanted(headers: &HeaderMap) -> bool {
    names(headers, &UPGRADE, "websocket")
}

/// Checks an upgrade request. Extensions and subprotocols are offers a server may ignore, however often
/// they are made.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn check(headers: &HeaderMap, method: &Method, version: Version) -> Result<Key, Refusal> {
    if method != Method::GET {
        return Err(Refusal::Method);
    }
    if version != Version::HTTP_11 {
        return Err(Refusal::Http);
    }
    if !wanted(headers) {
        return Err(Refusal::Upgrade);
    }
    if !names(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::Connection);
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::Version);
    }
    let accept = single(headers, &SEC_WEBSOCKET_KEY).and_then(accept_key);
    accept.map(|accept| Key { accept }).ok_or(Refusal::Key)
}

/// Whether one of a header's comma-separated tokens, over all its lines, is `token`.
fn names(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    let lines = headers
        .get_all(header)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// The value of a header that stands exactly once.
fn single<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(header).iter();
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    line.to_str().ok().map(str::trim)
}

/// Whether the page that asks may open a socket.
///
/// A browser names the page's origin and a page cannot forge it, so the rules are about browsers only:
///
/// - no `Origin`: no browser asks; passes. A repeated one is a smuggling attempt; refused;
/// - `*` in `allowed` passes every origin, `null` too;
/// - `null` (sandboxed frames, local files) could be anybody; refused;
/// - an origin in `allowed` passes, compared by scheme, host and port with default ports filled in;
///   schemes of their own (`vscode-webview://…`) are compared as text;
/// - a page from this machine (`localhost`, `127.0.0.1`, `[::1]`, any port) passes;
/// - a page that was served from where it connects to passes only under an IP address. "Origin equals
///   Host" proves nothing for a name: an attacker's name may be pointed at our address after its page was
///   loaded (DNS rebinding), and then both headers carry that name. An address cannot be pointed
///   elsewhere. A gateway that is reached by a name lists that origin.
///
/// The gateway serves plain HTTP, so "where it connects to" is `http`. Behind a proxy that ends TLS the
/// page's `https` origin has to be listed; forwarding headers can be forged and are not asked.
#[must_use]
pub fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    if !headers.contains_key(ORIGIN) {
        return true;
    }
    let Some(origin) = single(headers, &ORIGIN) else {
        return false;
    };
    if allowed.iter().any(|listed| listed == "*") {
        return true;
    }
    if origin.eq_ignore_ascii_case("null") {
        return false;
    }
    let parsed = Place::origin(origin);
    if allowed.iter().any(|listed| match &parsed {
        Some(place) => Place::origin(listed).as_ref() == Some(place),
        None => listed == origin,
    }) {
        return true;
    }
    let Some(place) = parsed else {
        return false;
    };
    if ["localhost", "127.0.0.1", "[::1]"].contains(&place.host.as_str()) {
        return true;
    }
    let here = single(headers, &HOST).and_then(|host| Place::new("http", host));
    place.is_address() && here.as_ref() == Some(&place)
}

/// Scheme, host and port: what makes an origin.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Place {
    /// Reads `http[s]://host[:port]`, nothing behind it.
    fn origin(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        Self::new(scheme, authority)
    }

    fn new(scheme: &str, authority: &str) -> Option<Self> {
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known))?;
        // The colons of an IPv6 address stand inside brackets.
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority[at..].contains(']') => {
                (&authority[..at], authority[at + 1..].parse().ok()?)
            }
            _ => (authority, if scheme == "http" { 80 } else { 443 }),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return None;
        }
        Some(Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    fn is_address(&self) -> bool {
        let bare = self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        bare.unwrap_or(&self.host).parse::<IpAddr>().is_ok()
    }
}
