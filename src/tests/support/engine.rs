//! A Docker engine as tests need it, with small images whose `robo` does what a test wants.
//!
//! Nothing here is skipped where there is no engine: the tests fail, and say what to do.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::program::Place;

/// The engine that tests use, with more room than any of them needs.
pub(crate) const ENGINE: &str = "unix:///var/run/docker.sock=64";

/// Where the engine's socket is.
pub(crate) const SOCKET: &str = "/var/run/docker.sock";

/// What our images are known by; images of tests say the same.
pub(crate) const DIGEST: &str = "digest-of-a-test";

/// The turn of a test.
pub(crate) struct Turn {
    _guard: MutexGuard<'static, ()>,
}

/// The engine, to be used by one test at a time: what runs on it is counted.
pub(crate) fn engine() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let answers = Command::new("docker").arg("version").output().is_ok_and(|it| it.status.success());
    assert!(
        answers,
        "no Docker engine answers: `scripts/docker-engine up` starts one, `scripts/base-image` makes its image"
    );
    crate::install_tls();
    Turn { _guard: turn }
}

/// What `docker ARGUMENTS` prints; it must succeed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let (worked, said) = try_docker(arguments);
    assert!(worked, "docker {arguments:?}: {said}");
    said.trim().to_owned()
}

/// Whether `docker ARGUMENTS` succeeds, and what it prints.
pub(crate) fn try_docker(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// An image whose `robo env-server` runs `server`, and whose `robo env-server-connect` runs `connect`, both in a shell.
pub(crate) fn image(name: &str, server: &str, connect: &str) -> String {
    let script = format!("#!/bin/sh\ncase $1 in\nenv-server) {server} ;;\nenv-server-connect) {connect} ;;\nesac\n");
    let dockerfile = format!("FROM debian:bookworm-slim\nCOPY robo /opt/robo/bin/robo\nLABEL robo.builds={DIGEST}\n");
    build(name, &[("Dockerfile", &dockerfile), ("robo", &script)])
}

/// An image of these files, one of which is its `Dockerfile`.
pub(crate) fn build(name: &str, files: &[(&str, &str)]) -> String {
    let tag = format!("robo-test/{name}");
    let mut context = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        context.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let mut build = Command::new("docker")
        .args(["build", "--quiet", "--tag", &tag, "-"])
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    build.stdin.take().unwrap().write_all(&context.into_inner().unwrap()).unwrap();
    let output = build.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tag
}

/// A server that lives until its input closes, and answers every request with 200 until there is a file `/tmp/broken`.
pub(crate) fn well() -> String {
    image(
        "well",
        "cat >/dev/null",
        r"[ ! -e /tmp/broken ] || exit 1; read request; printf 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'",
    )
}

/// The real image of MetaWorld, built by the real program: minutes once, seconds from then on.
pub(crate) fn eval_image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    const TAG: &str = "robo-test/eval-env:metaworld";
    BUILT.get_or_init(|| {
        let ran = Place::new().run(&["build-eval-env", "metaworld", "--tag", TAG]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("Step 1/"), "progress is told: {}", ran.stderr);
        assert!(
            ran.stdout.contains(TAG) && ran.stdout.contains("sha256:") && ran.stdout.contains(" MB"),
            "{}",
            ran.stdout
        );
    });
    TAG
}
