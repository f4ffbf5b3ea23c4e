//! What an operator does to the database as a whole: create it, bring its schema up to date, empty it.

use sqlx::{AssertSqlSafe, Connection, PgConnection, migrate::MigrateError, migrate::Migrator};

use crate::{config, cycle::CycleId, host::Progress};

use super::{Error, Store, holder::Holder, location::Location};

/// The schema, compiled in.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The oldest server our SQL is written for.
const OLDEST_SERVER: i32 = 130_000;

/// A migration is not tried again, so whoever makes it may be slow: longer than `store::IDLE_IN_TRANSACTION`, and not for ever.
const IDLE_IN_MIGRATION: &str = "set idle_in_transaction_session_timeout = '1min'";

/// Everything migrations make, children first: what a reset takes away, and nothing else that lives in the database.
const RESET: &str = "
    drop view if exists miners, scores, episodes, tasks;
    drop table if exists operation, api_key, tally, episode_count, draft, aged_out, resource, cycle_image, schedule_fire, schedule_pause, schedule, publication_release, publication,
        episode_actions, episode_attempt, episode, miner_sighting, standing, task_event, task, cycle, _sqlx_migrations;
    drop function if exists refuse_change(), refuse_change_of_cycle(), refuse_change_of_task();
    drop function if exists cycle_waits_for(uuid), is_cleanup(uuid, text), number_cycle(), assign_publication();
";

/// Whether `create` had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The database is new.
    New,
    /// It was there.
    Existing,
}

impl Store {
    /// Create the configured database if it is missing, without tables.
    ///
    /// # Errors
    /// [`Error`] when no server answers or the user may not create databases.
    pub async fn create(config: &config::Database, progress: &Progress) -> Result<(Self, Created), Error> {
        let location = Location::find(config, progress).await?;
        let created = create_database(&location).await;
        let (answer, prepared) = match created {
            Ok(created) => (created, Ok(())),
            Err(error) => (Created::Existing, Err(error)),
        };
        Ok((Self::connect_to(location, prepared).await?, answer))
    }

    /// Bring the schema up to date.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] when a newer robo has been here; [`Error::Migrate`] when it cannot be done.
    pub async fn migrate(&self) -> Result<(), Error> {
        if self.schema().await? == Schema::Known {
            return Ok(());
        }
        let known = newest();
        let mut connection = self.pool.acquire().await?;
        sqlx::query(IDLE_IN_MIGRATION).execute(&mut *connection).await?;
        // Under an advisory lock: of several that start at once one does it, and the others find it done.
        let migrated = MIGRATIONS.run(&mut *connection).await;
        // With it goes what was set for it.
        let _ = connection.close().await;
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(found) if found > known => Error::NewerSchema { found, known },
            MigrateError::VersionMissing(found) | MigrateError::VersionMismatch(found) => Error::OtherSchema { found },
            error => Error::Migrate(error),
        })
    }

    /// How the schema in the database and the one of this program compare: every step, not only the last.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] and [`Error::OtherSchema`]: steps have been taken that this program does not know.
    pub(super) async fn schema(&self) -> Result<Schema, Error> {
        if self.schema_version().await?.is_none() {
            return Ok(Schema::Older);
        }
        let taken: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("select version, checksum from _sqlx_migrations where success order by version")
                .fetch_all(&self.pool)
                .await?;
        compare(&taken)
    }

    /// Version of the schema in the database; none where it was never initialised.
    pub(super) async fn schema_version(&self) -> Result<Option<i64>, Error> {
        let exists: bool =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&self.pool).await?;
        if !exists {
            return Ok(None);
        }
        Ok(sqlx::query_scalar("select max(version) from _sqlx_migrations where success").fetch_one(&self.pool).await?)
    }

    /// Take everything of ours away and make the empty tables anew.
    ///
    /// # Errors
    /// [`Error::Running`] while a cycle runs, [`Error::NewerSchema`] when the tables are not ours to know.
    pub async fn reset(&self) -> Result<(), Error> {
        let known = newest();
        match self.schema_version().await? {
            Some(found) if found > known => return Err(Error::NewerSchema { found, known }),
            Some(_) => self.drop_all().await?,
            None => {}
        }
        self.migrate().await
    }

    async fn drop_all(&self) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        // Nobody can take a lease between the look and the end of the tables.
        sqlx::query("lock table cycle in access exclusive mode").execute(&mut *transaction).await?;
        if let Some(cycle) = running(&mut transaction).await?.first() {
            return Err(Error::Running(*cycle));
        }
        sqlx::raw_sql(RESET).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}

