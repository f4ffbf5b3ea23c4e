//! Pinned downloads, against a package index of our own on a real socket.

use std::{
    fs,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, extract::State, http::StatusCode, response::Html, routing::get};
use robo::host::{
    Progress,
    download::{WheelPin, wheel_from},
};
use sha2::{Digest, Sha256};

/// What the index has: 2.5 MB of the letter `w`.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'w'; 2_500_000]);
static SHA256: LazyLock<String> = LazyLock::new(|| hex::encode(Sha256::digest(&*CONTENT)));

fn pin(project: &'static str) -> WheelPin {
    WheelPin { project, file: "tool-1.0-py3-none-any.whl", sha256: SHA256.as_str() }
}

/// Serve an index and count how often its file is fetched.
async fn index() -> (String, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fetched = Arc::new(AtomicUsize::new(0));
    let page = Json(serde_json::json!({"files": [
        {"filename": "tool-0.9-py3-none-any.whl", "url": "/nowhere"},
        {"filename": "tool-1.0-py3-none-any.whl", "url": "../../files/tool-1.0-py3-none-any.whl"},
    ]}));
    let old_page = Html(r#"<a href="/files/tool-1.0-py3-none-any.whl#sha256=0">tool-1.0-py3-none-any.whl</a>"#);
    let app = Router::new()
        .route("/simple/tool/", get(async move || page))
        .route("/simple/old/", get(async move || old_page))
        .route("/simple/empty/", get(|| async { Json(serde_json::json!({"files": []})) }))
        .route("/simple/broken/", get(|| async { StatusCode::BAD_GATEWAY }))
        .route(
            "/files/tool-1.0-py3-none-any.whl",
            get(|State(fetched): State<Arc<AtomicUsize>>| async move {
                fetched.fetch_add(1, Ordering::SeqCst);
                CONTENT.clone()
            }),
        )
        .with_state(fetched.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/simple", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, fetched)
}

#[tokio::test]
async fn a_wheel_is_fetched_once_and_again_when_it_was_damaged() {
    let (index, fetched) = index().await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("made/on/the/way");
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    let progress = Progress::new(move |message| listener.lock().unwrap().push(message.to_owned()));

    let path = wheel_from(&index, &pin("tool"), &place, &progress).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), *CONTENT);
    assert!(told.lock().unwrap().contains(&"downloading tool-1.0-py3-none-any.whl (2 of 2.5 MB)".to_owned()));

    wheel_from(&index, &pin("tool"), &place, &progress).await.unwrap();
    assert_eq!(fetched.load(Ordering::SeqCst), 1);

    fs::write(&path, b"half of it").unwrap();
    wheel_from(&index, &pin("old"), &place, &progress).await.unwrap();
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
    assert_eq!(fs::read(&path).unwrap(), *CONTENT);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing half-done is left");
}

#[tokio::test]
async fn a_file_with_another_hash_is_never_kept() {
    let (index, _) = index().await;
    let directory = tempfile::tempdir().unwrap();
    let pin = WheelPin { sha256: "00", ..pin("tool") };
    let error = wheel_from(&index, &pin, directory.path(), &Progress::silent()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("SHA-256 is {} instead of 00", *SHA256)), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_a_remedy() {
    let (index, _) = index().await;
    let directory = tempfile::tempdir().unwrap();
    let fetch = async |index: &str, project| {
        wheel_from(index, &pin(project), directory.path(), &Progress::silent()).await.unwrap_err().to_string()
    };
    for (project, expected) in [
        ("unknown", "`127.0.0.1` does not have it; name an index that does with PIP_INDEX_URL"),
        ("empty", "`127.0.0.1` does not have it"),
        ("broken", "`127.0.0.1` answered 502 Bad Gateway; try again later"),
    ] {
        let error = fetch(&index, project).await;
        assert!(error.contains(expected), "{error}");
    }
    // A port that was bound and given back: nobody listens there.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = fetch(&format!("http://me:secret@{closed}/simple"), "tool").await;
    assert!(error.contains("`127.0.0.1` cannot be reached (Connection refused"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let error = fetch("not an address", "tool").await;
    assert!(error.contains("correct PIP_INDEX_URL"), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_is_named() {
    let (index, _) = index().await;
    let error = wheel_from(&index, &pin("tool"), "/proc/robo".as_ref(), &Progress::silent()).await.unwrap_err();
    assert!(error.to_string().contains("`/proc/robo` cannot be written to"), "{error}");
}

/// The public index over TLS, with the machine's own certificates.
#[tokio::test]
async fn a_small_wheel_comes_from_the_public_index() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let pin = WheelPin {
        project: "six",
        file: "six-1.17.0-py2.py3-none-any.whl",
        sha256: "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274",
    };
    let path = robo::host::download::wheel(&pin, directory.path(), &Progress::silent()).await.unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), 11_050);
}
