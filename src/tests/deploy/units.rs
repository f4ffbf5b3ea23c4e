//! The units of systemd and the file of nginx, read by systemd and nginx themselves.

use std::{
    convert::Infallible,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use reqwest::{Certificate, Client, StatusCode, redirect::Policy};
use tokio::{net::TcpListener, sync::Notify};

use super::{read, succeeds, tool};
use crate::support::{
    database::{TestDatabase, Version},
    ports,
    served::Served,
    story::Story,
};

#[test]
fn the_units_are_right_and_well_shut_off() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["robo-backend.service", "robo-validator.service"] {
        let unit = read(&format!("deploy/systemd/{name}"));
        assert!(unit.contains("ExecStart=/usr/local/bin/robo "), "{unit}");
        let path = folder.path().join(name);
        fs::write(&path, unit.replace("/usr/local/bin/robo", env!("CARGO_BIN_EXE_robo"))).unwrap();
        let said = succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        assert!(!said.contains(name), "systemd has something to say:\n{said}");
        // 2.0 of 10, where 10 is a service that may do everything.
        succeeds(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&path));
    }
}

/// What the upstream of nginx does between its two events: wait until the first has arrived.
#[derive(Clone, Default)]
struct Upstream(Arc<Notify>);

async fn events(State(upstream): State<Upstream>, headers: HeaderMap) -> Response {
    let from = headers["x-forwarded-for"].to_str().unwrap().to_owned();
    let scheme = headers["x-forwarded-proto"].to_str().unwrap().to_owned();
    let first = async move { Ok::<_, Infallible>(Bytes::from(format!("data: {from} {scheme}\n\n"))) };
    let second = async move {
        upstream.0.notified().await;
        Ok(Bytes::from_static(b"data: second\n\n"))
    };
    let body = Body::from_stream(futures::stream::once(first).chain(futures::stream::once(second)));
    ([("content-type", "text/event-stream")], body).into_response()
}

/// nginx with our file, for as long as this lives.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Our file for other ports and paths, in a prefix of its own.
fn configure(prefix: &Path, (upstream, plain, tls): (u16, u16, u16)) {
    let key = rcgen::generate_simple_self_signed(["robo.example".to_owned()]).unwrap();
    fs::write(prefix.join("cert.pem"), key.cert.pem()).unwrap();
    fs::write(prefix.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let mut file = read("deploy/nginx/robo.conf");
    let here = prefix.to_str().unwrap();
    for (from, to) in [
        ("server 127.0.0.1:8000;", format!("server 127.0.0.1:{upstream};")),
        ("listen 80;", format!("listen 127.0.0.1:{plain};")),
        ("listen 443 ssl http2;", format!("listen 127.0.0.1:{tls} ssl http2;")),
        ("/etc/letsencrypt/live/robo.example/fullchain.pem", format!("{here}/cert.pem")),
        ("/etc/letsencrypt/live/robo.example/privkey.pem", format!("{here}/key.pem")),
    ] {
        assert!(file.contains(from), "{from}");
        file = file.replace(from, &to);
    }
    fs::write(prefix.join("robo.conf"), file).unwrap();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {here}/{kind};\n"))
        .concat();
    let main = format!(
        "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n    access_log off;\n\
         {places}    include {here}/robo.conf;\n}}\n"
    );
    fs::write(prefix.join("nginx.conf"), main).unwrap();
}

/// nginx in front of what listens at a port, and a client that trusts its certificate.
struct Proxied {
    nginx: Nginx,
    client: Client,
    url: String,
    plain: u16,
    _folder: tempfile::TempDir,
}

impl Proxied {
    async fn of(port: u16) -> Self {
        crate::install_tls();
        let (folder, plain, tls) = (tempfile::tempdir().unwrap(), ports::free(), ports::free());
        configure(folder.path(), (port, plain, tls));
        let nginx = || {
            let mut nginx = Command::new(tool("nginx"));
            nginx.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
            nginx
        };
        succeeds(nginx().arg("-t"));
        let running = nginx().stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let authority = Certificate::from_pem(&fs::read(folder.path().join("cert.pem")).unwrap()).unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([authority]).redirect(Policy::none());
        let client = client.resolve("robo.example", ([127, 0, 0, 1], 0).into()).build().unwrap();
        let url = format!("https://robo.example:{tls}");
        Self { nginx: Nginx(running), client, url, plain, _folder: folder }
    }

    /// Ask until nginx is there to answer.
    async fn get(&mut self, path: &str) -> reqwest::Response {
        loop {
            assert!(self.nginx.0.try_wait().unwrap().is_none(), "nginx has ended");
            if let Ok(answer) = self.client.get(format!("{}{path}", self.url)).send().await {
                return answer;
            }
        }
    }
}

#[tokio::test]
async fn nginx_takes_the_file_and_passes_events_on_as_they_come() {
    let upstream = Upstream::default();
    let router = Router::new()
        .route("/v1/cycles/{cycle}/events", get(events))
        .route("/metrics", get(async || "robo_build_info 1"))
        .with_state(upstream.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut proxied = Proxied::of(port).await;
    let mut answer = proxied.get("/v1/cycles/one/events").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert!(answer.headers().contains_key("strict-transport-security"));
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: 127.0.0.1 https\n\n", "before there is a second one");
    upstream.0.notify_one();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: second\n\n");
    assert_eq!(proxied.get("/metrics").await.status(), StatusCode::OK, "from here");
    let plain = format!("http://robo.example:{}/v1/status", proxied.plain);
    let redirected = proxied.client.get(plain).send().await.unwrap();
    assert_eq!(redirected.headers()["location"], "https://robo.example/v1/status");
}

#[tokio::test]
async fn the_journal_of_a_cycle_is_followed_through_nginx_while_it_is_written() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let story = Story::begin(&store, "test").await;
    let mut proxied = Proxied::of(served.url.rsplit(':').next().unwrap().parse().unwrap()).await;
    let mut answer = proxied.get(&format!("/v1/cycles/{}/events", story.cycle)).await;
    let mut said = String::new();
    let mut until = async |words: &str| {
        while !said.contains(words) {
            let chunk = answer.chunk().await.unwrap().expect("the stream goes on");
            said.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    // The cycle goes on only when this has come through.
    until("\"succeeded\"").await;
    story.play().await;
    story.publish().await;
    until("event: end").await;
}
