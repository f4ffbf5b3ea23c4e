//! A cycle's journal as clients follow it: every line once and in order, from the first or from where they were, to its end.

use reqwest::{Response, StatusCode};
use robo::{
    cycle::{CycleId, CycleStatus, TaskEvent},
    host::Progress,
    store::Store,
};
use serde_json::{Value, json};

use crate::support::{
    database::{TestDatabase, Version},
    own_server::OwnServer,
    served::Served,
    story::{ADDRESS, Story, told},
};

/// One who follows.
struct Client {
    answer: Response,
    /// What has come and is no whole event yet.
    rest: String,
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    kind: String,
    id: Option<i64>,
    data: Value,
}

impl Client {
    async fn ask(served: &Served, cycle: CycleId, last: Option<i64>) -> Response {
        let mut request = served.client.get(format!("{}/v1/cycles/{cycle}/events", served.url));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        request.send().await.unwrap()
    }

    async fn follow(served: &Served, cycle: CycleId, last: Option<i64>) -> Self {
        let answer = Self::ask(served, cycle, last).await;
        assert_eq!(
            (answer.status(), &answer.headers()["content-type"]),
            (StatusCode::OK, &"text/event-stream".parse().unwrap())
        );
        Self { answer, rest: String::new() }
    }

    /// The next event; none when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let event = field("data: ").map(|data| Event {
                    kind: field("event: ").unwrap_or_default(),
                    id: field("id: ").map(|id| id.parse().unwrap()),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.rest = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    // A comment.
                    None => continue,
                }
            }
            let chunk = self.answer.chunk().await.unwrap()?;
            self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn words(events: &[Event]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| (text(&event.data["stage"]), text(&event.data["event"]))).collect()
}

#[tokio::test]
async fn a_journal_is_followed_as_it_is_written_and_taken_up_again_without_a_gap() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let story = Story::begin(&store, "test").await;
    let mut first = Client::follow(&served, story.cycle, None).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(first.next().await.unwrap());
    }
    let begun = [("discover", "started"), ("discover", "retried"), ("discover", "started"), ("discover", "succeeded")];
    assert_eq!(words(&seen), begun.map(|(stage, event)| (stage.to_owned(), event.to_owned())));
    assert_eq!(seen[1].data["failure_class"], "infra");
    // Another comes in the middle, and sees what is still to come.
    let late = Client::follow(&served, story.cycle, seen[1].id).await;
    story.play().await;
    story.publish().await;
    let (mut all, late) = tokio::join!(first.rest(), late.rest());
    seen.append(&mut all);
    let end = seen.pop().unwrap();
    assert_eq!((end.kind.as_str(), end.id, end.data), ("end", None, json!({ "status": "completed" })));
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted_by(|one, other| one.id < other.id), "{seen:?}");
    assert_eq!(
        seen.iter().map(|event| event.data["id"].as_i64()).collect::<Vec<_>>(),
        seen.iter().map(|event| event.id).collect::<Vec<_>>()
    );
    assert_eq!(late[..late.len() - 1], seen[2..]);
    assert!(!format!("{seen:?}").contains(ADDRESS), "{seen:?}");
    // Whoever comes after the end reads the same; whoever has it all is sent away for good.
    let again = Client::follow(&served, story.cycle, Some(0)).await.rest().await;
    assert_eq!(again[..again.len() - 1], seen);
    let last = seen.last().unwrap().id;
    assert_eq!(Client::ask(&served, story.cycle, last).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_long_journal_is_read_from_its_beginning_however_late_somebody_comes() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let story = Story::begin(&store, "test").await;
    // More than is read at a time, and more than is kept in memory.
    let mut connection = database.connection().await;
    sqlx::query(
        "insert into task_event (cycle_id, stage, cell, attempt, kind, epoch, payload)
         select $1, 'discover', '', attempt, 'lost', 1, '{\"kind\": \"lost\"}' from generate_series(100, 2099) attempt",
    )
    .bind(story.cycle.as_uuid())
    .execute(&mut connection)
    .await
    .unwrap();
    let mut client = Client::follow(&served, story.cycle, None).await;
    let mut seen = Vec::new();
    while seen.len() < 2004 {
        seen.push(client.next().await.unwrap().id);
    }
    story.end(CycleStatus::Cancelled).await;
    assert_eq!(client.rest().await.last().unwrap().data, json!({ "status": "cancelled" }));
    assert!(seen.is_sorted_by(|one, other| one < other));
}

#[tokio::test]
async fn what_cannot_be_followed_is_told_so_and_so_is_who_is_one_too_many() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    assert_eq!(Client::ask(&served, CycleId::generate(), None).await.status(), StatusCode::NOT_FOUND);
    let ended = told(&store, "test").await;
    let url = format!("{}/v1/cycles/{ended}/events", served.url);
    for wrong in ["", "-1", "x", "1.5", "99999999999999999999"] {
        let answer = served.client.get(&url).header("Last-Event-ID", wrong).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    let story = Story::begin(&store, "test").await;
    let mut clients = Vec::new();
    for _ in 0..256 {
        clients.push(Client::follow(&served, story.cycle, None).await);
    }
    let refused = Client::ask(&served, story.cycle, None).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "urn:robo:problem:too-many-followers");
    // They all get everything, and leave their places.
    story.episodes("m/a", TaskEvent::Started).await;
    story.end(CycleStatus::Completed).await;
    for client in clients {
        let events = client.rest().await;
        assert_eq!((events.len(), events[5].kind.as_str()), (6, "end"));
    }
    let again = Client::follow(&served, ended, None).await.rest().await;
    assert_eq!(again.last().unwrap().kind, "end");
}

#[tokio::test]
async fn who_follows_stays_while_the_database_is_away() {
    let server = OwnServer::start().await;
    let store = Store::open(&server.config(), &Progress::silent()).await.unwrap();
    let served = Served::of(&store).await;
    let story = Story::begin(&store, "test").await;
    let mut client = Client::follow(&served, story.cycle, None).await;
    for _ in 0..4 {
        client.next().await.unwrap();
    }
    server.freeze();
    assert_eq!(Client::ask(&served, story.cycle, None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    server.thaw();
    story.episodes("m/a", TaskEvent::Started).await;
    assert_eq!(client.next().await.unwrap().data["stage"], "episodes");
    story.end(CycleStatus::Failed).await;
    assert_eq!(client.rest().await.last().unwrap().data, json!({ "status": "failed" }));
}
