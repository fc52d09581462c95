//! The viewer's page and what it needs, from the upstream wheels mounted at run time; without them, what to do.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST,
    IF_NONE_MATCH, LOCATION, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use tracing::warn;

use crate::edge::door::parameter;
use crate::edge::http::plain;
use crate::edge::ports::Purpose;
use crate::edge::upgrade::Request;
use crate::gateway::Gateway;
use crate::message::Space;

mod assets;
mod template;

use assets::{Asset, Assets, Generation};
use template::Dial;

/// How proxies pass on the name that they were asked for.
const FORWARDED_HOST: &str = "x-forwarded-host";
/// Where the earlier generation's page lives, so that both can be open at once.
const THIRD: &str = "/viewer/3/";

/// What was read, and from where. Nothing is kept while nothing is there, so that it may be put there at any time.
static READ: Mutex<Option<(PathBuf, Arc<Assets>)>> = Mutex::new(None);

/// Answers what belongs to the viewer; `None` for everything else.
pub async fn answer(gateway: &Arc<Gateway>, request: &Request) -> Option<Response<Bytes>> {
    let own = matches!(request.peer.purpose, Purpose::Legacy(dialect) if dialect.name() == "cad");
    if !own && !matches!(request.peer.purpose, Purpose::Gateway) {
        return None;
    }
    let path = request.path.as_str();
    if path == "/favicon.ico" {
        // the earlier page names no icon and browsers ask for one: a refusal would be an error on its console
        let mut response = plain(StatusCode::NO_CONTENT, "");
        insert(&mut response, CACHE_CONTROL, "max-age=86400");
        return Some(response);
    }
    let ours = path == "/viewer" || path.starts_with("/viewer/") || path.starts_with("/static/");
    if own && path == "/" {
        return Some(moved(&with_query("/viewer", &request.query)));
    }
    if !ours {
        return own.then(|| {
            plain(
                StatusCode::NOT_FOUND,
                "There is nothing here; the viewer is at /viewer.\n",
            )
        });
    }
    let assets = read(gateway).await;
    if assets.is_empty() {
        return Some(absent(gateway));
    }
    let newest = assets.fourth.as_ref().or(assets.third.as_ref());
    let found = if let Some(name) = path.strip_prefix("/static/") {
        newest.and_then(|page| page.files.get(name))
    } else if let Some(name) = path.strip_prefix("/viewer/3/static/") {
        assets.third.as_ref().and_then(|page| page.files.get(name))
    } else {
        return Some(page(gateway, request, &assets, own));
    };
    Some(match found {
        Some(asset) => serve(asset, &request.headers),
        None => plain(StatusCode::NOT_FOUND, "There is no such file.\n"),
    })
}

async fn read(gateway: &Gateway) -> Arc<Assets> {
    let folder = gateway.config.cad.assets.clone();
    if let Some((from, assets)) = &*READ.lock()
        && *from == folder
    {
        return assets.clone();
    }
    let from = folder.clone();
    let assets = tokio::task::spawn_blocking(move || Assets::read(&folder)).await;
    let assets = Arc::new(assets.unwrap_or_default());
    if !assets.is_empty() {
        *READ.lock() = Some((from, assets.clone()));
    }
    assets
}

/// The page, of the generation asked for.
fn page(gateway: &Gateway, request: &Request, assets: &Assets, own: bool) -> Response<Bytes> {
    let third = request.path == THIRD;
    if !third && (request.path == "/viewer/3" || parameter(&request.query, "gen").as_deref() == Some("3")) {
        return moved(&with_query(THIRD, &without(&request.query, "gen")));
    }
    if !third && request.path != "/viewer" {
        return plain(StatusCode::NOT_FOUND, "The viewer is at /viewer.\n");
    }
    // a proxy may say under which name it was asked; who forges that only leads his own page astray
    let told = request
        .headers
        .get(FORWARDED_HOST)
        .or_else(|| request.headers.get(HOST));
    let host = told.and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.split(',').next().unwrap_or_default().trim());
    let Some(host) = host.filter(|host| is_host(host)) else {
        return plain(
            StatusCode::BAD_REQUEST,
            "The request has no Host that a page could dial.\n",
        );
    };
    let space = match parameter(&request.query, "space").map(|name| Space::parse(&name)) {
        None => None,
        Some(Ok(space)) => Some(space),
        Some(Err(fault)) => return plain(StatusCode::BAD_REQUEST, &format!("{}\n", fault.text)),
    };
    let mut way = String::from(if own { "" } else { "/cad" });
    if let Some(space) = space {
        way.push_str("/s/");
        way.push_str(space.as_str());
    }
    let settings = gateway.viewer_settings();
    let earlier = |page: &Generation| {
        // this page always writes a colon
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, ""),
        };
        let (host, port, way) = (name.to_owned(), port.to_owned(), way.clone());
        template::third(page, &settings, &Dial { host, port, way })
    };
    let later = |page: &Generation| {
        let (host, port, way) = (format!("{host}{way}"), String::new(), String::new());
        template::fourth(page, &settings, &Dial { host, port, way })
    };
    let filled = match (&assets.third, &assets.fourth) {
        (Some(page), _) if third => earlier(page),
        (_, Some(page)) if !third => later(page),
        (Some(page), _) => earlier(page),
        _ => return absent(gateway),
    };
    match filled {
        Ok(text) => {
            let mut response = Response::new(Bytes::from(text));
            let fields = response.headers_mut();
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            fields.insert(CONTENT_TYPE, html);
            // it says where to dial, which differs by who asks
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            fields.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
            response
        }
        Err(error) => {
            warn!(%error, "the viewer's page cannot be filled in");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The viewer's page cannot be filled in; the log says why.\n",
            )
        }
    }
}