/// How the schema in a database stands to the one that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// It is the same.
    Known,
    /// Steps are missing.
    Older,
}

/// Compare the steps that were taken, by version and checksum, with those that this program knows.
fn compare(taken: &[(i64, Vec<u8>)]) -> Result<Schema, Error> {
    let known = newest();
    if let Some((found, _)) = taken.last().filter(|(version, _)| *version > known) {
        return Err(Error::NewerSchema { found: *found, known });
    }
    let is_ours = |(version, checksum): &&(i64, Vec<u8>)| {
        MIGRATIONS.iter().any(|ours| ours.version == *version && *ours.checksum == **checksum)
    };
    match taken.iter().find(|step| !is_ours(step)) {
        Some((found, _)) => Err(Error::OtherSchema { found: *found }),
        None if taken.len() == MIGRATIONS.iter().count() => Ok(Schema::Known),
        None => Ok(Schema::Older),
    }
}

/// Cycles under a live lease whose holder is not known to be dead.
pub(super) async fn running(connection: &mut PgConnection) -> Result<Vec<CycleId>, Error> {
    let rows: Vec<(uuid::Uuid, Option<serde_json::Value>)> = sqlx::query_as(
        "select cycle_id, holder from cycle where lease_until > clock_timestamp() order by cycle_id desc",
    )
    .fetch_all(connection)
    .await?;
    let alive = rows.into_iter().filter(|(_, holder)| !Holder::is_known_dead(holder.as_ref()));
    Ok(alive.map(|(cycle, _)| CycleId::from(cycle)).collect())
}

/// The newest version of the schema that this program knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Make the database itself if it is missing.
pub(super) async fn create_database(location: &Location) -> Result<Created, Error> {
    match location.connect().await {
        Ok(connection) => {
            // The answer is known; a farewell that fails changes nothing.
            let _ = connection.close().await;
            return Ok(Created::Existing);
        }
        Err(Error::NoDatabase(_)) => {}
        Err(error) => return Err(error),
    }
    let mut connection = location.connect_for_maintenance().await?;
    let name = location.database().replace('"', "\"\"");
    let made = sqlx::query(AssertSqlSafe(format!("create database \"{name}\""))).execute(&mut connection).await;
    match made {
        Ok(_) => Ok(Created::New),
        // Somebody else was faster: `duplicate_database`, or the same seen by the index of names.
        Err(sqlx::Error::Database(error)) if ["42P04", "23505"].contains(&error.code().as_deref().unwrap_or("")) => {
            Ok(Created::Existing)
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuse servers that do not answer or are too old.
///
/// One connection by hand: a pool would try for its whole time-out where the answer is plain at once.
pub(super) async fn check_server(location: &Location) -> Result<(), Error> {
    let mut connection = location.connect().await?;
    let (number, version): (i32, String) =
        sqlx::query_as("select current_setting('server_version_num')::int, current_setting('server_version')")
            .fetch_one(&mut connection)
            .await?;
    // The answer is known; a farewell that fails changes nothing.
    let _ = connection.close().await;
    if number < OLDEST_SERVER { Err(Error::OldServer(version)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_compiled_in() {
        // The compiler does not notice a new file by itself.
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        assert_eq!(std::fs::read_dir(directory).unwrap().count(), MIGRATIONS.iter().count());
    }

    #[test]
    fn every_step_counts_not_only_the_last() {
        let taken: Vec<(i64, Vec<u8>)> = MIGRATIONS.iter().map(|ours| (ours.version, ours.checksum.to_vec())).collect();
        assert_eq!(compare(&taken).unwrap(), Schema::Known);
        assert_eq!(compare(&taken[..3]).unwrap(), Schema::Older);
        assert_eq!(compare(&taken[1..]).unwrap(), Schema::Older, "one in the middle is missing");
        let mut changed = taken.clone();
        changed[1].1[0] ^= 1;
        assert!(matches!(compare(&changed), Err(Error::OtherSchema { found: 2 })));
        let newer = [&taken[..], &[(newest() + 1, vec![0])]].concat();
        assert!(matches!(compare(&newer), Err(Error::NewerSchema { .. })));
    }

    #[test]
    fn reset_names_every_table() {
        for migration in MIGRATIONS.iter() {
            for table in migration.sql.as_str().split("\ncreate table ").skip(1) {
                let name = table.split_whitespace().next().unwrap();
                assert!(RESET.contains(&format!(" {name},")), "{name}");
            }
        }
    }
}
