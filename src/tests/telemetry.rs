//! What a process tells of its work: lines that programs can read, and one trace a cycle, whoever takes it up.

use std::{collections::BTreeSet, fs, sync::Arc};

use axum::{Router, body::Bytes, extract::State, routing::post};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value as Any,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Mutex};

use crate::support::program::{Place, Ran};

/// A pipeline whose one program waits for a person until `allowed` is there.
fn pausing() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("environments")).unwrap();
    let text = format!(
        "version: 1\nname: pausing\nstages:\n  work:\n    uses: container/run\n    retry: {{ max_attempts: 1, then: pause }}\n    \
         with: {{ runtime: process, command: [sh, -c, 'test -e {}/allowed && echo {{}}'] }}\n",
        folder.path().display()
    );
    fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    folder
}

type Told = Arc<Mutex<Vec<Span>>>;

/// Somebody who collects traces, at this address.
async fn collector() -> (Told, String) {
    async fn take(State(told): State<Told>, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let spans = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        told.lock().await.extend(spans.flat_map(|scope| scope.spans));
    }
    let told = Told::default();
    let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&told));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (told, address)
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_that_is_taken_up_again_is_one_trace() {
    let (told, address) = collector().await;
    let (place, folder) = (Place::new(), pausing());
    let run = |arguments: &[&str]| -> Ran {
        let mut command = place.robo(arguments);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &address).output().unwrap().into()
    };
    let file = folder.path().join("pipeline.yaml");
    let (cycle, first) = tokio::task::block_in_place(|| {
        let first = run(&["run-pipeline", file.to_str().unwrap()]);
        assert_ne!(first.code, 0, "{}", first.stderr);
        let cycle = place.json(&["cycle", "ls", "--format", "json"])["cycles"][0]["id"].as_str().unwrap().to_owned();
        fs::write(folder.path().join("allowed"), "").unwrap();
        (cycle, first)
    });
    assert!(told.lock().await.iter().any(|span| span.name == "run"), "{}", first.stderr);
    tokio::task::block_in_place(|| {
        let second = run(&["cycle", "resume", &cycle]);
        assert_eq!(second.code, 0, "{}", second.stderr);
    });
    let told = told.lock().await;
    let traces: BTreeSet<String> = told.iter().map(|span| hex::encode(&span.trace_id)).collect();
    assert_eq!(traces, BTreeSet::from([cycle.replace('-', "")]));
    let named = |name: &str| told.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (roots, runs, attempts) = (named("cycle"), named("run"), named("attempt"));
    assert_eq!((roots.len(), runs.len(), attempts.len()), (1, 2, 2), "{told:?}");
    let root = roots[0];
    assert_eq!(attribute(root, "status").as_deref(), Some("completed"));
    assert_ne!(root.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    for run in &runs {
        assert_eq!(run.parent_span_id, root.span_id);
        assert_eq!(attribute(run, "cycle"), Some(cycle.clone()));
        assert!(root.start_time_unix_nano <= run.start_time_unix_nano, "it began before the cycle was there");
    }
    let parents: BTreeSet<_> = attempts.iter().map(|attempt| &attempt.parent_span_id).collect();
    assert_eq!(parents, runs.iter().map(|run| &run.span_id).collect());
    assert_eq!(attribute(attempts[0], "stage").as_deref(), Some("work"));
}

#[test]
fn nobody_who_collects_traces_is_waited_for() {
    let (place, folder) = (Place::new(), pausing());
    fs::write(folder.path().join("allowed"), "").unwrap();
    let mut command = place.robo(&["run-pipeline", folder.path().join("pipeline.yaml").to_str().unwrap()]);
    let ran: Ran = command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").output().unwrap().into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn a_backend_that_is_read_by_programs_writes_one_object_a_line() {
    let (place, folder) = (Place::new(), pausing());
    let file = folder.path().join("pipeline.yaml");
    let file = file.to_str().unwrap();
    let arguments = ["backend", "--pipeline", file, "--host", "127.0.0.1", "--port", "0", "--log-level", "debug"];
    let mut running = place.start(&arguments);
    running.until("listening on");
    let created = place.json(&["schedule", "trigger", "pausing", "--pipeline", file, "--format", "json"]);
    running.until("`work` failed");
    running.signal(Signal::SIGTERM);
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let failed =
        lines.iter().find(|line| line["message"].as_str().unwrap().starts_with("`work` failed and waits")).unwrap();
    assert_eq!((&failed["cycle"], &failed["pipeline"]), (&created["cycle"], &"pausing".into()), "{failed}");
    assert!(failed["time"].is_string() && failed["level"] == "WARN" && failed["target"] == "robo::backend::cycles");

    // For people it is text, wherever they read it.
    let mut running = place.start(&[&arguments[..], &["--log-format", "text"]].concat());
    running.until("listening on http://127.0.0.1");
    running.signal(Signal::SIGTERM);
    let ran = running.wait();
    assert!(ran.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{}", ran.stderr);
    // A mistake in RUST_LOG or a level of another case does not keep it from starting.
    assert_eq!(place.run(&["--log-level", "wArNiNg", "lint", file]).code, 0);
}