/// What may be put into a page: a name or address, and perhaps a port.
fn is_host(host: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !host.is_empty() && host.len() <= 255 && host.bytes().all(known)
}

/// A file, whole or in part, as far as the browser does not have it already.
fn serve(asset: &Asset, asked: &HeaderMap) -> Response<Bytes> {
    let text = |name: HeaderName| {
        asked
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let known = text(IF_NONE_MATCH);
    let fresh = known.split(',').any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/") == asset.etag
    });
    let mut response = Response::new(Bytes::new());
    let range = range(text(RANGE), asset.plain.len());
    let packed = asset
        .gzip
        .as_ref()
        .filter(|_| accepts_gzip(text(ACCEPT_ENCODING)) && range.is_none());
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else if let Some(range) = range {
        let (status, body, told) = match range {
            Some((from, to)) => (
                StatusCode::PARTIAL_CONTENT,
                asset.plain.slice(from..=to),
                format!("bytes {from}-{to}/{}", asset.plain.len()),
            ),
            None => (
                StatusCode::RANGE_NOT_SATISFIABLE,
                Bytes::new(),
                format!("bytes */{}", asset.plain.len()),
            ),
        };
        *response.status_mut() = status;
        *response.body_mut() = body;
        insert(&mut response, CONTENT_RANGE, &told);
    } else {
        *response.body_mut() = packed.unwrap_or(&asset.plain).clone();
    }
    if packed.is_some() && !fresh {
        insert(&mut response, CONTENT_ENCODING, "gzip");
    }
    insert(&mut response, CONTENT_TYPE, asset.kind);
    insert(&mut response, ETAG, &format!("W/{}", asset.etag));
    insert(&mut response, VARY, "accept-encoding");
    insert(&mut response, ACCEPT_RANGES, "bytes");
    // asked again at each load, and answered by its tag: a new wheel shows at once
    insert(&mut response, CACHE_CONTROL, "no-cache");
    insert(
        &mut response,
        HeaderName::from_static("x-content-type-options"),
        "nosniff",
    );
    response
}

fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .is_some_and(|q| q.trim().parse() == Ok(0.0));
        matches!(name.trim(), "gzip" | "*") && !refused
    })
}

/// One range of bytes: `None` when none is asked (or several, which may be answered whole), `Some(None)` when there is
/// nothing at that place.
fn range(header: &str, len: usize) -> Option<Option<(usize, usize)>> {
    let (from, to) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to.min(len.saturating_sub(1))),
        (Ok(from), Err(_)) if to.is_empty() => (from, len.saturating_sub(1)),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => {
            (len.saturating_sub(last), len.saturating_sub(1))
        }
        _ => return None,
    };
    Some((from < len).then_some((from, to)))
}

fn insert(response: &mut Response<Bytes>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn moved(to: &str) -> Response<Bytes> {
    let mut response = plain(StatusCode::FOUND, "");
    insert(&mut response, LOCATION, to);
    response
}

fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

fn without(query: &str, name: &str) -> String {
    let other = |pair: &&str| pair.split('=').next() != Some(name);
    let kept: Vec<&str> = query.split('&').filter(other).collect();
    kept.join("&")
}

/// The page is not part of this project: how to get it.
fn absent(gateway: &Gateway) -> Response<Bytes> {
    let text = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>CAD viewer</title>\
         <body style=\"font-family:sans-serif;max-width:40em;margin:3em auto\">\
         <h1>The viewer's page is not here yet</h1>\
         <p>Scripts already work: what they show is kept and drawn as soon as a page opens.</p>\
         <p>The page comes from the packages of OCP CAD Viewer. <code>make viewer-assets</code> fetches them with pip; \
         then load this page again. Or unpack the wheels <code>ocp_viewer</code> and <code>ocp_vscode</code> into</p>\
         <pre>{}</pre><p>or set <code>cad.assets</code> to a directory that has them.</p>",
        escaped(&gateway.config.cad.assets.display().to_string())
    );
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    insert(&mut response, CONTENT_TYPE, "text/html; charset=utf-8");
    insert(&mut response, CACHE_CONTROL, "no-store");
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::{accepts_gzip, is_host, range, without};

    #[test]
    fn ranges_are_one_or_none() {
        assert_eq!(range("bytes=0-3", 10), Some(Some((0, 3))));
        assert_eq!(range("bytes=8-99", 10), Some(Some((8, 9))));
        assert_eq!(range("bytes=4-", 10), Some(Some((4, 9))));
        assert_eq!(range("bytes=-3", 10), Some(Some((7, 9))));
        assert_eq!(range("bytes=10-", 10), Some(None));
        for none in ["", "bytes=", "bytes=3-1", "bytes=0-1,3-4", "lines=1-2"] {
            assert_eq!(range(none, 10), None, "{none}");
        }
    }

    #[test]
    fn only_names_get_into_a_page() {
        assert!(is_host("localhost:3939") && is_host("[::1]:80") && is_host("viewer.example"));
        assert!(!is_host("a\"b") && !is_host("</script>") && !is_host("") && !is_host("a/b"));
        assert_eq!(without("gen=3&space=a", "gen"), "space=a");
        assert!(accepts_gzip("br, gzip;q=0.5") && !accepts_gzip("gzip;q=0") && !accepts_gzip("identity"));
    }
}
