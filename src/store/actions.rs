//! The actions of episodes that are kept: written with the outcome they led to, read when one is played again.

use sqlx::PgConnection;

use crate::cycle::{Actions, CycleId, Episode, EpisodeKey};

use super::{Error, Store, error::Trouble};

/// Write down the actions of an episode, if its report has them, in the transaction that `connection` is in.
pub(super) async fn keep(connection: &mut PgConnection, cycle: CycleId, episode: &Episode) -> Result<(), Trouble> {
    let Some(actions) = &episode.report.actions else { return Ok(()) };
    sqlx::query(
        "insert into episode_actions (cycle_id, environment, seed_index, hotkey, actions)
         values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(cycle.as_uuid())
    .bind(episode.key.environment.as_str())
    .bind(i64::from(episode.key.seed_index))
    .bind(episode.key.hotkey.as_str())
    .bind(actions.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// What the miner of an episode answered; none when it was not kept.
    pub async fn actions(&self, cycle: CycleId, key: &EpisodeKey) -> Result<Option<Actions>, Error> {
        self.ask(|| async {
            let bytes: Option<Vec<u8>> = sqlx::query_scalar(
                "select actions from episode_actions
                 where cycle_id = $1 and environment = $2 and seed_index = $3 and hotkey = $4",
            )
            .bind(cycle.as_uuid())
            .bind(key.environment.as_str())
            .bind(i64::from(key.seed_index))
            .bind(key.hotkey.as_str())
            .fetch_optional(&self.pool)
            .await?;
            Ok(bytes.map(Actions::from_bytes))
        })
        .await
    }
}
