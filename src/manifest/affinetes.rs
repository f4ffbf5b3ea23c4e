//! Manifests of servers that others have made (`protocol: affinetes`): what they may say, what they may not promise, and how
//! an episode is asked for.
//!
//! Such a server makes, shows and judges by itself. What a manifest says about that would be a promise that nobody keeps, so
//! it is refused.

use serde_json::{Map, Value};

use super::environment as wire;
use super::family::Check;
use super::simulation::{Adapter, Affinetes, Argument, Determinism, Score, ScoreSource, Simulator};

/// How long the servers wait for a miner's answer to `/reset`; nobody can tell them otherwise.
pub(super) const RESET_TIMEOUT_MS: u64 = 5_000;

/// What is left for the simulator itself where a manifest names no time-out.
const SIMULATION_MS: u64 = 60_000;

/// Arguments that no manifest sets, also where the call leaves them out: they choose the scene and the miner.
const NEVER: [Argument; 4] = [Argument::TaskId, Argument::Seed, Argument::Model, Argument::BaseUrl];

/// Names of the arguments that robo gives, or that nobody may give.
fn robos(call: &wire::Affinetes) -> impl Iterator<Item = &'static str> + '_ {
    let is_sent = |argument: &Argument| call.call.send.as_ref().is_none_or(|sent| sent.contains(argument));
    Argument::ALL.into_iter().filter(move |it| is_sent(it) || NEVER.contains(it)).map(Argument::name)
}

/// What an episode is worth where a manifest says nothing: what the server says it is.
pub(super) const SCORE: Score = Score { from: ScoreSource::Score, min: 0.0, max: 1.0 };

