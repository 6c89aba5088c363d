//! Who may ask, and what browsers are told: the page has no passwords, so a stranger's page must not reach it.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::Site;

/// Everything from here; images also of our own making.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'";

/// Time for a note or tags to come and be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    if let Err(words) = admitted(&request, site.local) {
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    let mut response = if request.method() == Method::PUT {
        match timeout(WRITTEN_WITHIN, next.run(request)).await {
            Ok(response) => response,
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request did not come whole in time\n").into_response(),
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
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    check(header(HOST).unwrap_or_default(), header(ORIGIN), local)
}

/// A page from elsewhere is refused by its origin; a name that a stranger lets point here, by the host.
fn check(host: &str, origin: Option<&str>, local: bool) -> Result<(), &'static str> {
    if local && !is_local(host) {
        return Err("this coordinator answers to its address and to `localhost` only\n");
    }
    let same = |origin: &str| origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host));
    match origin {
        Some(origin) if !same(origin) => Err("this coordinator answers to its own page only\n"),
        _ => Ok(()),
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_pages_and_names_are_refused() {
        for host in ["127.0.0.1:7080", "localhost:7080", "[::1]:7080", "LOCALHOST"] {
            assert!(check(host, None, true).is_ok(), "{host}");
        }
        for host in ["evil.example:7080", "", "10.0.0.1:7080", "localhost.evil.example"] {
            assert!(check(host, None, true).is_err(), "{host}");
        }
        assert!(check("node7:7080", None, false).is_ok());
        assert!(check("localhost:7080", Some("http://localhost:7080"), true).is_ok());
        assert!(check("localhost:7080", Some("http://evil.example"), true).is_err());
        assert!(check("node7:7080", Some("null"), false).is_err());
    }
}
