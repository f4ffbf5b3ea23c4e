//! One Docker engine: the connection to it, and what its errors mean to us.

use std::{sync::Arc, time::Duration};

use bollard::{Docker, errors::Error as Refusal};
use tokio::{sync::OnceCell, time::timeout};

use crate::cycle::{InfraFault, with_causes};
use crate::host::Identity;
use crate::runtime::{Error, Fault};

/// How long an engine may take to say who it is: one behind SSH needs a few seconds.
const GREETING: Duration = Duration::from_secs(15);

/// How long it may take to begin an answer after that.
const ANSWER: Duration = Duration::from_secs(45);

/// A Docker engine by its address. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    url: Arc<str>,
    client: Arc<OnceCell<Docker>>,
}

impl Engine {
    /// The engine at `unix://`, `tcp://`, `https://` or `ssh://`; nothing is sent yet.
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.into(), client: Arc::default() }
    }

    /// Its address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whose ledger rows are about it: this machine's for a socket, its own address for one behind a network.
    pub(super) fn place(&self) -> String {
        if self.url.starts_with("unix://") {
            Identity::current().map(|here| here.hostname().to_owned()).unwrap_or_default()
        } else {
            self.url.to_string()
        }
    }

    /// The connection, made when it is first wanted.
    pub(super) async fn client(&self) -> Result<&Docker, Error> {
        self.client
            .get_or_try_init(|| async {
                let client = Docker::connect_with_host(&self.url).map_err(|error| self.unreachable(&error))?;
                let client = client.with_timeout(ANSWER);
                match timeout(GREETING, client.negotiate_version()).await {
                    Err(_) => Err(self.silent().into()),
                    Ok(Err(error)) => Err(self.unreachable(&error)),
                    Ok(Ok(client)) => Ok(client),
                }
            })
            .await
    }

    /// Whether it answers now.
    pub(super) async fn answers(&self) -> bool {
        let asked = async { self.client().await.ok()?.ping().await.ok() };
        timeout(GREETING, asked).await.is_ok_and(|answer| answer.is_some())
    }

    /// Its address without the name of a user.
    pub(super) fn label(&self) -> String {
        match self.url.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest)),
            None => self.url.to_string(),
        }
    }

    /// What a refusal means to whoever wanted `doing` done.
    pub(super) fn fault(&self, doing: &str, refusal: &Refusal) -> Error {
        let text = chain(refusal);
        let problem = format!("{doing} on {}: {text}", self.url);
        let fault = if text.contains("no space left on device") {
            Fault::new(InfraFault::DiskFull, problem)
                .remedy(format!("make room on the disk of {}, as with `docker system prune`", self.url))
        } else if text.contains("could not find an available") {
            Fault::new(InfraFault::NoCapacity, problem).remedy(
                "every address range for networks is taken: remove old ones with `docker network prune`, or give the \
                 engine more `default-address-pools`",
            )
        } else if text.contains("could not select device driver") {
            Fault::new(InfraFault::NoCapacity, problem)
                .remedy("the manifest asks for `gpus`, and this engine has none to give (nvidia-container-toolkit)")
        } else if is_of_the_network(refusal) {
            return self.unreachable(refusal);
        } else {
            Fault::new(InfraFault::ServerLost, problem)
        };
        Box::new(fault).into()
    }

    fn unreachable(&self, refusal: &Refusal) -> Error {
        let problem = format!("the Docker engine at {} does not answer: {}", self.url, chain(refusal));
        Box::new(Fault::new(InfraFault::HostUnreachable, problem).remedy(self.how_to_reach())).into()
    }

    fn silent(&self) -> Box<Fault> {
        let problem = format!("the Docker engine at {} said nothing for {} seconds", self.url, GREETING.as_secs());
        Box::new(Fault::new(InfraFault::HostUnreachable, problem).remedy(self.how_to_reach()))
    }

    fn how_to_reach(&self) -> String {
        match self.url.split("://").next().unwrap_or_default() {
            "unix" => "start it, and see that this user may open its socket (group `docker`); or choose another with \
                       --docker-host"
                .into(),
            "ssh" => format!("see that `ssh {} docker version` works without a question", &self.url["ssh://".len()..]),
            _ => {
                "see that it listens there, and that DOCKER_TLS_VERIFY and DOCKER_CERT_PATH fit its certificates".into()
            }
        }
    }
}

/// Whether nothing answered, in contrast to an answer that says no.
fn is_of_the_network(refusal: &Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::DockerResponseServerError { .. }
            | Refusal::DockerContainerWaitError { .. }
            | Refusal::DockerStreamError { .. }
            | Refusal::JsonDataError { .. }
            | Refusal::JsonSerdeError { .. }
    )
}

/// Whether the engine has no such thing.
pub(super) fn is_not_found(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::DockerResponseServerError { status_code: 404, .. })
}

fn chain(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    with_causes(text, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(refusal: Refusal) -> InfraFault {
        Engine::new("unix:///nowhere").fault("starting", &refusal).reason()
    }

    fn said(message: &str) -> Refusal {
        Refusal::DockerResponseServerError { status_code: 500, message: message.into() }
    }

    #[test]
    fn refusals_are_told_apart() {
        assert_eq!(reason(said("mkdir /x: no space left on device")), InfraFault::DiskFull);
        assert_eq!(
            reason(said("could not find an available, non-overlapping IPv4 address pool")),
            InfraFault::NoCapacity
        );
        assert_eq!(
            reason(said("could not select device driver \"\" with capabilities: [[gpu]]")),
            InfraFault::NoCapacity
        );
        assert_eq!(reason(said("something else")), InfraFault::ServerLost);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(reason(Refusal::IOError { err: refused }), InfraFault::HostUnreachable);
        assert_eq!(reason(Refusal::RequestTimeoutError), InfraFault::HostUnreachable);
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_said_to_be_unreachable_with_a_remedy() {
        let error = Engine::new("unix:///nowhere.sock").client().await.unwrap_err();
        assert_eq!(error.reason(), InfraFault::HostUnreachable);
        let text = error.explain();
        assert!(text.contains("unix:///nowhere.sock") && text.contains("--docker-host"), "{text}");
    }
}
