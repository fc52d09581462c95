//! What browsers ask before a page of another origin may read an answer.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::edge::http::refuse;
use crate::gateway::Gateway;
use crate::message::{Code, Fault};
use crate::wire::handshake;

/// The refusal for pages that may not connect.
///
/// # Errors
/// 403 without any permission to read it.
#[expect(clippy::result_large_err, reason = "an answer that is sent at once")]
pub fn check(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Response<Bytes>> {
    if handshake::origin_allowed(headers, &gateway.config.gateway.origins) {
        return Ok(());
    }
    gateway.metrics.rejected.origin.inc();
    let fault = Fault::new(
        Code::Unauthorized,
        "pages of this origin may not connect; add it to gateway.origins (GW_GATEWAY_ORIGINS)",
    );
    Err(refuse(StatusCode::FORBIDDEN, &fault))
}

/// Lets the page that asked read the answer. Only for origins that passed [`check`].
#[must_use]
pub fn allow(headers: &HeaderMap, mut response: Response<Bytes>) -> Response<Bytes> {
    let fields = response.headers_mut();
    fields.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = headers.get(ORIGIN) {
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

/// The answer to a preflight.
#[must_use]
pub fn preflight(headers: &HeaderMap) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    fields.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        wanted.unwrap_or(HeaderValue::from_static("content-type")),
    );
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    allow(headers, response)
}
