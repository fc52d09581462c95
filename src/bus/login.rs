//! Logging in to NATS by every way that `nats.*` has, for gateways and workers alike.

use async_nats::ConnectOptions;

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
