//! A cycle as the engine writes it down, step by step, with everything that can be read of one: a discovery that leaves somebody
//! out, two miners in two environments, sightings, faults of miners, a whole scores document.

use robo::{
    cycle::{
        CycleId, CycleStatus, Discovery, Entry, EnvironmentId, Episode, EpisodeKey, EpisodeReport, FailureClass,
        Hotkey, Journal, LatencySummary, Lease, MinerFault, MinerStatus, Outcome, Pin, Publication, PublishGuard, Salt,
        Seen, Sighting, Standing, TaskEvent, TaskFailure, TaskKey,
    },
    scoring::{MinerRow, Rule, SubsetWeighting, Table, Ties, pareto},
    stage::documents::{ScoreEntry, ScoresDocument},
    store::{NewCycle, Store},
};
use serde_json::json;

use super::episodes::report;

pub(crate) const ENVIRONMENTS: [&str; 2] = ["m/a", "m/b"];
/// An address that no answer to the public may hold.
pub(crate) const ADDRESS: &str = "http://203.0.113.7:9000";
/// What miners say their model is.
pub(crate) const MODEL: &str = "<img src=x onerror=alert(1)>";
const SEEDS: u32 = 4;

pub(crate) fn pin() -> Pin {
    Pin { genesis: "0x00".into(), netuid: 1, block: 70, hash: "0x70".into() }
}

fn task(stage: &str, cell: &str) -> TaskKey {
    TaskKey { stage: stage.parse().unwrap(), cell: cell.into() }
}

fn hotkey(name: &str) -> Hotkey {
    name.parse().unwrap()
}

/// A cycle that is being written.
pub(crate) struct Story {
    store: Store,
    pub(crate) cycle: CycleId,
    lease: Lease,
    salt: Salt,
}

impl Story {
    /// A cycle whose discovery has ended: Ann and Bob take part, Cid has committed nonsense.
    pub(crate) async fn begin(store: &Store, pipeline: &str) -> Self {
        let salt = Salt::random();
        let new = NewCycle {
            pipeline: pipeline.into(),
            definition: json!({ "stages": [
                { "id": "discover", "uses": "chain/miners" }, { "id": "episodes", "uses": "episodes/run" },
                { "id": "publish", "uses": "weights/publish" },
            ] }),
            definition_hash: "00".repeat(32),
            root: "/".into(),
            salt: salt.clone(),
            pin: Some(pin()),
            tasks: vec![task("discover", ""), task("episodes", "m/a"), task("episodes", "m/b"), task("publish", "")],
        };
        let cycle = store.create_cycle(&new).await.unwrap();
        let lease = store.acquire(cycle).await.unwrap();
        let story = Self { store: store.clone(), cycle, lease, salt };
        let failure = TaskFailure { class: FailureClass::Infra, message: format!("no answer from {ADDRESS}") };
        story.write(Entry::new(task("discover", ""), 1, TaskEvent::Started)).await;
        story.write(Entry::new(task("discover", ""), 1, TaskEvent::Retried { failure })).await;
        story.write(Entry::new(task("discover", ""), 2, TaskEvent::Started)).await;
        let output = json!({
            "count": 2,
            "miners": [{ "uid": 1, "hotkey": "ann", "endpoint": ADDRESS, "first_block": 5 },
                       { "uid": 2, "hotkey": "bob", "endpoint": "sealed:c2VjcmV0", "first_block": 6 }],
            "left_out": [{ "uid": 3, "hotkey": "cid", "status": "malformed", "detail": format!("not JSON: {ADDRESS}") },
                         { "uid": null, "hotkey": "dan", "status": "unregistered" }],
        });
        let standing = |first_block, model: &str| Standing {
            first_block,
            registered_at: Some(4),
            model: model.into(),
            endpoint: "00".repeat(32),
        };
        let standings = [(hotkey("ann"), standing(5, "u/ann@1")), (hotkey("bob"), standing(6, "u/bob@2"))];
        let discovery = Discovery { pin: pin(), standings: standings.into() };
        let done = Entry::new(task("discover", ""), 2, TaskEvent::Succeeded { output });
        story.write(Entry { discovery: Some(discovery), ..done }).await;
        story
    }

    pub(crate) async fn write(&self, entry: Entry) {
        let _ = self.store.append(&self.lease, &entry).await.unwrap();
    }

    /// Begin or end the playing in an environment.
    pub(crate) async fn episodes(&self, environment: &str, event: TaskEvent) {
        self.write(Entry::new(task("episodes", environment), 1, event)).await;
    }

