//! The HTTP side of a demo miner: `/health`, `/reset`, `/act`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Response, StatusCode},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};

use super::{
    Kind, Misbehaviour, Policy,
    episodes::Episodes,
    policy::{Hand, Motion},
};
use crate::manifest::simulation::Dialect;

/// Largest request: images as number lists take about 200 KB.
const BODY_LIMIT: usize = 64 << 20;

/// Episodes at a time. Each has a player of its own, found by its `X-Episode-Id`.
const MAX_CONCURRENCY: u32 = 16;

/// How a demo miner plays.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What it plays.
    pub policy: Policy,
    /// How long it thinks about each `/act`.
    pub latency: Duration,
    /// What it does wrong.
    pub misbehaviour: Option<Misbehaviour>,
    /// The one dialect it speaks; none answers each request in the request's own.
    pub dialect: Option<Dialect>,
}

struct Miner {
    settings: Settings,
    episodes: Episodes,
    acts: AtomicU64,
    down: Notify,
}

/// Serve until the listener fails or, for a miner that goes down, until that moment. Dropping the future ends it.
///
/// # Errors
/// When the listener cannot accept any more.
pub async fn serve(listener: TcpListener, settings: Settings) -> std::io::Result<()> {
    let resets = settings.misbehaviour.is_some_and(|misbehaviour| misbehaviour.kind == Kind::Close);
    let listener = listener.tap_io(move |stream| {
        // Answers are small and awaited; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
        if resets {
            let _ = stream.set_zero_linger();
        }
    });
    let miner = Arc::new(Miner {
        settings,
        episodes: Episodes::new(settings.policy),
        acts: AtomicU64::new(0),
        down: Notify::new(),
    });
    let router = Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok", "max_concurrency": MAX_CONCURRENCY })) }))
        .route("/reset", post(reset))
        .route("/act", post(act))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(miner.clone());
    tokio::select! {
        served = axum::serve(listener, router) => served,
        () = miner.down.notified() => Ok(()),
    }
}

#[derive(Deserialize)]
struct ResetRequest {
    task_config: TaskConfig,
}

#[derive(Deserialize)]
struct TaskConfig {
    #[serde(default)]
    task_name: String,
    #[serde(default)]
    episode_id: String,
}

async fn reset(State(miner): State<Arc<Miner>>, Json(request): Json<ResetRequest>) -> Response<Body> {
    if let Some(Misbehaviour { kind: kind @ Kind::ResetTimeout, .. }) = miner.misbehaviour() {
        return kind.answer(Dialect::Native).await;
    }
    miner.episodes.reset(&request.task_config.episode_id, &request.task_config.task_name);
    Json(json!({ "status": "ok" })).into_response()
}

/// Body of `/act`: one of the two dialects, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActRequest {
    #[serde(default)]
    observation: Option<Vec<f64>>,
    #[serde(default)]
    #[expect(dead_code, reason = "the policies do not look at images")]
    images: Option<Value>,
    #[serde(default)]
    obs: Option<Canonical>,
}

/// An observation of the canonical dialect, as strict as the miners that speak it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Canonical {
    proprio: BTreeMap<String, Vec<f64>>,
    #[serde(default, rename = "rgb")]
    _rgb: BTreeMap<String, Shaped>,
    #[serde(default, rename = "depth")]
    _depth: BTreeMap<String, Shaped>,
    #[serde(default, rename = "cam_intrinsics")]
    _cam_intrinsics: BTreeMap<String, Vec<Vec<f64>>>,
    #[serde(default, rename = "cam_extrinsics")]
    _cam_extrinsics: BTreeMap<String, Vec<Vec<f64>>>,
    #[serde(default, rename = "extra")]
    _extra: BTreeMap<String, Value>,
}

/// An image of the canonical dialect.
#[derive(Deserialize)]
struct Shaped {
    #[serde(rename = "data")]
    _data: String,
    #[serde(rename = "shape")]
    _shape: [usize; 3],
    #[serde(rename = "dtype")]
    _dtype: String,
}

impl ActRequest {
    /// The dialect and what the arm shows of itself; none when the body is of neither dialect or of the other one.
    fn read(&self, only: Option<Dialect>) -> Option<(Dialect, Hand)> {
        let (dialect, hand) = match (&self.observation, &self.obs) {
            (Some(numbers), None) => {
                (Dialect::Native, std::array::from_fn(|index| numbers.get(index).copied().unwrap_or(0.0)))
            }
            (None, Some(Canonical { proprio, .. })) => {
                let number = |channel: &str, index: usize| proprio.get(channel)?.get(index).copied();
                let place = |index| number("ee_pos", index).unwrap_or(0.0);
                // The dialect says how far the gripper is closed, the policies ask how far it is open.
                let open = 1.0 - number("gripper", 0).unwrap_or(0.0);
                (Dialect::Canonical, [place(0), place(1), place(2), open])
            }
            _ => return None,
        };
        only.is_none_or(|only| only == dialect).then_some((dialect, hand))
    }
}

