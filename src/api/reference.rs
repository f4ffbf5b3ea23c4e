//! `GET /docs`: the OpenAPI document for people, as Swagger UI shows it. Everything it needs comes from this program, so it works
//! without the internet and runs no script of others.

use std::{
    io::{Cursor, Read},
    sync::Arc,
};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::OnceCell;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use super::{Api, problem::Problem};

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>robo: the API</title>
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="icon" href="data:,">
</head>
<body>
  <div id="reference"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"#;

const START: &str =
    "SwaggerUIBundle({ url: '/openapi.json', dom_id: '#reference', deepLinking: true, validatorUrl: null });\n";

/// What the page may load: its own files and nothing else. The styles that its script writes cannot be named one by one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The files of the page that are in the archive, unpacked when they are asked for first.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    style: Arc<OnceCell<Bytes>>,
    bundle: Arc<OnceCell<Bytes>>,
}

pub(super) async fn page() -> Response {
    let mut response = PAGE.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

pub(super) async fn style(State(api): State<Api>) -> Result<Response, Problem> {
    let file = api.files.style.get_or_try_init(|| unpacked("swagger-ui.css")).await?;
    Ok(file_of("text/css; charset=utf-8", file.clone()))
}

pub(super) async fn bundle(State(api): State<Api>) -> Result<Response, Problem> {
    let file = api.files.bundle.get_or_try_init(|| unpacked("swagger-ui-bundle.js")).await?;
    Ok(file_of("text/javascript; charset=utf-8", file.clone()))
}

pub(super) async fn start() -> Response {
    file_of("text/javascript; charset=utf-8", Bytes::from_static(START.as_bytes()))
}

fn file_of(kind: &'static str, file: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, file).into_response()
}

async fn unpacked(name: &'static str) -> Result<Bytes, Problem> {
    let read = tokio::task::spawn_blocking(move || read(name)).await;
    read.ok().flatten().ok_or_else(|| {
        tracing::error!("Swagger UI has no file `{name}` that can be read");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read")
    })
}

/// A file out of the archive of a release, which has all that people see in the folder `dist`.
fn read(name: &str) -> Option<Bytes> {
    let mut archive = zip::ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).ok()?;
    let suffix = format!("/dist/{name}");
    let path = archive.file_names().flatten().find(|path| path.ends_with(&suffix))?.into_owned();
    let mut bytes = Vec::new();
    archive.by_name(&path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_what_the_page_asks_for() {
        let script = read("swagger-ui-bundle.js").unwrap();
        assert!(script.len() > 100_000 && String::from_utf8_lossy(&script).contains("SwaggerUIBundle"));
        assert!(read("swagger-ui.css").unwrap().len() > 10_000);
        assert_eq!(read("nothing.js"), None);
    }
}
