//! Logging in to NATS by every way that `nats.*` has, for gateways and workers alike.

use async_nats::{ConnectOptions, ServerAddr};

use crate::config;

/// A setting that cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// Which.
    pub key: &'static str,
    /// What is wrong with it.
    pub cause: String,
}

/// Adds who we are and whom we trust.
///
/// # Errors
/// [`Unusable`] when a file cannot be read.
pub async fn with(mut options: ConnectOptions, nats: &config::Nats) -> Result<ConnectOptions, Unusable> {
    let named = [&nats.user, &nats.token, &nats.nkey]
        .into_iter()
        .any(Option::is_some);
    if !named && nats.credentials.is_none() {
        options = match inside(nats) {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
    }
    if let Some(user) = &nats.user {
        options = options.user_and_password(user.clone(), nats.password.clone().unwrap_or_default());
    }
    if let Some(token) = &nats.token {
        options = options.token(token.clone());
    }
    if let Some(seed) = &nats.nkey {
        options = options.nkey(seed.clone());
    }
    if let Some(file) = &nats.credentials {
        options = options.credentials_file(file).await.map_err(|error| Unusable {
            key: "nats.credentials",
            cause: format!("{}: {error}", file.display()),
        })?;
    }
    if let Some(file) = &nats.tls_ca {
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(cert), Some(key)) = (&nats.tls_cert, &nats.tls_key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options.require_tls(nats.tls))
}

/// A login inside a URL, as every NATS client takes it: user and password, or a token alone. The client library reads
/// them and makes no use of them.
fn inside(nats: &config::Nats) -> Option<(String, Option<String>)> {
    nats.url.iter().find_map(|url| {
        let server: ServerAddr = url.parse().ok()?;
        Some((decoded(server.username()?), server.password().map(decoded)))
    })
}

/// What a URL writes as `%40` is an `@`.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%');
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(hex.unwrap_or(byte));
        rest = match hex {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}