/// The answer to `/act`.
fn answer(dialect: Dialect, motion: Motion) -> Value {
    match dialect {
        Dialect::Native => json!({ "action": motion }),
        Dialect::Canonical => {
            let [x, y, z, gripper] = motion;
            let continuous = json!({ "ee_twist": [x, y, z, 0.0, 0.0, 0.0], "gripper": [(gripper + 1.0) / 2.0] });
            json!({ "action": { "continuous": continuous, "discrete": {}, "extra": {} } })
        }
    }
}

async fn act(State(miner): State<Arc<Miner>>, headers: HeaderMap, Json(request): Json<ActRequest>) -> Response<Body> {
    if !miner.settings.latency.is_zero() {
        tokio::time::sleep(miner.settings.latency).await;
    }
    let Some((dialect, hand)) = request.read(miner.settings.dialect) else {
        let error = json!({ "error": "the observation is not of the dialect that this miner speaks" });
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(error)).into_response();
    };
    if let Some(Misbehaviour { kind, .. }) = miner.misbehaviour()
        && kind != Kind::ResetTimeout
    {
        if kind == Kind::Down {
            miner.down.notify_one();
        }
        return kind.answer(dialect).await;
    }
    miner.acts.fetch_add(1, Ordering::Relaxed);
    let episode_id = headers.get("x-episode-id").and_then(|id| id.to_str().ok());
    match miner.episodes.act(episode_id, hand) {
        Some(motion) => Json(answer(dialect, motion)).into_response(),
        None => {
            (StatusCode::CONFLICT, Json(json!({ "error": "there was no /reset for this episode" }))).into_response()
        }
    }
}

impl Miner {
    /// What goes wrong by now.
    fn misbehaviour(&self) -> Option<Misbehaviour> {
        let acts = self.acts.load(Ordering::Relaxed);
        self.settings.misbehaviour.filter(|misbehaviour| acts >= misbehaviour.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value, only: Option<Dialect>) -> Option<(Dialect, Hand)> {
        serde_json::from_value::<ActRequest>(body.clone()).ok()?.read(only)
    }

    #[test]
    fn both_dialects_show_the_same_hand_and_move_it_the_same_way() {
        let native = json!({ "observation": [0.1, 0.6, 0.2, 0.75], "images": { "corner": [] } });
        let canonical = json!({ "obs": {
            "proprio": { "ee_pos": [0.1, 0.6, 0.2], "ee_quat": [0, 0, 0, 1], "gripper": [0.25] },
            "rgb": { "corner": { "data": "AAAA", "shape": [1, 1, 3], "dtype": "uint8" } }, "depth": {}, "extra": {},
        } });
        let hand = [0.1, 0.6, 0.2, 0.75];
        for only in [None, Some(Dialect::Native)] {
            assert_eq!(read(&native, only), Some((Dialect::Native, hand)));
        }
        for only in [None, Some(Dialect::Canonical)] {
            assert_eq!(read(&canonical, only), Some((Dialect::Canonical, hand)));
        }
        assert_eq!(read(&native, Some(Dialect::Canonical)), None);
        assert_eq!(read(&canonical, Some(Dialect::Native)), None);
        assert_eq!(answer(Dialect::Native, [0.5, 0.0, -1.0, 1.0]), json!({ "action": [0.5, 0.0, -1.0, 1.0] }));
        assert_eq!(
            answer(Dialect::Canonical, [0.5, 0.0, -1.0, -1.0])["action"]["continuous"],
            json!({ "ee_twist": [0.5, 0.0, -1.0, 0.0, 0.0, 0.0], "gripper": [0.0] })
        );
    }

    #[test]
    fn what_is_of_no_dialect_is_refused() {
        for body in [
            json!({}),
            json!({ "observation": [1], "obs": { "proprio": {} } }),
            json!({ "obs": {} }),
            json!({ "obs": { "proprio": {}, "more": 1 } }),
            json!({ "obs": { "proprio": { "gripper": 1.0 } } }),
            json!({ "obs": { "proprio": {}, "rgb": { "corner": [[[1, 2, 3]]] } } }),
        ] {
            assert_eq!(read(&body, None), None, "{body}");
        }
    }
}
