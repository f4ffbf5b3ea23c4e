//! Environment servers that run already, at addresses that an operator has named for a family.
//!
//! Nothing is started, owned or ended here, so nothing stands in the ledger: a server is taken for as long as a cycle needs
//! it, asked how it is, and given back. Families for which no server is named run where the others do.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use reqwest::{StatusCode, Url as Location};
use serde::Deserialize;

use super::{Address, Error, Fault, Order, Running, Runtime};
use crate::cycle::InfraFault;

/// How long a server may take to answer `GET /health`.
const HEALTH: Duration = Duration::from_secs(10);

/// How long a server that has failed is asked last.
const REST: Duration = Duration::from_secs(60);

/// A server as an operator writes it: `FAMILY=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// The environment family that it plays.
    pub family: String,
    /// Its address, without a slash at the end.
    pub url: String,
}

impl FromStr for ServerSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (family, url) = text.split_once('=').ok_or_else(|| format!("`{text}` is not FAMILY=URL"))?;
        if format!("{family}/x").parse::<crate::cycle::EnvironmentId>().is_err() {
            return Err(format!("`{family}` is not a family name"));
        }
        let location = Location::parse(url).map_err(|error| format!("`{url}` is not an address: {error}"))?;
        if !matches!(location.scheme(), "http" | "https") || !location.has_host() {
            return Err(format!("`{url}` is not http://HOST:PORT or https://HOST:PORT"));
        }
        if !location.username().is_empty() || location.password().is_some() {
            // The address is not repeated: it would show the password.
            return Err("an address must not hold a user or a password; a token is a secret".to_owned());
        }
        if location.query().is_some() || location.fragment().is_some() {
            return Err(format!("`{url}` must end with its path"));
        }
        Ok(Self { family: family.to_owned(), url: url.trim_end_matches('/').to_owned() })
    }
}

impl ServerSpec {
    /// The name of the secret that holds the token of a family's servers.
    pub fn secret(family: &str) -> String {
        format!("ENV_SERVER_TOKEN_{}", family.to_uppercase().replace('-', "_"))
    }
}

/// All servers of an operator. Shared by the cycles of a process: each is used by one of them at a time.
pub struct Named {
    servers: Vec<ServerSpec>,
    /// By family.
    tokens: HashMap<String, String>,
    taken: Mutex<BTreeSet<String>>,
    /// When servers have failed.
    failed: Mutex<HashMap<String, Instant>>,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Named {
    /// These servers; `tokens` by family.
    pub fn new(servers: Vec<ServerSpec>, tokens: HashMap<String, String>) -> Self {
        Self { servers, tokens, taken: Mutex::default(), failed: Mutex::default() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The servers of a family, those that have failed a moment ago last.
    fn of<'a>(&'a self, family: &str) -> Vec<&'a str> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut servers: Vec<&str> =
            self.servers.iter().filter(|server| server.family == family).map(|server| server.url.as_str()).collect();
        servers.sort_by_key(|url| failed.get(*url).is_some_and(|when| when.elapsed() < REST));
        servers
    }

    /// Take a server, unless somebody else has it.
    fn take(self: &Arc<Self>, url: &str) -> Option<Taken> {
        let is_free = self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned());
        is_free.then(|| Taken { named: Arc::clone(self), url: url.to_owned() })
    }

    fn note_failure(&self, url: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned(), Instant::now());
    }
}

/// A server that nobody else has. Dropping it gives it back.
#[derive(Debug)]
struct Taken {
    named: Arc<Named>,
    url: String,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.named.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.url);
    }
}

/// The runtime of servers that run already.
#[derive(Clone)]
pub struct Url {
    named: Arc<Named>,
    others: Option<Arc<dyn Runtime>>,
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url").field("named", &self.named).finish_non_exhaustive()
    }
}

impl Url {
    /// These servers, and `others` for families that have none among them.
    pub fn new(named: Arc<Named>, others: Option<Arc<dyn Runtime>>) -> Self {
        Self { named, others }
    }