    /// Ann succeeds always, Bob in half of the cases and once not at all.
    pub(crate) async fn play(&self) {
        for environment in ENVIRONMENTS {
            self.episodes(environment, TaskEvent::Started).await;
            let id: EnvironmentId = environment.parse().unwrap();
            let key = |seed_index, name| EpisodeKey { environment: id.clone(), seed_index, hotkey: hotkey(name) };
            let keys: Vec<EpisodeKey> = (0..SEEDS).flat_map(|seed| [key(seed, "ann"), key(seed, "bob")]).collect();
            self.store.plan_episodes(&self.lease, &task("episodes", environment), &keys).await.unwrap();
            for name in ["ann", "bob"] {
                let address = Some("203.0.113.7".into());
                let seen = Seen { address, model: Some(MODEL.into()), ..Seen::new(MinerStatus::Active) };
                let sighting = Sighting { environment: id.clone(), hotkey: hotkey(name), seen };
                self.store.record_sighting(&self.lease, &sighting).await.unwrap();
            }
            for key in keys {
                let _ = self.store.record_episode(&self.lease, &episode(key)).await.unwrap();
            }
            self.episodes(environment, TaskEvent::Succeeded { output: json!({ "secret": ADDRESS }) }).await;
        }
    }

    /// Publish, and complete the cycle.
    pub(crate) async fn publish(&self) {
        let scores = scores(&self.salt);
        let weights = json!({
            "pin": pin(),
            "entries": [{ "uid": 1, "hotkey": "ann", "weight": 0.75, "weight_u16": 49151 },
                        { "uid": 2, "hotkey": "bob", "weight": 0.25, "weight_u16": 16383 }],
            "weights": { "1": 0.75, "2": 0.25 }, "weights_u16": { "uids": [1, 2], "values": [49151, 16383] },
        });
        let publication = Publication {
            scores: json!(scores).to_string(),
            weights: weights.to_string(),
            digest: robo::evidence::digest(&weights),
            guard: PublishGuard::default(),
        };
        self.write(Entry::new(task("publish", ""), 1, TaskEvent::Started)).await;
        let done = Entry::new(task("publish", ""), 1, TaskEvent::Succeeded { output: json!({}) });
        self.write(Entry { publication: Some(publication), ..done }).await;
        self.end(CycleStatus::Completed).await;
    }

    pub(crate) async fn end(&self, status: CycleStatus) {
        let reason = (status == CycleStatus::Failed).then(|| format!("nobody at {ADDRESS}"));
        self.store.finish(&self.lease, status, reason.as_deref()).await.unwrap();
    }
}

/// A whole cycle.
pub(crate) async fn told(store: &Store, pipeline: &str) -> CycleId {
    let story = Story::begin(store, pipeline).await;
    story.play().await;
    story.publish().await;
    story.cycle
}

fn episode(key: EpisodeKey) -> Episode {
    let is_first = key.seed_index == 0 && key.environment.as_str() == "m/a";
    let outcome = match key.hotkey.as_str() {
        "bob" if is_first => Outcome::MinerFault(MinerFault::ActionTimeout),
        "bob" if key.seed_index.is_multiple_of(2) => Outcome::Failure,
        _ => Outcome::Success,
    };
    let milliseconds = f64::from(key.seed_index + 1);
    let latency = LatencySummary { p50_ms: milliseconds, p95_ms: 10.0 * milliseconds, max_ms: 100.0 * milliseconds };
    let detail = (outcome.reason().is_some()).then(|| format!("no answer from {ADDRESS}"));
    Episode { key, attempt: 1, report: EpisodeReport { detail, latency: Some(latency), ..report(outcome) } }
}

fn scores(salt: &Salt) -> ScoresDocument {
    let entry = |uid: u16, name: &str, environment: &str, rate: f64, outcomes: &[(&str, u32)]| ScoreEntry {
        uid,
        hotkey: hotkey(name),
        first_block: Some(u64::from(uid) + 4),
        environment: environment.parse().unwrap(),
        success_rate: rate,
        interval: [rate * 0.5, 0.5 + rate * 0.5],
        mean_return: 0.0,
        mean_score: None,
        episodes: SEEDS,
        successes: (rate * f64::from(SEEDS)) as u32,
        outcomes: outcomes.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
    };
    let whole = [("success", 4)];
    let first = [("success", 2), ("failure", 1), ("miner_fault(action_timeout)", 1)];
    let entries = vec![
        entry(1, "ann", "m/a", 1.0, &whole),
        entry(1, "ann", "m/b", 1.0, &whole),
        entry(2, "bob", "m/a", 0.5, &first),
        entry(2, "bob", "m/b", 0.5, &[("success", 2), ("failure", 2)]),
    ];
    let environments: Vec<EnvironmentId> = ENVIRONMENTS.iter().map(|id| id.parse().unwrap()).collect();
    let row = |uid: u16, rate| MinerRow { uid, first_block: Some(u64::from(uid) + 4), rates: vec![rate; 2] };
    let names = environments.iter().map(ToString::to_string).collect();
    let table = Table::new(names, vec![SEEDS; 2], vec![row(1, 1.0), row(2, 0.5)]).unwrap();
    let found = pareto(&table, Rule::Epsilon, Ties::default(), SubsetWeighting::Size).unwrap();
    ScoresDocument {
        pin: Some(pin()),
        definition_hash: "00".repeat(32),
        salt: salt.clone(),
        environments,
        entries,
        rule: Rule::Epsilon,
        ties: Some(Ties::default()),
        subset_weighting: SubsetWeighting::Size,
        epsilons: found.epsilons,
        thresholds: found.thresholds,
        pareto_frontier: found.frontier,
        winner: found.winner,
        subset_scores: found.points,
    }
}
