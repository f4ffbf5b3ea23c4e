//! Who may do what over the API: keys are made, shown, revoked and forgotten; what is done with them is written down.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use reqwest::{Client, RequestBuilder, StatusCode, header};
use robo::{
    api::{self, Settings, Token, standing::Validity},
    backend::Pipelines,
    store::{ApiKey, KeyAnswer, NewApiKey, Store},
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{
    database::{TestDatabase, Version},
    program::Place,
};

/// The API in this process.
struct Served {
    url: String,
    client: Client,
}

impl Served {
    async fn of(store: &Store) -> Self {
        crate::install_tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = Settings { validity: Validity::default(), pipelines: Arc::new(Pipelines::default()) };
        tokio::spawn(api::serve(listener, (store.clone(), settings), std::future::pending()));
        Self { url, client: Client::builder().no_proxy().build().unwrap() }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }
}

async fn key(store: &Store, name: &str, expires_in: Option<TimeDelta>) -> (Token, ApiKey) {
    let token = Token::random();
    let expires_at = expires_in.map(|age| Utc::now() + age);
    let new = NewApiKey { name: name.into(), start: token.start().into(), sha256: token.sha256(), expires_at };
    match store.create_api_key(&new).await.unwrap() {
        KeyAnswer::Created(key) => (token, key),
        KeyAnswer::NameTaken => panic!("there is a key `{name}`"),
    }
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_not_taken_for_nobody() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    assert_eq!(status(served.get("/v1/cycles")).await, StatusCode::OK, "reading is free");
    let (good, _) = key(&store, "good", None).await;
    let (ended, _) = key(&store, "ended", Some(TimeDelta::seconds(-1))).await;
    assert_eq!(status(served.get("/v1/cycles").bearer_auth(good.expose())).await, StatusCode::OK, "known at once");
    assert_eq!(status(served.get("/v1/cycles").header("x-api-key", good.expose())).await, StatusCode::OK);
    for wrong in [Token::random().expose(), ended.expose(), "robo_1", "", "\u{e9}"] {
        let answer = served.get("/v1/cycles").bearer_auth(wrong).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{wrong}");
        let challenge = answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Bearer ") && challenge.contains("invalid_token"), "{challenge}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert!(!problem.to_string().contains(good.expose()) && problem["status"] == 401, "{problem}");
    }
}

#[tokio::test]
async fn a_revoked_key_ends_within_seconds_and_its_use_was_noted() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let (token, made) = key(&store, "ci", None).await;
    assert_eq!(made.last_used_at, None);
    let ask = || status(served.get("/v1/cycles").bearer_auth(token.expose()));
    assert_eq!(ask().await, StatusCode::OK);
    // The backend notes it in its own time, within about a second.
    while store.api_keys().await.unwrap()[0].last_used_at.is_none() {
        assert_eq!(ask().await, StatusCode::OK);
    }
    let noted = store.api_keys().await.unwrap()[0].last_used_at;
    assert!(store.revoke_api_key(made.id).await.unwrap());
    assert!(!store.revoke_api_key(made.id).await.unwrap(), "once is enough");
    while ask().await != StatusCode::UNAUTHORIZED {}
    assert_eq!(store.api_keys().await.unwrap()[0].last_used_at, noted, "to the minute, and not at every request");
    // Its name is free again.
    let _ = key(&store, "ci", None).await;
}

#[test]
fn keys_are_made_listed_and_revoked_by_name() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let place = Place::with_database(database.url());
    let made = place.run(&["apikey", "create", "ci"]);
    let token = Token::parse(made.stdout.trim()).expect("standard output holds the key alone");
    assert!(made.code == 0 && made.stderr.contains("not shown again"), "{}", made.stderr);
    let again = place.run(&["apikey", "create", "ci"]);
    assert!(again.code == 2 && again.stderr.contains("hint: choose another name"), "{}", again.stderr);
    let document = place.json(&["apikey", "create", "for-a-day", "--expires", "1d", "--format", "json"]);
    assert!(
        Token::parse(document["key"].as_str().unwrap()).is_some() && document["expires_at"].is_string(),
        "{document}"
    );
    let listed = place.run(&["apikey", "ls"]);
    assert!(listed.stdout.contains(token.start()) && !listed.stdout.contains(token.expose()), "{}", listed.stdout);
    let unknown = place.run(&["apikey", "revoke", Token::random().expose()]);
    assert!(unknown.code == 2 && unknown.stderr.contains("hint: there are `ci`"), "{}", unknown.stderr);
    assert_eq!(place.run(&["apikey", "revoke", token.start()]).code, 0);
    assert_eq!(place.run(&["apikey", "revoke", "for-a-day"]).code, 0);
    assert_eq!(place.json(&["apikey", "ls", "--format", "json"])["keys"], serde_json::json!([]));
    let all = place.json(&["apikey", "ls", "--all", "--format", "json"]);
    assert!(
        all["keys"].as_array().unwrap().iter().all(|key| key["good"] == false && key.get("key").is_none()),
        "{all}"
    );
    for name in ["", "two words", "é", &"x".repeat(65)] {
        assert_eq!(place.run(&["apikey", "create", name]).code, 2, "{name}");
    }
}

#[tokio::test]
async fn the_database_has_no_key() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let (token, _) = key(&store, "ci", None).await;
    let row: String = sqlx::query_scalar("select to_jsonb(api_key)::text from api_key")
        .fetch_one(&mut database.connection().await)
        .await
        .unwrap();
    assert!(row.contains(&hex::encode(token.sha256())) && !row.contains(token.expose()), "{row}");
}
