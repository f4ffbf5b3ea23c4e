//! `webhook/send` against a real server: what arrives, what is tried again, what is not.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use crate::custom_stages::root;
use crate::language::files_with;
use crate::support::program::{Place, Ran, pipeline, repository};

/// A letter as it arrived.
#[derive(Debug, Clone)]
struct Letter {
    headers: HeaderMap,
    body: Bytes,
}

impl Letter {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A server that answers with one status after the other, the last one for ever, and asks for no wait between.
async fn server(statuses: &'static [u16]) -> (String, Arc<Mutex<Vec<Letter>>>) {
    let letters: Arc<Mutex<Vec<Letter>>> = Arc::default();
    let kept = Arc::clone(&letters);
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        let mut letters = kept.lock().unwrap();
        let status = statuses[letters.len().min(statuses.len() - 1)];
        letters.push(Letter { headers, body });
        let status = StatusCode::from_u16(status).unwrap();
        let place = [(header::RETRY_AFTER, "0"), (header::LOCATION, "/elsewhere")];
        (status, place).into_response() as Response
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook/s3cret-path", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, letters)
}

/// Run a pipeline of one webhook; what it said, and what is written down of its task.
async fn send(url: &str, with: &str) -> (Ran, Value) {
    let stages = format!(
        "  tell:\n    uses: webhook/send\n    retry: {{ max_attempts: 1 }}\n    with: {{ url: {url:?}, {with} }}\n"
    );
    let run = move || {
        let (place, folder) = (Place::new(), root(&stages));
        let ran = place.run(&["run-pipeline", &pipeline(&folder)]);
        let shown = place.json(&["cycle", "show", "--format", "json"]);
        (ran, shown["tasks"][0].clone())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_signed_and_sent_again_as_the_same_letter() {
    let (url, letters) = server(&[503, 429, 202]).await;
    let (ran, task) = send(&url, "text: 'cycle done', secret: k3y").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(task["output"], json!({"status": 202, "attempts": 3}));
    let letters = letters.lock().unwrap();
    assert_eq!(letters.len(), 3);
    for letter in letters.iter() {
        let body: Value = serde_json::from_slice(&letter.body).unwrap();
        assert_eq!(body, json!({"text": "cycle done", "content": "cycle done"}));
        assert_eq!(letter.header("content-type"), "application/json");
        assert_eq!(letter.header("idempotency-key"), letters[0].header("idempotency-key"));
        let mut mac = Hmac::<Sha256>::new_from_slice(b"k3y").unwrap();
        mac.update(letter.header("x-robo-timestamp").as_bytes());
        mac.update(b".");
        mac.update(&letter.body);
        let expected = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(letter.header("x-robo-signature"), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_announces() {
    let (url, letters) = server(&[200]).await;
    let text = fs::read_to_string(repository().join("examples/pipelines/announce.yaml")).unwrap();
    let run = move || {
        let (place, folder) = (Place::new(), root(""));
        fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
        let secrets =
            [("ROBO_SECRET_WEBHOOK", &*url), ("ROBO_SECRET_WEBHOOK_KEY", "k3y-of-ours"), ("RUST_LOG", "trace")];
        let mut command = place.robo(&["run-pipeline", &pipeline(&folder)]);
        let ran = Ran::from(command.envs(secrets).output().unwrap());
        let shown = place.run(&["cycle", "show", "--format", "json"]).stdout;
        for secret in ["s3cret-path", "k3y-of-ours"] {
            assert!(!format!("{shown}{}{}", ran.stdout, ran.stderr).contains(secret), "{}", ran.stderr);
            assert_eq!(files_with(place.data.path(), secret), Vec::<PathBuf>::new());
        }
        ran
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let letters = letters.lock().unwrap();
    let bodies: Vec<Value> = letters.iter().map(|letter| serde_json::from_slice(&letter.body).unwrap()).collect();
    assert_eq!(bodies[0]["miners"], 2);
    assert!(letters[0].headers.contains_key("x-robo-signature"));
    let text = format!("robo: cycle {} has ended", bodies[0]["cycle"].as_str().unwrap());
    assert_eq!(bodies[1], json!({"text": text, "content": text}));
    assert_ne!(letters[0].header("idempotency-key"), letters[1].header("idempotency-key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_and_a_redirect_is_one() {
    for (status, words) in [(&[400], "400 Bad Request"), (&[307], "redirects are not followed")] {
        let (url, letters) = server(status).await;
        let (ran, task) = send(&url, "payload: { a: [1] }").await;
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert_eq!(task["why"]["class"], "config");
        assert!(task["why"]["message"].as_str().unwrap().contains(words), "{task}");
        assert!(!format!("{task}{}{}", ran.stderr, ran.stdout).contains("s3cret"), "the address may be a secret");
        let letters = letters.lock().unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].body, r#"{"a":[1]}"#);
        assert!(!letters[0].headers.contains_key("x-robo-signature"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_last_attempt_the_fault_is_not_the_operators() {
    let (url, letters) = server(&[500]).await;
    let (_, task) = send(&url, "text: x, attempts: 3").await;
    assert_eq!(task["why"]["class"], "infra");
    assert!(task["why"]["message"].as_str().unwrap().contains("500 Internal Server Error (attempt 3 of 3)"));
    assert_eq!(letters.lock().unwrap().len(), 3);

    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (ran, task) = send(&format!("http://{address}/s3cret-path"), "text: x, attempts: 2").await;
    assert_eq!(task["why"]["class"], "infra");
    assert!(task["why"]["message"].as_str().unwrap().contains("cannot be reached"), "{task}");
    assert!(!format!("{task}{}", ran.stderr).contains("s3cret"));
}
