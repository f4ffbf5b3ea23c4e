//! The image and the compose file on a real engine, with local images in place of those that a registry has: a Debian with its
//! Postgres 15, and a builder whose `cargo` hands out the program that the tests were built with.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{read, succeeds};
use crate::{
    metrics::Page,
    support::{
        engine::{SOCKET, build, docker, engine},
        program::{Place, repository},
    },
};

/// Variables of the operator's guide, and others that a deployment asks for.
const GUIDE: [&str; 20] = [
    "ROBO_BACKEND_HOST",
    "ROBO_BACKEND_PORT",
    "ROBO_BACKEND_DATABASE_URL",
    "ROBO_BACKEND_NETWORK",
    "ROBO_BACKEND_NETUID",
    "ROBO_BACKEND_EVAL_INTERVAL_SECONDS",
    "ROBO_BACKEND_EPISODES_PER_ENV",
    "ROBO_BACKEND_LOG_LEVEL",
    "ROBO_BACKEND_EVAL_IMAGE",
    "ROBO_BACKEND_EVAL_MEM_LIMIT",
    "ROBO_BACKEND_ACTION_TIMEOUT_MS",
    "ROBO_BACKEND_MAX_TIMESTEPS_PER_EPISODE",
    "ROBO_BACKEND_PARETO_TEMPERATURE",
    "ROBO_BACKEND_TRUSTED_PROXIES",
    "ROBO_BACKEND_REQUIRE_KEY",
    "ROBO_BACKEND_RATE_LIMIT",
    "ROBO_BACKEND_GRACE",
    "ROBO_BACKEND_VALID_BLOCKS",
    "RUST_LOG",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// A Postgres 15 that makes its cluster as the official image does: user, password and database from the environment.
const POSTGRES: &str = r#"FROM debian:bookworm-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* && mkdir -p /var/lib/postgresql/data && chown postgres /var/lib/postgresql/data
COPY start /usr/local/bin/start
USER postgres
STOPSIGNAL SIGINT
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["start"]
"#;
const START: &str = r#"#!/bin/sh
set -e
data=/var/lib/postgresql/data
if [ ! -e $data/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" >/tmp/password
  initdb --pgdata=$data --username="$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >>$data/pg_hba.conf
  echo "create database $POSTGRES_DB" | postgres --single -D $data postgres >/dev/null
fi
exec postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
"#;

/// A pipeline that needs an engine and nothing else.
const TOY: &str = "version: 1
name: toy
schedule: [{ cron: '0 0 1 1 *' }]
stages:
  hello:
    uses: container/run
    with: { runtime: docker, image: \"debian:bookworm-slim\", command: [sh, -c, \"echo '{}'\"] }
";

/// A deployment, taken down when its test fails.
struct Deployment {
    folder: TempDir,
}

impl Deployment {
    const PROJECT: &str = "robo-test-compose";

    /// The files of the repository, the settings of the example with a port of the engine's choice, and the toy.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("toy.yaml"), TOY).unwrap();
        let mount = format!("{}/toy.yaml:/opt/robo/pipelines/toy.yaml:ro", folder.path().display());
        let more = format!("services:\n  backend:\n    volumes: [\"{mount}\"]\n");
        fs::write(folder.path().join("override.yml"), more).unwrap();
        let group = fs::metadata(SOCKET).map_or(0, |socket| socket.gid());
        let settings = format!(
            "POSTGRES_IMAGE=robo-test/postgres\nROBO_IMAGE=robo-test/backend\nROBO_LISTEN=127.0.0.1:\n\
             ROBO_PIPELINE=pipelines/toy.yaml\nDOCKER_GID={group}\n"
        );
        let example = read(".env.example");
        let is_other = |line: &&str| !settings.contains(&format!("{}=", line.split('=').next().unwrap()));
        let kept: Vec<&str> = example.lines().filter(is_other).collect();
        fs::write(folder.path().join("env"), format!("{}\n{settings}", kept.join("\n"))).unwrap();
        Self { folder }
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let file = |name: &str| self.folder.path().join(name);
        let mut command = compose();
        command.args(["--project-name", Self::PROJECT, "--project-directory"]).arg(repository());
        command.arg("--env-file").arg(file("env"));
        command
            .arg("--file")
            .arg(repository().join("docker-compose.backend.yml"))
            .arg("--file")
            .arg(file("override.yml"));
        // What is set here would come before the file.
        for name in GUIDE {
            command.env_remove(name);
        }
        succeeds(command.args(arguments))
    }

    fn container(&self, service: &str) -> String {
        self.compose(&["ps", "--quiet", service]).trim().to_owned()
    }

    fn down(&self) {
        self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "20"]);
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let names = docker(&["ps", "--all", "--quiet", "--filter", &label()]);
            if !names.is_empty() {
                self.down();
            }
        }
    }
}

