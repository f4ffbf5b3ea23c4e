//! Endpoints that strangers control, row by row of the catalogue of faults: which test holds each row, and those that need
//! an environment server or a cycle around them.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener as BlockingListener,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::StreamExt;
use robo::{
    address::Rules,
    cycle::{EpisodeReport, MinerFault, MinerStatus, Outcome, Seen, Sighting, changes},
    rollout::{
        Client,
        protocol::{EpisodesRequest, Origin, ServerMessage},
    },
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    abuse::{request as read, whole},
    children::{Serving, TOKEN},
    envserver::{faulty, faulty_package, open, request},
    support::{
        ports,
        program::{Place, pipeline, turn, workspace},
    },
};

/// A row of the catalogue, what it is about, and the tests that hold it.
type Row = (&'static str, &'static str, &'static [&'static str]);

const ROWS: [Row; 21] = [
    (
        "E1",
        "forbidden addresses",
        &[
            "the_ends_of_every_range_and_their_neighbours",
            "an_address_in_disguise_is_never_public",
            "a_stranger_at_a_private_address_is_refused_and_nobody_is_called",
            "a_cycle_calls_no_private_endpoint_and_says_why",
        ],
    ),
    (
        "E2",
        "odd notations and ports",
        &[
            "an_address_in_disguise_is_told_how_to_write_it",
            "everything_else_is_no_endpoint",
            "ports_of_other_services_are_refused_and_the_list_is_the_operators",
        ],
    ),
    (
        "E3",
        "names that change their address",
        &[
            "a_name_is_looked_up_once_and_its_address_stays",
            "one_private_address_among_public_ones_refuses_them_all",
            "a_miner_that_moves_is_found_again",
            "a_name_that_is_slow_on_purpose_is_asked_for_once",
        ],
    ),
    ("E4", "redirects", &["redirects_are_not_followed"]),
    ("E5", "trickling bytes", &["bytes_that_trickle_do_not_stop_the_clock"]),
    (
        "E6",
        "endless answers",
        &["answers_without_end_are_cut_short", "abuse_leaves_nothing_in_memory_and_disturbs_nobody"],
    ),
    ("E7", "compression nobody asked for", &["encodings_nobody_asked_for_are_refused"]),
    ("E8", "JSON that hurts", &["wrong_json_is_a_malformed_response", "what_is_no_answer_is_malformed"]),
    (
        "E9",
        "numbers that are no action",
        &["a_wrong_action_is_an_invalid_action", "numbers_that_are_no_action_are_invalid"],
    ),
    ("E10", "floods of the protocol", &["answers_without_end_are_cut_short", "what_is_no_answer_is_malformed"]),
    (
        "E11",
        "connections that break",
        &[
            "silence_is_a_timeout",
            "a_connection_that_breaks_in_the_answer_is_a_connection_error",
            "a_miner_that_takes_a_request_and_closes_the_connection_gets_no_second_one",
        ],
    ),
    ("E12", "TLS", &["a_certificate_that_is_wrong_says_what_to_renew", "what_does_not_speak_tls_is_told_so"]),
    (
        "E13",
        "cold starts",
        &["a_miner_that_wakes_up_in_time_loses_nothing", "a_miner_that_stays_cold_is_not_ready_and_holds_nobody_up"],
    ),
    ("E14", "always just in time", &["a_miner_that_is_slow_without_end_is_cut_off_and_nobody_else_is"]),
    ("E15", "well at health, broken at act", &["a_miner_that_is_down_loses_its_own_episodes_only"]),
    ("E16", "answers to something else", &["what_a_miner_sends_unasked_is_no_answer"]),
    (
        "E17",
        "another machine, certificate or model",
        &["a_model_that_changes_is_flagged", "only_what_changed_is_told", "a_miner_that_moves_is_found_again"],
    ),
    (
        "E18",
        "one endpoint for several hotkeys",
        &[
            "the_oldest_keeps_an_endpoint_or_a_model_and_others_are_told_whose_it_is",
            "a_cycle_of_a_subnet_pays_hotkeys_at_its_block_and_tells_everybody_else_why",
        ],
    ),
    (
        "E19",
        "evaluation that can be told",
        &[
            "nothing_a_miner_is_sent_before_it_sees_the_scene_depends_on_the_seed",
            "a_task_config_has_four_keys_and_no_seed",
        ],
    ),
    (
        "E20",
        "seeds known before",
        &["seeds_are_pinned", "nothing_a_miner_is_sent_before_it_sees_the_scene_depends_on_the_seed"],
    ),
    (
        "E21",
        "texts that hurt",
        &[
            "other_statuses_are_http_errors_in_harmless_words",
            "escape_sequences_go_and_words_stay",
            "a_megabyte_is_cut",
        ],
    ),
];

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_row_of_the_catalogue_has_tests_that_exist() {
    let mut text = String::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    for (number, (row, what, tests)) in (1..).zip(ROWS) {
        assert_eq!(row, format!("E{number}"));
        assert!(!tests.is_empty(), "{row} ({what}) has no test");
        for test in tests {
            assert!(text.contains(&format!("fn {test}(")), "{row} ({what}): there is no test `{test}`");
        }
    }
}

