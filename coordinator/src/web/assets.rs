//! The page's files, which are compiled into the program.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        /// Name and contents of each file.
        const ASSETS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../web/", $name)))),*];
    };
}

assets!(
    "alarms.js",
    "api.js",
    "app.js",
    "bins.js",
    "chart.js",
    "checkpoints.js",
    "cluster.js",
    "columns.js",
    "compare.js",
    "difference.js",
    "dom.js",
    "evidence.js",
    "filter.js",
    "format.js",
    "grid.js",
    "heatmap.js",
    "histogram.js",
    "icon.svg",
    "importance.js",
    "index.html",
    "live.js",
    "logs.js",
    "media.js",
    "model.js",
    "overview.js",
    "pages.js",
    "panel.js",
    "parallel.js",
    "phases.js",
    "plot.js",
    "provenance.js",
    "route.js",
    "run.js",
    "runs.js",
    "scale.js",
    "series.js",
    "stream.js",
    "style.css",
    "system.js",
    "theme.js",
    "view.js",
);

/// `index.html`.
pub(super) async fn index() -> Response {
    file("index.html")
}

/// The file with this name; 404 if there is none.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    file(&name)
}

fn file(name: &str) -> Response {
    let Some((_, text)) = ASSETS.iter().find(|(own, _)| *own == name) else {
        return (StatusCode::NOT_FOUND, "the page has no such file\n").into_response();
    };
    ([(CONTENT_TYPE, kind(name))], *text).into_response()
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_in_the_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/web");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let mut there: Vec<_> = files.map(|file| file.file_name().into_string().unwrap()).collect();
        let mut named: Vec<_> = ASSETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        there.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, there);
        assert!(there.iter().all(|name| kind(name) != "text/plain; charset=utf-8"));
    }
}
