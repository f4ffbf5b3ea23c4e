//! The simulator's Python environment, built for real from a tiny lock, and servers started in it.
//!
//! The environment server itself is played by a short Python script here; the real one has tests of its own.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use robo::{
    host::Progress,
    manifest::Resources,
    plan,
    runtime::{
        DemoMiners, Order, Process, Runtime, Servers,
        python::{Environment, Environments, Error},
    },
};

const LOCK: &str =
    "six==1.17.0 \\\n    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n";

struct Bench {
    directory: tempfile::TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bench = Self { directory: tempfile::tempdir().unwrap(), told: Arc::default() };
        bench.write("requirements.lock", LOCK);
        fs::create_dir(bench.path("package")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that can be executed. `cp` writes it, because a process that another test forks meanwhile would hold our
    /// own handle open for a moment, and the system does not execute a file that somebody may write to.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let (draft, path) = (self.path("draft"), self.path(name));
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new("cp").arg(&draft).arg(&path).status().unwrap().success());
        path
    }

    fn environments(&self, python: Option<PathBuf>) -> Environments {
        let told = self.told.clone();
        let progress = Progress::new(move |message| told.lock().unwrap().push(message.to_owned()));
        Environments { data_dir: self.path("data"), python, progress }
    }

    async fn prepare(&self, python: Option<PathBuf>) -> Result<Environment, Error> {
        self.environments(python).prepare(&self.path("requirements.lock")).await
    }

    /// What was said since the last call.
    fn told(&self) -> String {
        self.told.lock().unwrap().drain(..).collect::<Vec<_>>().join("\n")
    }

    /// A runtime whose program is a script that behaves as `behaviour` says.
    fn runtime(&self, behaviour: &str) -> Process {
        let script = format!("#!/usr/bin/env python3\nimport http.server, json, os, sys, threading\n{behaviour}\n");
        Process::new(self.environments(None), self.write("robo", &script))
    }

    fn order(&self) -> Order {
        let server = plan::Server {
            protocol: "robo/v1".into(),
            workers: None,
            slots_per_worker: 1,
            context: "package".into(),
            requirements: "requirements.lock".into(),
            build_digest: String::new(),
            image: None,
            recycle_after: None,
            resources: Resources::default(),
        };
        Order { family: "test".into(), server, root: self.directory.path().into(), kinds: 1 }
    }
}

/// Serves `/health` to whoever knows the token, until standard input closes; then leaves a file behind.
const SERVER: &str = r#"
token = os.environ.get("ROBO_ENV_SERVER_TOKEN")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = token is None or self.headers["Authorization"] == "Bearer " + token
        self.send_response(200 if known and self.path == "/health" else 403)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"listening": "127.0.0.1:%d" % server.server_address[1]}), flush=True)
sys.stdin.read()
open(os.path.join(os.path.dirname(__file__), "ended-%d" % os.getpid()), "w").close()
"#;

#[tokio::test]
async fn an_environment_is_built_once_reused_and_repaired() {
    let bench = Bench::new();
    let built = bench.prepare(None).await.unwrap();
    let told = bench.told();
    assert!(told.contains("installing six 1.17.0 (1 of 1)"), "{told}");
    let root = built.python.parent().unwrap().parent().unwrap().to_owned();
    let site = fs::read_dir(root.join("lib")).unwrap().next().unwrap().unwrap().path().join("site-packages");
    let marker = || fs::metadata(root.join("robo-environment.json")).unwrap().ino();
    let first = marker();

    assert_eq!(bench.prepare(None).await.unwrap(), built);
    assert_eq!((bench.told().as_str(), marker()), ("", first), "used as it is");

    fs::remove_file(site.join("six.py")).unwrap();
    bench.prepare(None).await.unwrap();
    let told = bench.told();
    assert!(told.contains("is broken (`six.py` is missing or changed); building it again"), "{told}");
    assert!(site.join("six.py").is_file());

    fs::write(site.join("six.py"), "").unwrap();
    fs::remove_file(root.join("bin/python")).unwrap();
    bench.prepare(None).await.unwrap();
    assert!(bench.told().contains("building it again"));
    assert!(imports_six(&built.python));
}

