//! Servers that run already (`--env-server FAMILY=URL`): asked how they are and what they are made of, used by one cycle at a
//! time, replaced by one another, never ended.

use std::{
    collections::HashMap,
    process::{Command, Stdio},
    sync::Arc,
};

use robo::{
    cycle::InfraFault,
    plan,
    runtime::{Error, Named, Order, Runtime, ServerSpec, Url},
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{
    children::{self, Serving, TOKEN},
    support::program::{Place, Ran, Running, pipeline, repository, turn, workspace},
};

/// A server that says what it simulates with.
fn server() -> Serving {
    let lock = children::package().join("requirements/metaworld.lock");
    Serving::env_server(&children::package(), &["--requirements", lock.to_str().unwrap()])
}

/// The digest that a server says it is made of.
async fn digest(server: &Serving) -> String {
    let client = reqwest::Client::new();
    let answer = client.get(format!("{}/health", server.url())).bearer_auth(TOKEN).send().await.unwrap();
    let health: Value = answer.json().await.unwrap();
    assert_eq!((&health["status"], &health["version"]), (&"ok".into(), &env!("CARGO_PKG_VERSION").into()));
    health["digest"].as_str().unwrap_or_default().to_owned()
}

fn order(family: &str, digest: &str) -> Order {
    let server = plan::Server {
        protocol: "robo/v1".into(),
        workers: None,
        slots_per_worker: 1,
        context: "eval-env".into(),
        requirements: "eval-env/requirements/metaworld.lock".into(),
        build_digest: digest.into(),
        image: None,
        recycle_after: None,
        resources: robo::manifest::Resources::default(),
    };
    Order { family: family.into(), server, root: repository(), kinds: 1 }
}

fn named(servers: &[String], token: &str) -> Url {
    crate::install_tls();
    let servers: Vec<ServerSpec> = servers.iter().map(|text| text.parse().unwrap()).collect();
    let tokens = servers.iter().map(|server| (server.family.clone(), token.to_owned())).collect::<HashMap<_, _>>();
    Url::new(Arc::new(Named::new(servers, tokens)), None)
}

async fn refusal(runtime: &Url, order: &Order) -> Error {
    match runtime.start(order).await {
        Ok(server) => panic!("{} was taken", server.address().description),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_server_must_know_the_token_and_be_made_of_what_the_cycle_is_pinned_to() {
    let (well, silent) = (server(), Serving::env_server(&children::package(), &[]));
    crate::install_tls();
    let digest = digest(&well).await;
    assert_eq!(digest.len(), 64);
    let of = |server: &Serving| [format!("m={}", server.url())];
    let mut taken = named(&of(&well), TOKEN).start(&order("m", &digest)).await.unwrap();
    taken.check().await.unwrap();
    taken.stop().await;
    named(&of(&well), TOKEN).start(&order("m", &digest)).await.unwrap().check().await.unwrap();

    for (runtime, digest, words) in [
        (named(&of(&well), "guessed"), digest.as_str(), "ROBO_SECRET_ENV_SERVER_TOKEN_"),
        (named(&of(&well), TOKEN), "of-other-sources", "simulates with other sources"),
        (named(&of(&silent), TOKEN), digest.as_str(), "--requirements"),
    ] {
        let error = refusal(&runtime, &order("m", digest)).await;
        let text = error.explain();
        assert_eq!(error.reason(), InfraFault::Unhealthy, "{text}");
        assert!(text.contains(words) && !text.contains(TOKEN) && !text.contains("guessed"), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_server_plays_for_one_cycle_at_a_time_and_a_dead_one_is_passed_over() {
    let well = server();
    crate::install_tls();
    let digest = digest(&well).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let runtime = named(&[format!("m=http://{dead}"), format!("m={}", well.url())], TOKEN);
    let order = order("m", &digest);
    assert_eq!(runtime.room(&order).await, 2);
    let taken = runtime.start(&order).await.unwrap();
    assert_eq!(taken.address().url, well.url());
    let busy = refusal(&runtime, &order).await;
    assert_eq!(busy.reason(), InfraFault::HostUnreachable, "the free one is dead: {}", busy.explain());
    let alone = named(&[format!("m={}", well.url())], TOKEN);
    let first = alone.start(&order).await.unwrap();
    let busy = refusal(&alone, &order).await;
    assert_eq!(busy.reason(), InfraFault::NoCapacity);
    assert!(!busy.is_permanent() && busy.explain().contains("--env-server"), "{}", busy.explain());
    drop(first);
    alone.start(&order).await.unwrap();
    let unnamed = refusal(&alone, &Order { family: "other".into(), ..order.clone() }).await;
    assert!(unnamed.is_permanent() && unnamed.explain().contains("--env-server other=URL"), "{}", unnamed.explain());
}

#[tokio::test]
async fn a_server_that_dies_is_told_from_one_that_is_ill() {
    let mut well = server();
    crate::install_tls();
    let digest = digest(&well).await;
    let runtime = named(&[format!("m={}", well.url())], TOKEN);
    let mut taken = runtime.start(&order("m", &digest)).await.unwrap();
    well.kill();
    let error = taken.check().await.unwrap_err();
    assert_eq!(error.reason(), InfraFault::HostUnreachable, "{}", error.explain());
}

/// A miner on a loopback address here is another machine's to a server elsewhere. 0.0.0.0 is no loopback address, and leads here
/// all the same.
#[tokio::test]
async fn a_miner_on_the_loopback_address_is_not_given_to_a_server_elsewhere() {
    let well = server();
    crate::install_tls();
    let digest = digest(&well).await;
    let port = well.address.rsplit_once(':').unwrap().1;
    let mut here = named(&[format!("m={}", well.url())], TOKEN).start(&order("m", &digest)).await.unwrap();
    let miners = ["http://127.0.0.1:9000".to_owned(), "https://miner.example".to_owned()];
    assert_eq!(here.reach(&miners).await.unwrap(), miners);
    let elsewhere = named(&[format!("m=http://0.0.0.0:{port}")], TOKEN).start(&order("m", &digest)).await;
    let mut elsewhere = elsewhere.unwrap_or_else(|error| panic!("{}", error.explain()));
    assert_eq!(elsewhere.reach(&miners[1..]).await.unwrap(), miners[1..]);
    let error = elsewhere.reach(&miners).await.unwrap_err();
    assert!(
        error.explain().contains("loopback") && error.explain().contains("http://127.0.0.1:9000"),
        "{}",
        error.explain()
    );
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let script = "
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";
    let mut child = Command::new(children::python())
        .args(["-c", script])
        .args([&certificate, &key])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut port).unwrap();
    let runtime = named(&[format!("m=https://127.0.0.1:{}", port.trim())], TOKEN);
    let error = refusal(&runtime, &order("m", "any")).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(error.reason(), InfraFault::HostUnreachable);
    assert!(error.explain().contains("certificate"), "{}", error.explain());
}

#[test]
fn a_cycle_on_servers_that_run_already_gives_the_same_bytes_though_one_of_them_dies() {
    let _turn = turn();
    let (folder, salt) = (workspace(str::to_owned), "5b".repeat(32));
    let file = pipeline(&folder);
    let arguments = ["run-pipeline", &file, "-i", "episodes_per_env=3", "--salt", &salt];
    let published = |place: &Place| {
        let mut cycle = place.json(&["cycle", "show", "@latest", "--format", "json"]);
        assert!(cycle["scores_document"].is_object(), "{cycle}");
        (cycle["scores_document"].take(), cycle["weights_document"].take())
    };
    let processes = Place::new();
    let calm = processes.run(&arguments);
    assert_eq!(calm.code, 0, "{}", calm.stderr);

    let (mut first, second, place) = (server(), server(), Place::new());
    let (one, other) = (format!("metaworld={}", first.url()), format!("metaworld={}", second.url()));
    let servers = ["--env-server", &one, "--env-server", &other];
    let mut command = place.robo(&[&arguments[..], &servers].concat());
    command.env("ROBO_SECRET_ENV_SERVER_TOKEN_METAWORLD", TOKEN);
    let mut running = Running::from(command.spawn().unwrap());
    running.until_line(|line| line.contains(" episodes  ") && !line.contains("  0/"));
    first.kill();
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(published(&place), published(&processes));
    // The one that is left was used, is not ours to end, and serves the next cycle, whose environments are others.
    let others = workspace(|text| text.replace("  - metaworld/door-open-v3\n", ""));
    let mut command = place.robo(&["run-pipeline", &pipeline(&others), "-i", "episodes_per_env=1", "--runtime", "url"]);
    command.args(["--env-server", &other]).env("ROBO_SECRET_ENV_SERVER_TOKEN_METAWORLD", TOKEN);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(TOKEN));
}

/// The only server of a cycle dies and is started again at its address: it is told anew what to load, and nothing is scored
/// that it did not play to its end.
#[test]
fn a_server_that_is_started_again_at_its_address_goes_on() {
    let _turn = turn();
    let folder = workspace(|text| {
        let retry = "defaults:\n  retry: { max_attempts: 100, initial_interval: 600ms, backoff: 1.0 }\n";
        text.replace("defaults:\n", retry).replace("  - metaworld/door-open-v3\n  - metaworld/drawer-open-v3\n", "")
    });
    let (mut server, place) = (server(), Place::new());
    let at = server.address.clone();
    let mut command = place.robo(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=6"]);
    command.args(["--env-server", &format!("metaworld={}", server.url())]);
    command.env("ROBO_SECRET_ENV_SERVER_TOKEN_METAWORLD", TOKEN);
    let mut running = Running::from(command.spawn().unwrap());
    running.until_line(|line| line.contains(" episodes  ") && !line.contains("  0/"));
    server.kill();
    let lock = children::package().join("requirements/metaworld.lock");
    let again = ["--requirements", lock.to_str().unwrap(), "--listen", &at];
    let _again = Serving::env_server(&children::package(), &again);
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let outcomes = shown["outcomes"].as_array().unwrap();
    assert!(outcomes.iter().all(|count| count["outcome"] != "infra_fault"), "{outcomes:?}");
    let scored: u64 = outcomes.iter().filter_map(|count| count["episodes"].as_u64().or(count["count"].as_u64())).sum();
    assert_eq!(scored, 2 * 4 * 6, "{outcomes:?}");
}

#[test]
fn what_is_written_wrongly_is_said_at_once() {
    let place = Place::new();
    for (arguments, words) in [
        (&["--runtime", "url"][..], "needs at least one server"),
        (&["--env-server", "http://gpu-1:8700"], "is not FAMILY=URL"),
        (&["--env-server", "metaworld"], "is not FAMILY=URL"),
    ] {
        let ran = place.run(&[&["run-pipeline", "pipelines/quickstart.yaml"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.contains("--env-server"), "{arguments:?}: {}", ran.stderr);
    }
    let made = std::fs::read_dir(place.data.path()).unwrap().map(|it| it.unwrap().file_name());
    assert!(made.into_iter().all(|name| name == "python"), "nothing was made");
}