/// A miner that answers each request with what `answer` makes of its path and of how often that was asked for.
pub(crate) async fn miner(answer: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (answer, counts) = (Arc::new(answer), Arc::new(Mutex::new(BTreeMap::<String, usize>::new())));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, counts) = (answer.clone(), counts.clone());
            tokio::spawn(async move {
                while let Some(head) = read(&mut stream).await {
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    let count = {
                        let mut counts = counts.lock().unwrap();
                        let count = counts.entry(path.clone()).or_default();
                        *count += 1;
                        *count
                    };
                    if stream.write_all(&answer(&path, count)).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

fn busy() -> Vec<u8> {
    b"HTTP/1.1 503 Cold\r\nContent-Length: 4\r\n\r\ncold".to_vec()
}

/// An answer that does.
fn good(path: &str) -> Vec<u8> {
    if path == "/act" { whole(r#"{"action": [0, 0, 0, 0]}"#) } else { whole("{}") }
}

/// What became of each miner's episodes, and how it was found, in the order it was told.
type Told = (BTreeMap<String, Vec<EpisodeReport>>, BTreeMap<String, Vec<Seen>>);

async fn play(server: &Serving, request: &EpisodesRequest) -> Told {
    crate::install_tls();
    let (mut reports, mut seen) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
    let client = Client::new(server.url(), TOKEN).unwrap();
    let mut messages = std::pin::pin!(client.episodes(request).await.unwrap());
    while let Some(message) = messages.next().await {
        match message.unwrap() {
            ServerMessage::Episode { order, report } => {
                reports.entry(request.episodes[order as usize].hotkey.to_string()).or_default().push(report);
            }
            ServerMessage::Miner { hotkey, seen: one, .. } => seen.entry(hotkey.to_string()).or_default().push(one),
            _ => {}
        }
    }
    assert_eq!(reports.values().map(Vec::len).sum::<usize>(), request.episodes.len());
    (reports, seen)
}

/// A server whose episodes have five steps.
async fn server(package: &Path) -> Serving {
    let server = Serving::env_server(package, &[]);
    open(&server, vec![faulty("never")], 1, 8).await;
    server
}

fn all_are(reports: &[EpisodeReport], outcome: Outcome) {
    assert!(reports.iter().all(|report| report.outcome == outcome), "{reports:?}");
}

#[tokio::test]
async fn a_stranger_at_a_private_address_is_refused_and_nobody_is_called() {
    let package = faulty_package();
    let server = server(package.path()).await;
    let called = Arc::new(AtomicUsize::new(0));
    let counter = called.clone();
    let private = miner(move |path, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        good(path)
    })
    .await;
    let port = private.rsplit(':').next().unwrap();
    let own = miner(|path, _| good(path)).await;
    let strangers =
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "127.1", "169.254.169.254"];
    let mut miners: Vec<(&str, String)> =
        strangers.iter().map(|host| (*host, format!("http://{host}:{port}"))).collect();
    let names: Vec<String> = (0..miners.len()).map(|number| format!("stranger-{number}")).collect();
    miners.iter_mut().zip(&names).for_each(|(miner, name)| miner.0 = name);
    miners.push(("own", own));
    let mut orders = EpisodesRequest { rules: Rules::default(), ..request("faulty/never", &miners, 0..2) };
    orders.episodes.iter_mut().filter(|order| order.hotkey.as_str() == "own").for_each(|order| {
        order.origin = Origin::Ourselves;
    });
    let (reports, seen) = play(&server, &orders).await;
    for name in &names {
        all_are(&reports[name], Outcome::MinerFault(MinerFault::EndpointAddressForbidden));
        assert_eq!(seen[name][0].status, MinerStatus::Refused);
        assert!(seen[name][0].detail.is_some() && reports[name][0].detail.is_some());
    }
    assert!(reports["stranger-0"][0].detail.as_ref().unwrap().contains("allow_private_endpoints"));
    all_are(&reports["own"], Outcome::Success);
    assert_eq!(called.load(Ordering::SeqCst), 0, "no packet has left");
}

#[tokio::test]
async fn a_miner_that_wakes_up_in_time_loses_nothing() {
    let package = faulty_package();
    let server = server(package.path()).await;
    // Not ready when it is asked, and again when its first episodes begin.
    let waking = miner(|path, count| match (path, count) {
        ("/health", ..3) | ("/reset", ..4) => busy(),
        _ => good(path),
    })
    .await;
    let orders = EpisodesRequest { cold_start_ms: 60_000, ..request("faulty/never", &[("waking", waking)], 0..3) };
    let (reports, seen) = play(&server, &orders).await;
    all_are(&reports["waking"], Outcome::Success);
    assert_eq!(seen["waking"].iter().map(|seen| seen.status).collect::<Vec<_>>(), [MinerStatus::Active]);
    assert_eq!(seen["waking"][0].address.as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_miner_that_stays_cold_is_not_ready_and_holds_nobody_up() {
    let package = faulty_package();
    let server = server(package.path()).await;
    let cold = miner(|_, _| busy()).await;
    let awake = miner(|path, _| if path == "/health" { busy() } else { good(path) }).await;
    let gone = format!("http://127.0.0.1:{}", ports::free());
    let (well, miners) = (miner(|path, _| good(path)).await, [("cold", cold), ("awake", awake), ("gone", gone)]);
    let miners: Vec<_> = miners.into_iter().chain([("well", well)]).collect();
    let orders = EpisodesRequest { cold_start_ms: 5000, ..request("faulty/never", &miners, 0..2) };
    let (reports, seen) = play(&server, &orders).await;
    let status = |name: &str| seen[name][0].status;
    assert_eq!(
        (status("cold"), status("awake"), status("well")),
        (MinerStatus::Cold, MinerStatus::Cold, MinerStatus::Active)
    );
    assert_eq!(status("gone"), MinerStatus::Unreachable);
    all_are(&reports["cold"], Outcome::MinerFault(MinerFault::NotReady));
    assert!(reports["cold"][0].detail.as_ref().unwrap().contains("503: cold"), "{:?}", reports["cold"]);
    all_are(&reports["gone"], Outcome::MinerFault(MinerFault::ConnectionError));
    // What it answers to /reset and /act is what counts.
    all_are(&reports["awake"], Outcome::Success);
    all_are(&reports["well"], Outcome::Success);
}

#[tokio::test]
async fn a_model_that_changes_is_flagged() {
    let package = faulty_package();
    let server = server(package.path()).await;
    let swapped = miner(|path, count| match path {
        "/health" => whole(&format!(r#"{{"model": "sha256:{count}"}}"#)),
        _ => good(path),
    })
    .await;
    let mut sightings = Vec::new();
    for _ in 0..2 {
        let (reports, seen) = play(&server, &request("faulty/never", &[("swapped", swapped.clone())], 0..1)).await;
        all_are(&reports["swapped"], Outcome::Success);
        sightings.extend(seen["swapped"].iter().map(|seen| Sighting {
            environment: "faulty/never".parse().unwrap(),
            hotkey: "swapped".parse().unwrap(),
            seen: seen.clone(),
        }));
    }
    let found = changes(&sightings);
    let [change] = found[&"swapped".parse().unwrap()].as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (change.flag, change.seen.as_slice()),
        ("model_changed", &["sha256:1".to_owned(), "sha256:2".to_owned()][..])
    );
}

/// A pipeline of one miner that is nobody's demonstration.
fn of_a_stranger(endpoint: &str, more: &str) -> String {
    format!(
        "version: 1\nname: stranger\nenvironments: [metaworld/reach-v3]\n{more}stages:\n  \
         discover: {{ uses: file/miners, with: {{ miners: [{{ uid: 1, hotkey: stranger, endpoint: \"{endpoint}\" }}] }} }}\n  \
         episodes:\n    depends_on: [discover]\n    uses: episodes/run\n    \
         matrix: {{ environment: \"${{{{ cycle.environments }}}}\" }}\n    with: {{ episodes: 2 }}\n"
    )
}

#[test]
fn a_cycle_calls_no_private_endpoint_and_says_why() {
    let _turn = turn();
    let listener = BlockingListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let folder = workspace(|_| of_a_stranger(&endpoint, ""));
    let place = Place::new();
    let lint = place.run(&["lint", &pipeline(&folder)]);
    assert_eq!(lint.code, 0);
    for words in ["`stranger` will not be called", "127.0.0.1 is loopback", "allow_private_endpoints: true"] {
        assert!(lint.stderr.contains(words), "{}", lint.stderr);
    }
    // No simulator is prepared and no server started: there is nothing to play.
    let ran = place.run(&["run-pipeline", &pipeline(&folder)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(listener.accept().is_err(), "no packet has left");
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let outcomes = shown["outcomes"].as_array().unwrap();
    assert_eq!((outcomes.len(), &outcomes[0]["reason"]), (1, &"endpoint_address_forbidden".into()));
    assert_eq!(shown["miners"][0]["status"], "refused");
    for verb in [&["cycle", "show"][..], &["cycle", "explain", "@latest", "episodes"]] {
        let text = place.run(verb).stdout;
        assert!(text.contains("refused") && text.contains("allow_private_endpoints"), "{text}");
    }
    let explained = place.json(&["cycle", "explain", "@latest", "episodes", "--format", "json"]);
    assert_eq!(explained["miners"][0]["faults"][0]["count"], 2);
    // With the leave that the text speaks of there is nothing to warn of.
    let folder = workspace(|_| of_a_stranger(&endpoint, "miners: { allow_private_endpoints: true }\n"));
    assert_eq!(place.run(&["lint", &pipeline(&folder)]).stderr, "");
    let wrong = workspace(|_| of_a_stranger(&endpoint, "miners: { cold_start: { budget: 2h } }\n"));
    assert!(place.run(&["lint", &pipeline(&wrong)]).stderr.contains("more than an hour"));
    assert!(listener.accept().is_err());
}
