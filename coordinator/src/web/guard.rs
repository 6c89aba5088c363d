//! Checks the origin of requests and sets security headers. The page has no passwords, so other web sites must not be able to reach it.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::site::Site;

/// Allows only resources of this server, and images that the page creates itself.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'";

/// Time limit for a request that writes a note or tags.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    if let Err(words) = admitted(&request, site.local) {
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    let mut response = if request.method() == Method::PUT {
        match timeout(WRITTEN_WITHIN, next.run(request)).await {
            Ok(response) => response,
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request was not complete within 30 s\n").into_response(),
        }
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn admitted(request: &Request, local: bool) -> Result<(), &'static str> {
    let host = single(request, HOST).map_err(|()| "expected one `Host` header, of plain text\n")?.unwrap_or_default();
    let origin = single(request, ORIGIN).map_err(|()| "expected one `Origin` header at most, of plain text\n")?;
    // A request's first line can name a host, too.
    let authority = request.uri().authority().map(Authority::as_str);
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
        return Err("the request's first line and its `Host` header name different hosts\n");
    }
    check(host, origin, local)
}

/// The value of a header that may occur at most once.
///
/// # Errors
/// The header occurs more than once or is not plain text, so that two programs could read different values.
fn single(request: &Request, name: HeaderName) -> Result<Option<&str>, ()> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Rejects requests of other web sites by their origin, and requests to a foreign host name that resolves to this machine (DNS rebinding).
fn check(host: &str, origin: Option<&str>, local: bool) -> Result<(), &'static str> {
    if local && !is_local(host) {
        return Err("this coordinator only accepts requests to its own address or to `localhost`\n");
    }
    let same = |origin: &str| origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host));
    match origin {
        Some(origin) if !same(origin) => Err("this coordinator only accepts requests from its own page\n"),
        _ => Ok(()),
    }
}

/// Whether `authority` is `localhost` or a loopback address, with or without a port, and nothing else.
fn is_local(authority: &str) -> bool {
    let (name, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((name, rest)) if name.parse::<Ipv6Addr>().is_ok() => (name, rest),
            _ => return false,
        },
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    let port_fits = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    let is_here = |name: &str| {
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    port_fits && is_here(name)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn strangers_pages_and_names_are_refused() {
        for host in ["127.0.0.1:7080", "localhost:7080", "[::1]:7080", "[::1]", "LOCALHOST", "127.0.0.1"] {
            assert!(check(host, None, true).is_ok(), "{host}");
        }
        for host in [
            "evil.example:7080",
            "",
            "10.0.0.1:7080",
            "localhost.evil.example",
            "localhost:evil.example",
            "localhost:7080.evil.example",
            "localhost:70800",
            "localhost:+80",
            "localhost:",
            "x@localhost",
            "localhost:80:80",
            "[::1].evil.example",
            "[::1]evil.example",
            "[localhost]",
            "[::1",
            "::1",
            "[127.0.0.1]",
            " localhost",
        ] {
            assert!(check(host, None, true).is_err(), "{host}");
        }
        assert!(check("node7:7080", None, false).is_ok());
        assert!(check("localhost:7080", Some("http://localhost:7080"), true).is_ok());
        assert!(check("localhost:7080", Some("http://evil.example"), true).is_err());
        assert!(check("node7:7080", Some("null"), false).is_err());
    }

    #[test]
    fn headers_that_two_readers_take_for_two_things_are_refused() {
        let words = |uri: &str, headers: &[(HeaderName, &[u8])]| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            [admitted(&request, true), admitted(&request, false)].map(|admitted| admitted.err().unwrap_or_default())
        };
        let here = (HOST, &b"localhost:7080"[..]);
        let page = (ORIGIN, &b"http://localhost:7080"[..]);
        assert_eq!(words("/api/runs", &[here.clone(), page.clone()]), [""; 2]);
        assert_eq!(words("http://localhost:7080/api/runs", std::slice::from_ref(&here)), [""; 2]);
        let hosts = ["expected one `Host` header, of plain text\n"; 2];
        assert_eq!(words("/", &[here.clone(), (HOST, b"evil.example")]), hosts);
        assert_eq!(words("/", &[here.clone(), here.clone()]), hosts);
        assert_eq!(words("/", &[(HOST, b"\xe9vil")]), hosts);
        let origins = ["expected one `Origin` header at most, of plain text\n"; 2];
        assert_eq!(words("/", &[here.clone(), page.clone(), (ORIGIN, b"http://evil.example")]), origins);
        assert_eq!(words("/", &[here.clone(), (ORIGIN, b"http://\xe9vil")]), origins);
        let two = ["the request's first line and its `Host` header name different hosts\n"; 2];
        assert_eq!(words("http://evil.example/api/runs", &[here]), two);
    }
}
