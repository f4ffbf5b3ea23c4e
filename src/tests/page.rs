//! The page for people and the reference of the API, as a real browser shows them.

use robo::{config::Guarding, cycle::CycleStatus, host::Progress, store::Store};
use tokio::process::Command;

use crate::support::{
    database::{TestDatabase, Version},
    own_server::OwnServer,
    served::{Served, unlimited},
    story::{MODEL, Story, told},
};

/// Nothing is shown, not even that something is about to be.
const EMPTY: &str = "<main></main>";

/// What a browser makes of an address: the document once its scripts have run.
async fn shown(served: &Served, address: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let is_there = |name: &&str| std::process::Command::new(name).arg("--version").output().is_ok();
    let browser = ["chromium", "google-chrome"].into_iter().find(is_there).expect("the package chromium is there");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("{}{address}", served.url))
        // Its own messages about buses and the like go to files of its own.
        .env("HOME", profile.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Errors of scripts, and whatever the page's policy has forbidden.
    assert!(!said.contains(":CONSOLE"), "{address}: {said}");
    let document = String::from_utf8(output.stdout).unwrap();
    assert!(document.contains("</html>"), "{address}: {said}");
    document
}

/// Each of these stands in the document.
fn holds(document: &str, words: &[&str]) {
    for word in words {
        assert!(document.contains(word), "`{word}` is not in {document}");
    }
}

#[tokio::test]
async fn people_see_who_is_paid_and_why() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    holds(&shown(&served, "/").await, &["No weights have been published yet.", "idle"]);
    holds(&shown(&served, "/#/miners").await, &["No miner is known yet."]);
    holds(&shown(&served, "/#/cycles").await, &["There has been no cycle yet."]);

    let cycle = told(&store, "main").await;
    served.until_it_says("/v1/weights/latest", |body| body["status"] == "fresh").await;
    let overview = shown(&served, "/").await;
    holds(
        &overview,
        &["fresh", "75.00 %", "25.00 %", "on it", "m/a", "m/b", "#/miners/ann", &format!("#/cycles/{cycle}")],
    );
    assert!(overview.find("#/miners/ann") < overview.find("#/miners/bob"), "the best first: {overview}");
    holds(&overview, &["<a href=\"#/\" aria-current=\"page\">"]);
    // An address that is nobody's is that of the overview.
    holds(&shown(&served, "/#/miners/%").await, &["fresh", "75.00 %", "<a href=\"#/\" aria-current=\"page\">"]);

    served.until_it_says("/v1/miners", |body| body["miners"][3].is_object()).await;
    holds(&shown(&served, "/#/miners").await, &["malformed", "unregistered", "100 %", "50 %"]);
    let bob = shown(&served, "/#/miners/bob").await;
    holds(&bob, &["dominated by ", "1 miner_fault(action_timeout)", "ms (median)", "2 failure", "active"]);
    holds(&bob, &[">95 % interval</th>", "<td class=\"number\">25 % to 75 %</td>"]);
    // What a miner says of itself is text.
    holds(&bob, &["&lt;img src=x"]);
    assert!(MODEL.contains("<img src=x") && !bob.contains("<img"), "{bob}");
    holds(&shown(&served, "/#/miners/nobody").await, &["no miner of this hotkey is known", EMPTY]);
}

#[tokio::test]
async fn people_see_how_cycles_went() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let cycle = told(&store, "main").await;
    let failed = Story::begin(&store, "other").await;
    failed.end(CycleStatus::Failed).await;
    let served = Served::of(&store).await;
    holds(&shown(&served, "/#/cycles").await, &["completed", "failed", "16/16", "main", "other"]);
    let detail = shown(&served, &format!("/#/cycles/{cycle}")).await;
    holds(&detail, &["discover", "episodes", "publish", "2 succeeded", "2/2", "scores.csv"]);
    holds(&shown(&served, "/#/cycles/nonsense").await, &["<p id=\"trouble\" role=\"alert\">"]);
    let running = Story::begin(&store, "third").await.cycle;
    database.keep_leases().await;
    holds(&shown(&served, "/").await, &[">running</span>", &format!("<a href=\"#/cycles/{running}\">")]);
    holds(&shown(&served, &format!("/#/cycles/{running}")).await, &[">running</span>", "<dt>running for</dt>"]);
}

#[tokio::test]
async fn people_see_that_weights_are_stale_while_the_database_is_away() {
    let server = OwnServer::start().await;
    let store = Store::open(&server.config(), &Progress::silent()).await.unwrap();
    told(&store, "main").await;
    let served = Served::of(&store).await;
    served.until_it_says("/v1/weights/latest", |body| body["status"] == "fresh").await;
    server.freeze();
    served.until_it_says("/v1/weights/latest", |body| body["status"] == "stale").await;
    let overview = shown(&served, "/").await;
    server.thaw();
    holds(&overview, &[">stale</span>", "not known now", "#/miners/ann", "75.00 %"]);
}

#[tokio::test]
async fn a_backend_whose_reads_need_a_key_asks_for_it() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    told(&store, "main").await;
    let served = Served::guarded(&store, Guarding { require_key: true, ..unlimited() }).await;
    let page = shown(&served, "/").await;
    // The form says it all.
    holds(&page, &["<form id=\"key\">", EMPTY, "<p id=\"trouble\" role=\"alert\" hidden"]);
}

#[tokio::test]
async fn the_reference_shows_every_operation() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::of(&database.store().await).await;
    let reference = shown(&served, "/docs").await;
    let document = served.get("/openapi.json").send().await.unwrap().json::<serde_json::Value>().await.unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    for path in paths.keys() {
        assert!(reference.contains(&format!("data-path=\"{path}\"")), "{path}: {reference}");
    }
}
