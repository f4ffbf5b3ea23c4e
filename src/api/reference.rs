//! `GET /docs`: the OpenAPI document for people, as Swagger UI shows it. Everything it needs comes from this program, so it works
//! without the internet and runs no script of others.

use std::{
    io::{Cursor, Read},
    sync::Arc,
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::{Schema, SchemaGenerator, json_schema};
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

/// The files of the page, and their media types.
const FILES: [(&str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("start.js", "text/javascript; charset=utf-8"),
];

/// The files of the page, unpacked when the first one is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Files(Arc<[OnceCell<Bytes>; FILES.len()]>);

pub(super) async fn page() -> Response {
    let mut response = PAGE.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

pub(super) async fn file(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let none = Problem::new(StatusCode::NOT_FOUND, "the page has no such file");
    let place = FILES.iter().position(|(known, _)| *known == name).ok_or(none)?;
    let (name, kind) = FILES[place];
    let file = api.files.0[place].get_or_try_init(|| unpacked(name)).await?;
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")];
    Ok((headers, file.clone()).into_response())
}

/// The names that the page has files of.
pub(super) fn file_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": FILES.map(|(name, _)| name) })
}

async fn unpacked(name: &'static str) -> Result<Bytes, Problem> {
    if name == "start.js" {
        return Ok(Bytes::from_static(START.as_bytes()));
    }
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
        for (name, _) in FILES {
            assert!(PAGE.contains(&format!("\"/docs/{name}\"")), "{name}");
        }
        let script = read("swagger-ui-bundle.js").unwrap();
        assert!(script.len() > 100_000 && String::from_utf8_lossy(&script).contains("SwaggerUIBundle"));
        assert!(read("swagger-ui.css").unwrap().len() > 10_000);
        assert_eq!(read("nothing.js"), None);
    }
}