#[tokio::test]
async fn a_death_in_the_middle_is_made_good_by_the_next_run() {
    let bench = Bench::new();
    // Dropping the future is what a death does to it: pip goes, half an environment stays.
    let environments = bench.environments(None);
    let lock = bench.path("requirements.lock");
    let (started, begun) = tokio::sync::oneshot::channel();
    let started = Mutex::new(Some(started));
    let progress = Progress::new(move |message| {
        if message.starts_with("installing six")
            && let Some(started) = started.lock().unwrap().take()
        {
            started.send(()).unwrap();
        }
    });
    let building = Environments { progress, ..environments.clone() };
    tokio::select! {
        _ = building.prepare(&lock) => panic!("it was to be given up in the middle"),
        _ = begun => {}
    }
    let half_built = fs::read_dir(bench.path("data/python")).unwrap().flatten().find(|it| it.path().is_dir()).unwrap();
    fs::write(half_built.path().join("litter"), "").unwrap();

    let environment = bench.prepare(None).await.unwrap();
    assert!(imports_six(&environment.python));
    assert!(!half_built.path().join("litter").exists(), "it was built from nothing");
}

#[tokio::test]
async fn neither_ensurepip_nor_a_clean_environment_is_needed() {
    let bench = Bench::new();
    let python = bench.write(
        "python-without-ensurepip",
        "#!/bin/sh\ncase \"$*\" in\n*--without-pip*) ;;\n*venv*|*ensurepip*) echo 'No module named ensurepip' >&2; exit 1;;\nesac\nexec python3 \"$@\"\n",
    );
    assert!(imports_six(&bench.prepare(Some(python)).await.unwrap().python));
}

#[tokio::test]
async fn two_at_once_build_one_environment() {
    let bench = Bench::new();
    let (one, other) = tokio::join!(bench.prepare(None), bench.prepare(None));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(bench.told().matches("preparing").count(), 1);
}

#[tokio::test]
async fn a_python_that_will_not_do_is_named_with_a_remedy() {
    let bench = Bench::new();
    let old = bench.write("old", "#!/bin/sh\necho 3 9 2\n");
    let broken = bench.write("broken", "#!/bin/sh\nexit 127\n");
    for (python, problem) in [
        (old, "it is Python 3.9.2"),
        (broken, "it cannot be run (exit status: 127)"),
        (bench.path("absent"), "it cannot be started"),
    ] {
        let error = bench.prepare(Some(python)).await.unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert!(error.remedy().unwrap().contains("apt install python3"), "{error}");
        assert!(error.is_permanent());
    }
}

#[tokio::test]
async fn a_python_without_venv_is_told_how_to_get_it() {
    let bench = Bench::new();
    let script =
        "#!/bin/sh\ncase \"$*\" in *venv*) echo 'No module named venv' >&2; exit 1;; esac\nexec python3 \"$@\"\n";
    let error = bench.prepare(Some(bench.write("bare", script))).await.unwrap_err();
    assert!(error.to_string().ends_with("bare -m venv` failed\n  No module named venv"), "{error}");
    assert!(error.remedy().unwrap().contains("apt install python3-venv"));
}

#[tokio::test]
async fn a_lock_that_is_wrong_is_refused() {
    let bench = Bench::new();
    let wrong_hash = LOCK.replace("4721", "0000");
    bench.write("requirements.lock", &wrong_hash);
    let error = bench.prepare(None).await.unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error:?}");

    bench.write("requirements.lock", &LOCK.replace("1.17.0", "99.0"));
    let error = bench.prepare(None).await.unwrap_err();
    assert!(matches!(error, Error::NoWheel { .. }), "{error:?}");

    fs::remove_file(bench.path("requirements.lock")).unwrap();
    let error = bench.prepare(None).await.unwrap_err();
    assert!(matches!(error, Error::Lock { .. }), "{error:?}");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_to_is_named() {
    let bench = Bench::new();
    let environments = Environments { data_dir: "/proc/robo".into(), ..bench.environments(None) };
    let error = environments.prepare(&bench.path("requirements.lock")).await.unwrap_err();
    assert!(error.to_string().contains("`/proc/robo/python` cannot be written to"), "{error}");
    assert!(error.remedy().unwrap().contains("--data-dir"));
}

#[tokio::test]
async fn this_machine_keeps_what_every_place_promises() {
    let bench = Bench::new();
    let runtime = bench.runtime(SERVER);
    let script = bench.path("robo").display().to_string();
    crate::places::keeps_its_word(&runtime, &bench.order(), || {
        let listed = fs::read_dir("/proc").unwrap().flatten();
        listed
            .filter(|it| fs::read_to_string(it.path().join("cmdline")).is_ok_and(|line| line.contains(&script)))
            .count()
    })
    .await;
}

