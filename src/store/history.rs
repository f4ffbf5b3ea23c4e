//! What finished cycles took, to estimate what another one will. It reads tasks and their outputs, which stay when the
//! episodes age out.

use crate::cycle::EnvironmentId;

use super::{Error, Store};

/// Cycles that an estimate looks back on.
const LATEST: i64 = 20;

/// How long the episodes of an environment took.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodePace {
    /// The environment.
    pub environment: EnvironmentId,
    /// Median, over finished tasks, of the task's time divided by its episodes: running side by side is in it.
    pub seconds: f64,
}

/// How long the tasks of a stage kind took.
#[derive(Debug, Clone, PartialEq)]
pub struct KindPace {
    /// The kind, as in `uses`.
    pub kind: String,
    /// Median time of a task.
    pub seconds: f64,
}

impl Store {
    /// The time per episode in the latest completed cycles, by environment.
    pub async fn episode_paces(&self) -> Result<Vec<EpisodePace>, Error> {
        let rows: Vec<(String, f64)> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select environment, percentile_cont(0.5) within group (order by seconds / planned)
                     from (
                         select output ->> 'environment' as environment, (output ->> 'planned')::float8 as planned,
                                extract(epoch from task.finished_at - started_at)::float8 as seconds
                         from task join (select cycle_id from cycle where status = 'completed' and origin = 'run'
                                         order by cycle_id desc limit $1) latest using (cycle_id)
                         where task.status = 'succeeded' and task.output ->> 'planned' is not null
                     ) ended
                     where planned > 0 and seconds is not null
                     group by environment order by environment collate \"C\"",
                )
                .bind(LATEST)
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        // A stage of an operator's own may give outputs of these names and other meaning.
        let paces = rows
            .into_iter()
            .filter_map(|(environment, seconds)| Some(EpisodePace { environment: environment.parse().ok()?, seconds }));
        Ok(paces.collect())
    }

    /// The time per task in the latest completed cycles, by stage kind.
    pub async fn kind_paces(&self) -> Result<Vec<KindPace>, Error> {
        let rows: Vec<(String, f64)> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select planned ->> 'uses',
                            percentile_cont(0.5) within group
                                (order by extract(epoch from task.finished_at - task.started_at)::float8)
                     from (select cycle_id, definition from cycle where status = 'completed' and origin = 'run'
                           order by cycle_id desc limit $1) latest
                     cross join json_array_elements(definition -> 'stages') planned
                     join task on task.cycle_id = latest.cycle_id and task.stage = planned ->> 'id'
                     where task.status = 'succeeded' and task.started_at is not null
                     group by 1 order by 1",
                )
                .bind(LATEST)
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        Ok(rows.into_iter().map(|(kind, seconds)| KindPace { kind, seconds }).collect())
    }
}
