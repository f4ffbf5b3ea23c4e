//! An engine on another machine, as its operator guards it: behind TLS, for callers that it knows by their certificates, or
//! behind SSH, for those whose keys it has.

use std::{
    env, fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::{Child, Command},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::cycles::{SALT, calm, contained, of_cycle, published};
use crate::support::{
    engine::{SOCKET, engine},
    ports,
    program::{Place, pipeline, turn, workspace},
};

/// Who vouches for the engine and for its callers.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    text: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let signed = params.self_signed(&key).unwrap();
        let (certificate, text) = (signed.der().clone(), signed.pem());
        Self { issuer: Issuer::new(params, key), certificate, text }
    }

    fn vouch(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The files of a caller, as `DOCKER_CERT_PATH` names them, who trusts `trusted`.
    fn caller(&self, trusted: &Self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let (certificate, key) = self.vouch("caller");
        write("cert.pem", &certificate.pem());
        write("key.pem", &key.serialize_pem());
        write("ca.pem", &trusted.text);
        folder
    }
}

/// The real engine behind TLS, for as long as this lives.
async fn guarded(authority: &Authority) -> (String, JoinSet<()>) {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let (certificate, key) = authority.vouch("localhost");
    let config = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("tcp://localhost:{}", listener.local_addr().unwrap().port());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut joined = JoinSet::new();
        while let Ok((from, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            joined.spawn(async move {
                let Ok(mut from) = acceptor.accept(from).await else { return };
                let mut to = UnixStream::connect(SOCKET).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (url, serving)
}

/// What a cycle says on that host, whose image nobody has made: whoever says so has spoken to the engine.
fn cycle_on(host: &str, variables: &[(&str, &str)]) -> String {
    let folder = workspace(|text| text.replace("defaults:\n", "defaults:\n  retry: { max_attempts: 1 }\n"));
    let place = Place::new();
    let manifest = folder.path().join("environments/metaworld.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("robo-subnet/eval-env:v1", "robo-test/nobody-made-this")).unwrap();
    let mut robo = place.robo(&["run-pipeline", &pipeline(&folder), "--runtime", "docker", "--docker-host", host]);
    let output = robo.envs(variables.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_engine_behind_tls_is_reached_by_who_has_the_papers() {
    let (_turn, _engine) = (turn(), engine());
    let (ours, theirs) = (Authority::new(), Authority::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (host, _serving) = runtime.block_on(guarded(&ours));
    for (papers, words) in [
        (ours.caller(&ours), "infra_fault(image_missing)"),
        (ours.caller(&theirs), "infra_fault(host_unreachable)"),
        (theirs.caller(&ours), "infra_fault(host_unreachable)"),
    ] {
        let papers = papers.path().to_str().unwrap();
        let said = cycle_on(&host, &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", papers)]);
        assert!(said.contains(words), "{words}: {said}");
        assert!(words.contains("image") || said.contains("DOCKER_CERT_PATH"), "the remedy: {said}");
    }
}

/// A real SSH server for who has our key, and an `ssh` that knows it as `engine`.
struct Secured {
    folder: TempDir,
    daemon: Child,
}

impl Secured {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, path) = (ports::free(), folder.path().display());
        for key in ["host", "known", "stranger"] {
            let file = folder.path().join(key);
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
            assert!(made.expect("the package openssh-client is there").success());
        }
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        let program = env::var("PATH").unwrap();
        write(
            "sshd",
            format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey {path}/host\nAuthorizedKeysFile {path}/known.pub\nPidFile none\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv PATH={program}\n"
            ),
        );
        for key in ["known", "stranger"] {
            let bin = folder.path().join(format!("as-{key}"));
            fs::create_dir(&bin).unwrap();
            let config = format!(
                "Host engine\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {path}/{key}\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile {path}/hosts\n"
            );
            write(&format!("as-{key}/config"), config);
            write(&format!("as-{key}/ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F {path}/as-{key}/config \"$@\"\n"));
            fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        // It wants to be called by its whole path.
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-f"]).arg(folder.path().join("sshd")).arg("-E").arg(folder.path().join("log"));
        let daemon = command.spawn();
        let mut daemon = daemon.expect("the package openssh-server is there");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = daemon.try_wait().unwrap();
            let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "the SSH server has ended; as root it needs /run/sshd: {}", log());
        }
        Self { folder, daemon }
    }

    /// The PATH of a caller with this key.
    fn path(&self, key: &str) -> String {
        format!("{}/as-{key}:{}", self.folder.path().display(), env::var("PATH").unwrap())
    }

    /// The callers that still run.
    fn callers(&self) -> String {
        let which = format!("{}/as-", self.folder.path().display());
        let found = Command::new("pgrep").args(["--list-full", "--full"]).arg(which).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn an_engine_behind_ssh_gives_the_same_bytes_to_who_has_the_key_and_nothing_to_others() {
    let (_turn, _engine) = (turn(), engine());
    let ssh = Secured::start();
    let said = cycle_on("ssh://engine", &[("PATH", &ssh.path("stranger"))]);
    assert!(said.contains("infra_fault(host_unreachable)"), "{said}");
    assert!(said.contains("see that `ssh engine docker version` works without a question"), "{said}");

    let folder = contained();
    let file = pipeline(&folder);
    let arguments = ["run-pipeline", &file, "-i", "episodes_per_env=3", "--salt", SALT];
    let calm = calm(&arguments);
    let place = Place::new();
    let mut robo = place.robo(&[&arguments[..], &["--runtime", "docker", "--docker-host", "ssh://engine=2"]].concat());
    let output = robo.env("PATH", ssh.path("known")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(published(&place), *calm);
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json"])["id"].as_str().unwrap().to_owned();
    assert_eq!(of_cycle(&cycle, &["ps", "--all"]), Vec::<String>::new());
    assert_eq!(ssh.callers(), "", "no connection outlives the program");
}
