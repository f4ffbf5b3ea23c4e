//! `environments/provision` and `environments/teardown`: environment servers before and after the episodes.
//!
//! A server is a process, not a fact: what provision promises is that one can be had. A resumed cycle, whose servers
//! died with the process before it, gets new ones when its episodes ask for them.

use serde::Deserialize;
use serde_json::json;

use super::{Context, Error, Invocation, Output, config};
use crate::cycle::{EnvironmentId, TaskFailure};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    environment: EnvironmentId,
}

/// Start the environment's server, or find it running, and say what simulates.
pub(super) async fn provision<J>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, Error> {
    let Settings { environment: id } = invocation.settings()?;
    let environment = context
        .definition
        .environment(&id)
        .ok_or_else(|| config(format!("`{id}` is not among the pipeline's environments")))?;
    let ready = context.servers.environment(&context.definition, environment).await?;
    // They are alike: one image, or one Python environment.
    let Some(running) = ready.first() else { return Err(config("no environment server was started").into()) };
    let opened = &running.opened;
    // Evidence of what simulates, as far as the server says.
    let server = json!({
        "protocol": environment.server.protocol,
        "version": opened.version,
        "digest": opened.digest,
    });
    Ok(json!({ "environment": id, "python": opened.python, "packages": opened.packages, "server": server }).into())
}

/// Stop every server of the cycle.
pub(super) async fn teardown<J>(context: &Context<J>) -> Result<Output, TaskFailure> {
    context.servers.stop().await;
    Ok(json!({}).into())
}