/// A family's way to simulate, before its tasks' own settings.
pub(super) enum Way<'a> {
    /// By workers of ours, from this build.
    Gymnasium(Box<Adapter>, &'a wire::Build),
    /// By a server of others.
    Affinetes(&'a wire::Affinetes),
}

impl Check<'_> {
    /// Who simulates the family: what the protocol asks for is there, and nothing else is.
    pub(super) fn way<'a>(&mut self, manifest: &'a wire::Environment) -> Option<Way<'a>> {
        match manifest.server.protocol {
            wire::Protocol::RoboV1 => self.ours(manifest),
            wire::Protocol::Affinetes => self.theirs(manifest),
        }
    }

    fn ours<'a>(&mut self, manifest: &'a wire::Environment) -> Option<Way<'a>> {
        let adapter = &manifest.adapter;
        if adapter.affinetes.is_some() {
            self.refuse_with(
                &["adapter", "affinetes"],
                "`adapter.affinetes` needs `server.protocol: affinetes`",
                "write `server: { protocol: affinetes }`",
            );
            return None;
        }
        if adapter.score.is_some_and(|score| score.from == ScoreSource::Score) {
            let message = "`from: score` is what servers with `protocol: affinetes` report; there is none here";
            self.refuse_with(&["adapter", "score", "from"], message, "write `from: return`");
        }
        let missing = [
            ("gymnasium", adapter.gymnasium.is_none()),
            ("observation", adapter.observation.is_none()),
            ("action", adapter.action.is_none()),
            ("success", adapter.success.is_none()),
        ];
        for (name, _) in missing.iter().filter(|(_, is_missing)| *is_missing) {
            self.refuse(&["adapter"], format!("`{name}` is missing"));
        }
        if manifest.build.is_none() {
            self.refuse(&[], "`build` is missing");
        }
        let adapter = Adapter {
            gymnasium: adapter.gymnasium.clone()?,
            dialect: adapter.dialect.unwrap_or_default(),
            observation: adapter.observation.clone()?,
            action: adapter.action.clone()?,
            success: adapter.success.clone()?,
        };
        Some(Way::Gymnasium(Box::new(adapter), manifest.build.as_ref()?))
    }

    fn theirs<'a>(&mut self, manifest: &'a wire::Environment) -> Option<Way<'a>> {
        let (adapter, server, episode) = (&manifest.adapter, &manifest.server, &manifest.episode);
        let theirs = "such a server makes, shows and judges by itself; remove this key";
        for (steps, is_said, help) in [
            (&["build"][..], manifest.build.is_some(), "its image is made by others; remove this key"),
            (&["adapter", "gymnasium"], adapter.gymnasium.is_some(), theirs),
            (&["adapter", "dialect"], adapter.dialect.is_some(), theirs),
            (&["adapter", "observation"], adapter.observation.is_some(), theirs),
            (&["adapter", "action"], adapter.action.is_some(), theirs),
            (&["adapter", "success"], adapter.success.is_some(), theirs),
            (
                &["server", "workers"],
                server.workers.is_some(),
                "`slots_per_worker` is how many calls it takes at a time",
            ),
            (&["episode", "stop_on_success"], episode.stop_on_success, theirs),
            (&["episode", "reset_timeout"], episode.reset_timeout.is_some(), "such a server waits 5 s for `/reset`"),
        ] {
            if is_said {
                let message = format!("`{}` does not go with `protocol: affinetes`", steps.join("."));
                self.refuse_with(steps, message, help);
            }
        }
        if adapter.determinism == Some(Determinism::Bitwise) {
            let message = "nobody can hold `determinism: bitwise` of a server that tells no trajectory";
            self.refuse_with(&["adapter", "determinism"], message, "write `determinism: none`, or leave it out");
        }
        if adapter.affinetes.is_none() {
            let help = "write `affinetes: {}`, or `affinetes: { env_id: ... }` where it has another name there";
            self.refuse_with(&["adapter"], "`affinetes` is missing", help);
        }
        let call = adapter.affinetes.as_ref()?;
        self.sent(call);
        for name in robos(call).filter(|name| call.kwargs.contains_key(*name)) {
            let help = "robo gives seeds, miners and limits";
            self.refuse_with(&["adapter", "affinetes", "kwargs", name], format!("`{name}` is not yours to set"), help);
        }
        Some(Way::Affinetes(call))
    }

    /// How one task's episodes are asked for; `limits` are its steps and its miners' time for an action, in milliseconds.
    pub(super) fn call(
        &mut self,
        (manifest, call): (&wire::Environment, &wire::Affinetes),
        (name, task): (&str, &wire::Task),
        limits: (u32, u64),
    ) -> Simulator {
        for (key, is_said) in [
            ("observation", task.observation.is_some()),
            ("action", task.action.is_some()),
            ("success", task.success.is_some()),
        ] {
            if is_said {
                let help = "such a server makes, shows and judges by itself; remove this key";
                let message = format!("`{key}` does not go with `protocol: affinetes`");
                self.refuse_with(&["tasks", name, key], message, help);
            }
        }
        for key in robos(call).filter(|key| task.kwargs.contains_key(*key)) {
            let help = "robo gives seeds, miners and limits";
            self.refuse_with(&["tasks", name, "kwargs", key], format!("`{key}` is not yours to set"), help);
        }
        let (env_id, at): (_, &[&str]) = match (&task.make, &call.env_id) {
            (Some(own), _) => (own.clone(), &["tasks", name, "make"]),
            (None, Some(shared)) => (shared.clone(), &["adapter", "affinetes", "env_id"]),
            (None, None) => (format!("{}/{name}", manifest.family.value), &["family"]),
        };
        let env_id = match self.filled(&Value::String(env_id), name, at) {
            Some(Value::String(env_id)) => env_id,
            _ => String::new(),
        };
        let mut kwargs = Map::new();
        for (key, value) in call.kwargs.iter().chain(&task.kwargs) {
            if let Some(value) = self.filled(value, name, &["adapter", "affinetes", "kwargs", key]) {
                kwargs.insert(key.clone(), value);
            }
        }
        let timeout_ms = self.timeout_ms(call, name, limits);
        let send = call.call.send.clone().map(|mut send| {
            send.sort_unstable();
            send.dedup();
            send
        });
        Simulator::Affinetes(Affinetes { env_id, use_images: call.use_images, kwargs, send, timeout_ms })
    }

    /// A call without a miner plays nobody, and one without a seed plays a scene of the server's own choice.
    fn sent(&mut self, call: &wire::Affinetes) {
        let Some(send) = &call.call.send else { return };
        let at = &["adapter", "affinetes", "call", "send"];
        if !send.contains(&Argument::BaseUrl) {
            self.refuse_with(
                at,
                "`send` lacks `base_url`",
                "add `base_url`: without it the server cannot call the miner",
            );
        }
        if !send.contains(&Argument::TaskId) && !send.contains(&Argument::Seed) {
            let help = "add the one that chooses the scene: every miner has to play the same seeds";
            self.refuse_with(at, "`send` lacks both `task_id` and `seed`", help);
        }
    }

    /// The longest that an episode may take, in milliseconds.
    fn timeout_ms(&mut self, call: &wire::Affinetes, name: &str, (max_steps, action_timeout_ms): (u32, u64)) -> u64 {
        // A miner that is slow but in time must be able to end its episode: else what it plays could never be scored.
        let patience = u64::from(max_steps).saturating_mul(action_timeout_ms).saturating_add(RESET_TIMEOUT_MS);
        let timeout_ms = match call.timeout {
            Some(span) => span.milliseconds(),
            None => patience.saturating_add(SIMULATION_MS),
        };
        if timeout_ms < patience {
            let message = format!(
                "`timeout` is shorter than what a miner may take in `{name}`: {max_steps} steps of {action_timeout_ms} ms \
                 and 5 s for `/reset`"
            );
            let help =
                format!("write at least `{}s`, or lower `max_steps` or `action_timeout`", patience.div_ceil(1000));
            self.refuse_with(&["adapter", "affinetes", "timeout"], message, help);
        }
        // The protocol has whole seconds.
        timeout_ms.div_ceil(1000).saturating_mul(1000)
    }
}