    async fn take_one(&self, order: &Order) -> Result<Box<dyn Running>, Error> {
        let servers = self.named.of(&order.family);
        if servers.is_empty() {
            return match &self.others {
                Some(others) => others.start(order).await,
                None => {
                    Err(Error::Nowhere { family: order.family.clone(), why: "no server is named for it".to_owned() })
                }
            };
        }
        let token = self.named.tokens.get(&order.family).cloned().unwrap_or_default();
        let mut problem = None;
        for url in servers {
            let Some(taken) = self.named.take(url) else { continue };
            let address =
                Address { url: url.to_owned(), token: token.clone(), description: format!("the server at {url}") };
            let server = Server { address, wanted: wanted(order), taken };
            match server.ask().await {
                Ok(()) => return Ok(Box::new(server)),
                Err(fault) => {
                    self.named.note_failure(url);
                    tracing::warn!(family = order.family, "no environment server: {fault}");
                    problem.get_or_insert(fault);
                }
            }
        }
        Err(problem.unwrap_or_else(|| no_server(&order.family)).into())
    }
}

/// The digest that a server must say it is made of; others' servers say none.
fn wanted(order: &Order) -> Option<String> {
    (!order.server.is_foreign()).then(|| order.server.build_digest.clone())
}

fn no_server(family: &str) -> Box<Fault> {
    let problem =
        format!("every server that is named for `{family}` plays for another cycle or family of this program");
    let remedy = "wait until that has ended, or name another one with --env-server FAMILY=URL";
    Box::new(Fault::new(InfraFault::NoCapacity, problem).remedy(remedy))
}

impl Runtime for Url {
    fn start<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Box<dyn Running>, Error>> {
        Box::pin(self.take_one(order))
    }

    fn room<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, usize> {
        Box::pin(async {
            match (self.named.of(&order.family).len(), &self.others) {
                (0, Some(others)) => others.room(order).await,
                (servers, _) => servers,
            }
        })
    }
}

/// A server that was taken.
struct Server {
    address: Address,
    wanted: Option<String>,
    /// Given back when this is dropped.
    taken: Taken,
}

impl Server {
    /// How it is, and whether it is made of what the cycle is pinned to.
    async fn ask(&self) -> Result<(), Box<Fault>> {
        let url = &self.address.url;
        let fault = |reason, problem: &str| Box::new(Fault::new(reason, format!("{url} {problem}")));
        let client =
            client().map_err(|error| fault(InfraFault::HostUnreachable, &format!("cannot be asked: {error}")))?;
        let mut request = client.get(format!("{url}/health"));
        if !self.address.token.is_empty() {
            request = request.bearer_auth(&self.address.token);
        }
        let answer = request.send().await.map_err(|error| {
            let problem = format!("does not answer: {}", told(&error));
            let remedy = "start it, and see that it can be reached from here; a certificate must be one that this machine trusts";
            Box::new(fault(InfraFault::HostUnreachable, &problem).remedy(remedy))
        })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let problem = format!("refuses the token ({})", answer.status());
                let remedy = "set the secret ROBO_SECRET_ENV_SERVER_TOKEN_<FAMILY> to the token that the server was started with";
                return Err(Box::new(fault(InfraFault::Unhealthy, &problem).remedy(remedy)));
            }
            status => return Err(fault(InfraFault::Unhealthy, &format!("answers {status} to `GET /health`"))),
        }
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let body = answer.bytes().await.unwrap_or_default();
        self.is_made_of(wanted, &body)
    }

    fn is_made_of(&self, wanted: &str, body: &[u8]) -> Result<(), Box<Fault>> {
        #[derive(Deserialize, Default)]
        struct Health {
            digest: Option<String>,
        }
        let told: Health = serde_json::from_slice(body).unwrap_or_default();
        let problem = match &told.digest {
            Some(digest) if digest == wanted => return Ok(()),
            Some(digest) => {
                format!("simulates with other sources ({digest:.12}) than the cycle is pinned to ({wanted:.12})")
            }
            None => "does not say what it simulates with".to_owned(),
        };
        let remedy = "start it again from the sources and the lock that are here: \
                      robo env-server --package eval-env --requirements LOCK --python PYTHON";
        Err(Box::new(Fault::new(InfraFault::Unhealthy, format!("{} {problem}", self.address.url)).remedy(remedy)))
    }

    /// A loopback address is another machine's to a server elsewhere.
    fn check_miner(&self, endpoint: &str) -> Result<(), Error> {
        if is_loopback(&self.address.url) || !is_loopback(endpoint) {
            return Ok(());
        }
        let problem = format!(
            "the miner at {endpoint} listens on the loopback address of this machine, which {} does not reach",
            self.address.url
        );
        let remedy = "give the miner an address that the server's machine can reach";
        Err(Box::new(Fault::new(InfraFault::HostUnreachable, problem).remedy(remedy)).into())
    }
}