fn label() -> String {
    format!("label=com.docker.compose.project={}", Deployment::PROJECT)
}

/// `docker-compose` 1.29, or the plugin of a newer engine.
fn compose() -> Command {
    let has_old = Command::new("docker-compose").arg("version").output().is_ok_and(|it| it.status.success());
    if has_old {
        return Command::new("docker-compose");
    }
    let mut command = Command::new("docker");
    command.arg("compose");
    command
}

/// What is left of the project on the engine.
fn left() -> Vec<String> {
    let kinds: [&[&str]; 3] = [&["ps", "--all"], &["volume", "ls"], &["network", "ls"]];
    let ask = |kind: &&[&str]| docker(&[kind, &["--quiet", "--filter", &label()][..]].concat());
    kinds.iter().map(ask).filter(|found| !found.is_empty()).collect()
}

/// The image of the repository's Dockerfile. Its builder has no Rust: registries are out of reach for tests.
fn build_backend() {
    let context = tempfile::tempdir().unwrap();
    let program = context.path().join("robo");
    succeeds(Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_robo")));
    let cargo = "#!/bin/sh\ntest \"$*\" = 'build --release --locked --bin robo' && test -f src/main.rs -a -f Cargo.lock -a -d migrations &&\n\
                 mkdir -p target/release && cp /robo target/release/robo\n";
    fs::write(context.path().join("cargo"), cargo).unwrap();
    fs::write(context.path().join("strip"), "#!/bin/sh\nexec test -x \"$1\"\n").unwrap();
    let file =
        "FROM debian:bookworm-slim\nCOPY cargo strip /usr/local/bin/\nCOPY robo /robo\nRUN chmod +x /usr/local/bin/*\n";
    fs::write(context.path().join("Dockerfile"), file).unwrap();
    let image = |arguments: &[&str], context: &Path| {
        let mut command = Command::new("docker");
        command.args(["build", "--quiet"]).args(arguments).arg(context).env("DOCKER_BUILDKIT", "0");
        succeeds(&mut command)
    };
    image(&["--tag", "robo-test/builder"], context.path());
    image(&["--build-arg", "BUILDER=robo-test/builder", "--tag", "robo-test/backend"], &repository());
}

#[test]
fn every_variable_of_the_guide_is_in_the_example_and_reaches_the_backend() {
    let (example, file) = (read(".env.example"), read("docker-compose.backend.yml"));
    for name in GUIDE {
        assert!(example.lines().any(|line| line.starts_with(&format!("{name}="))), "{name} in .env.example");
        assert!(file.contains(&format!("      {name}: ")), "{name} in docker-compose.backend.yml");
    }
    let named = file.match_indices("${").map(|(at, _)| file[at + 2..].split([':', '}']).next().unwrap());
    for name in named.filter(|name| !name.ends_with("_IMAGE") && *name != "DOCKER_SOCKET") {
        assert!(example.contains(&format!("{name}=")), "{name} is used and not in .env.example");
    }
    let deployment = Deployment::new();
    let services =
        deployment.compose(&["--profile", "monitoring", "--profile", "socket-proxy", "config", "--services"]);
    for service in ["postgres", "backend", "docker-proxy", "prometheus", "grafana"] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
}

#[test]
fn the_deployment_comes_up_runs_a_cycle_and_leaves_nothing() {
    let _engine = engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    build("postgres", &[("Dockerfile", POSTGRES), ("start", START)]);
    build_backend();
    let deployment = Deployment::new();
    deployment.down();
    deployment.compose(&["up", "--detach", "--no-build"]);
    let backend = deployment.container("backend");
    let state = loop {
        let state = docker(&["inspect", "--format", "{{.State.Health.Status}} {{.State.Running}}", &backend]);
        if !state.starts_with("starting") {
            break state;
        }
    };
    assert_eq!(state, "healthy true", "{}", deployment.compose(&["logs", "backend"]));
    let policy = "{{.HostConfig.RestartPolicy.Name}} {{.Config.User}}";
    assert_eq!(docker(&["inspect", "--format", policy, &backend]), "always 10001:10001");
    assert!(!deployment.compose(&["exec", "-T", "backend", "id"]).contains("uid=0"), "it does not run as root");

    let url = format!("http://{}", deployment.compose(&["port", "backend", "8000"]).trim());
    crate::install_tls();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| -> Value {
        let answer = runtime.block_on(async { client.get(format!("{url}{path}")).send().await.unwrap() });
        assert_eq!(answer.status(), 200, "{path}");
        runtime.block_on(answer.json()).unwrap()
    };
    // What simulates is in the image: a cycle is pinned to the same definition there as here.
    let plan = ["plan", "pipelines/quickstart.yaml", "--format", "json"];
    let there = deployment.compose(&[&["exec", "-T", "backend", "robo"][..], &plan].concat());
    assert_eq!(serde_json::from_str::<Value>(&there).unwrap(), Place::new().json(&plan));
    assert_eq!(get("/health")["database"], "connected");
    assert_eq!(get("/v1/status")["status"], "running");
    deployment.compose(&["exec", "-T", "backend", "robo", "run-pipeline", "pipelines/toy.yaml"]);
    assert_eq!(get("/v1/cycles")["cycles"][0]["status"], "completed");
    let page = loop {
        let page = runtime.block_on(Page::of(&url));
        if page.value("robo_eval_cycles_total{pipeline=\"toy\",status=\"completed\"}").is_some() {
            break page;
        }
    };
    assert_eq!(page.value("robo_docker_host_up{host=\"unix:///var/run/docker.sock\"}"), Some(1.0), "{}", page.0);

    deployment.compose(&["stop", "--timeout", "30", "backend"]);
    assert_eq!(docker(&["inspect", "--format", "{{.State.ExitCode}}", &backend]), "0", "it stops when it is told to");
    deployment.down();
    assert_eq!(left(), Vec::<String>::new());
}

/// The folder with the operator's guide: `../shared/guide`, or where `ROBO_GUIDE_DATA` says.
fn guide() -> PathBuf {
    let folder =
        std::env::var_os("ROBO_GUIDE_DATA").map_or_else(|| repository().join("../shared/guide"), PathBuf::from);
    assert!(folder.is_dir(), "{}: ROBO_GUIDE_DATA names the folder that has the guide", folder.display());
    folder
}

/// The guide's own compose file and settings, unchanged. Its images are made here, under the names that it asks a registry for.
#[test]
fn the_guides_compose_file_comes_up_unchanged() {
    const PROJECT: &str = "robo-test-guide";
    let _engine = engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    build("postgres", &[("Dockerfile", POSTGRES), ("start", START)]);
    build_backend();
    for (ours, theirs) in [("robo-test/postgres", "postgres:15"), ("robo-test/builder", "rust:1-bookworm")] {
        docker(&["tag", ours, theirs]);
    }
    let compose = |arguments: &[&str]| {
        let mut command = compose();
        command.args(["--project-name", PROJECT, "--project-directory"]).arg(repository());
        command.arg("--env-file").arg(guide().join("dot-env"));
        command.arg("--file").arg(guide().join("docker-compose.backend.yml")).env("DOCKER_BUILDKIT", "0");
        for name in GUIDE {
            command.env_remove(name);
        }
        succeeds(command.args(arguments))
    };
    let down = || compose(&["down", "--volumes", "--remove-orphans", "--timeout", "20"]);
    down();
    compose(&["up", "--detach", "--build"]);
    let backend = compose(&["ps", "--quiet", "backend"]).trim().to_owned();
    let state = loop {
        let state = docker(&["inspect", "--format", "{{.State.Health.Status}}", &backend]);
        if state != "starting" {
            break state;
        }
    };
    assert_eq!(state, "healthy", "{}", compose(&["logs", "backend"]));
    let page = loop {
        let page = runtime.block_on(Page::of("http://127.0.0.1:8000"));
        let shown = ["robo_docker_host_up", "robo_schedule_interval_seconds"];
        if shown.iter().all(|name| page.names().contains(*name)) {
            break page;
        }
    };
    // The interval of the settings, for the pipeline of the subnet, and the engine behind the mounted socket.
    assert_eq!(page.value("robo_schedule_interval_seconds{pipeline=\"subnet\"}"), Some(3600.0), "{}", page.0);
    assert_eq!(page.value("robo_docker_host_up{host=\"unix:///var/run/docker.sock\"}"), Some(1.0), "{}", page.0);
    let users = docker(&["top", &backend, "-eo", "uid,pid,args"]);
    let uids: Vec<&str> = users.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(!uids.is_empty() && uids.iter().all(|uid| *uid == "10001"), "{users}");
    down();
    for image in ["postgres:15", "rust:1-bookworm"] {
        docker(&["rmi", image]);
    }
}