#[tokio::test]
async fn tasks_share_a_server_and_a_dead_one_is_replaced() {
    let bench = Bench::new();
    let servers = Servers::new(Arc::new(bench.runtime(SERVER)), bench.directory.path().into());
    let server = bench.order().server;
    let (one, other) = tokio::join!(servers.get("metaworld", &server, 1), servers.get("metaworld", &server, 1));
    let (one, other) = (only(one), only(other));
    assert_eq!(one, other);
    assert_ne!(only(servers.get("gym", &server, 1).await).url, one.url, "another family has its own");

    kill(process_of(&one.description));
    let next = only(servers.get("metaworld", &server, 1).await);
    assert!(next.url != one.url && next.token != one.token);

    servers.stop().await;
    assert!(ended(&bench, process_of(&next.description)), "it was asked, not killed");
}

#[tokio::test]
async fn a_server_that_dies_at_once_is_quoted() {
    let bench = Bench::new();
    let runtime = bench.runtime("sys.exit('error: no graphics library')");
    let error = runtime.start(&bench.order()).await.err().unwrap().explain();
    assert!(error.contains("the environment server ended at once (exit status: 1)"), "{error}");
    assert!(error.contains("no graphics library"), "{error}");

    fs::remove_dir(bench.path("package")).unwrap();
    let error = runtime.start(&bench.order()).await.err().unwrap();
    assert!(error.is_permanent() && error.explain().contains("build.context"), "{error}");
}

#[tokio::test]
async fn a_demo_miner_is_started_once_per_policy() {
    let bench = Bench::new();
    let refuse = "if 'genius' in sys.argv: sys.exit('error: unknown policy `genius`')\n";
    let program = bench.write(
        "robo",
        &format!("#!/usr/bin/env python3\nimport http.server, json, os, sys, threading\n{refuse}{SERVER}"),
    );
    let miners = DemoMiners::new(program);
    assert_eq!(miners.resolve("http://10.0.0.1:8001").await.unwrap(), "http://10.0.0.1:8001");
    let random = miners.resolve("demo:random").await.unwrap();
    assert!(random.starts_with("http://127.0.0.1:"), "{random}");
    assert_eq!(miners.resolve("demo:random").await.unwrap(), random);
    assert_ne!(miners.resolve("demo:noop").await.unwrap(), random);
    let error = miners.resolve("demo:genius").await.unwrap_err().to_string();
    assert!(error.contains("unknown policy `genius`"), "{error}");
    miners.stop().await;
    let ended = fs::read_dir(bench.directory.path()).unwrap().flatten();
    assert_eq!(ended.filter(|it| it.file_name().to_string_lossy().starts_with("ended-")).count(), 2);
}

#[tokio::test]
async fn a_server_that_has_played_its_episodes_is_replaced_when_nobody_uses_it_any_more() {
    let bench = Bench::new();
    let servers = Servers::new(Arc::new(bench.runtime(SERVER)), bench.directory.path().into());
    let server = plan::Server { recycle_after: Some(3), ..bench.order().server };
    let used = servers.get("metaworld", &server, 1).await.unwrap().remove(0);
    used.count(2);
    assert_eq!(only(servers.get("metaworld", &server, 1).await), *used.address(), "it may play one more");
    used.count(1);
    let next = only(servers.get("metaworld", &server, 1).await);
    assert_ne!(next, *used.address());
    used.check().await.expect("whoever uses the old one still can");
    let process = process_of(&used.address().description);
    assert!(!ended(&bench, process));
    drop(used);
    servers.stop().await;
    assert!(ended(&bench, process) && ended(&bench, process_of(&next.description)));
}

/// The address of the only server of a pool.
fn only(servers: Result<Vec<robo::runtime::Lent>, robo::runtime::Error>) -> robo::runtime::Address {
    let servers = servers.unwrap();
    assert_eq!(servers.len(), 1);
    servers[0].address().clone()
}

fn imports_six(python: &Path) -> bool {
    Command::new(python).args(["-I", "-c", "import six"]).status().unwrap().success()
}

fn process_of(description: &str) -> i32 {
    description.split(' ').nth(1).unwrap().parse().unwrap()
}

fn kill(process: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn ended(bench: &Bench, process: i32) -> bool {
    bench.path(&format!("ended-{process}")).exists()
}