/// The way to a server: no proxy, no redirects, certificates verified.
fn client() -> reqwest::Result<reqwest::Client> {
    let builder = || reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(HEALTH);
    // A machine without CA certificates still reaches servers that speak plain HTTP.
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}

/// What is at the bottom of an error.
fn told(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("nothing came within {} seconds", HEALTH.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn is_loopback(url: &str) -> bool {
    let Ok(location) = Location::parse(url) else { return false };
    let Some(host) = location.host_str() else { return false };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

impl Running for Server {
    fn address(&self) -> &Address {
        &self.address
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.ask().await.map_err(|fault| {
                self.taken.named.note_failure(&self.address.url);
                fault.into()
            })
        })
    }

    fn reach<'a>(&'a mut self, miners: &'a [String]) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        Box::pin(async {
            miners.iter().try_for_each(|miner| self.check_miner(miner))?;
            Ok(miners.to_vec())
        })
    }

    fn can_be_recycled(&self) -> bool {
        false
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        // It runs on: it is not ours.
        Box::pin(async move { drop(self) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<(String, String), String> {
        text.parse::<ServerSpec>().map(|spec| (spec.family, spec.url))
    }

    #[test]
    fn a_server_is_written_with_its_family() {
        assert_eq!(spec("legacy=http://gpu-1:8000/"), Ok(("legacy".into(), "http://gpu-1:8000".into())));
        assert_eq!(spec("a-b=https://x/y?").unwrap_err(), "`https://x/y?` must end with its path");
        for bad in ["http://gpu-1:8000", "=http://a", "A B=http://a", "a=ftp://b", "a=gpu-1:8000", "a=http://b/#c", ""]
        {
            assert!(spec(bad).is_err(), "{bad}");
        }
        let refused = spec("a=http://robo:hunter2@b").unwrap_err();
        assert!(refused.contains("secret") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn each_family_has_its_secret() {
        assert_eq!(ServerSpec::secret("dm-control_x"), "ENV_SERVER_TOKEN_DM_CONTROL_X");
    }

    #[test]
    fn one_that_has_failed_is_asked_last_for_a_while() {
        let servers = ["f=http://a", "f=http://b", "g=http://c"].map(|text| text.parse().unwrap());
        let named = Named::new(servers.into(), HashMap::new());
        assert_eq!(named.of("f"), ["http://a", "http://b"]);
        named.note_failure("http://a");
        assert_eq!(named.of("f"), ["http://b", "http://a"]);
        let before = Instant::now().checked_sub(REST).unwrap();
        named.failed.lock().unwrap().insert("http://a".into(), before);
        assert_eq!(named.of("f"), ["http://a", "http://b"]);
    }

    #[test]
    fn a_server_is_taken_once_until_it_is_given_back() {
        let named = Arc::new(Named::new(vec!["f=http://a".parse().unwrap()], HashMap::new()));
        let taken = named.take("http://a").unwrap();
        assert!(named.take("http://a").is_none());
        drop(taken);
        assert!(named.take("http://a").is_some());
    }

    #[test]
    fn loopback_is_told_from_other_addresses() {
        for here in ["http://127.0.0.1:1", "http://localhost/x", "http://[::1]:80"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["http://10.0.0.1", "https://miner.example", "nonsense"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
