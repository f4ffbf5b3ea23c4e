//! The HTTP side of a demo miner: `/health`, `/reset`, `/act`.

use std::{
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
use serde_json::json;
use tokio::{net::TcpListener, sync::Notify};

use super::{Kind, Misbehaviour, Policy, episodes::Episodes};

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
        return kind.answer().await;
    }
    miner.episodes.reset(&request.task_config.episode_id, &request.task_config.task_name);
    Json(json!({ "status": "ok" })).into_response()
}

#[derive(Deserialize)]
struct ActRequest {
    observation: Vec<f64>,
}

async fn act(State(miner): State<Arc<Miner>>, headers: HeaderMap, Json(request): Json<ActRequest>) -> Response<Body> {
    if !miner.settings.latency.is_zero() {
        tokio::time::sleep(miner.settings.latency).await;
    }
    if let Some(Misbehaviour { kind, .. }) = miner.misbehaviour()
        && kind != Kind::ResetTimeout
    {
        if kind == Kind::Down {
            miner.down.notify_one();
        }
        return kind.answer().await;
    }
    miner.acts.fetch_add(1, Ordering::Relaxed);
    let hand = std::array::from_fn(|index| request.observation.get(index).copied().unwrap_or(0.0));
    let episode_id = headers.get("x-episode-id").and_then(|id| id.to_str().ok());
    match miner.episodes.act(episode_id, hand) {
        Some(action) => Json(json!({ "action": action })).into_response(),
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
