//! Keys of the API as the database knows them: by name and digest, never the keys themselves.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Error, Store};

/// A key of the API, without the key.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ApiKey {
    /// Its id.
    #[sqlx(rename = "api_key_id")]
    pub id: Uuid,
    /// What its maker calls it; no two that are good have the same name.
    pub name: String,
    /// Its first characters.
    pub start: String,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Until when it is good; none for no end.
    pub expires_at: Option<DateTime<Utc>>,
    /// Since when it is no longer good, whatever its end.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Its name.
    pub name: String,
    /// Its first characters.
    pub start: String,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
    /// Until when it is good.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What came of the wish for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAnswer {
    /// It is there.
    Created(ApiKey),
    /// A good key has that name.
    NameTaken,
}

impl ApiKey {
    /// Whether it is good at `now`.
    pub fn is_good(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Store {
    /// Make a key known.
    pub async fn create_api_key(&self, new: &NewApiKey) -> Result<KeyAnswer, Error> {
        let id = Uuid::now_v7();
        self.ask(|| async {
            // A key whose end has come keeps its name from nobody: it is put away for good.
            let mut transaction = self.pool.begin().await?;
            sqlx::query(
                "update api_key set revoked_at = now() where name = $1 and revoked_at is null and expires_at <= now()",
            )
            .bind(&new.name)
            .execute(&mut *transaction)
            .await?;
            sqlx::query(
                "insert into api_key (api_key_id, name, start, sha256, expires_at) values ($1, $2, $3, $4, $5)
                 on conflict do nothing",
            )
            .bind(id)
            .bind(&new.name)
            .bind(&new.start)
            .bind(new.sha256.as_slice())
            .bind(new.expires_at)
            .execute(&mut *transaction)
            .await?;
            // Also where an earlier try of ours has come through and nobody said so.
            let made: Option<ApiKey> = sqlx::query_as("select * from api_key where api_key_id = $1")
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(made.map_or(KeyAnswer::NameTaken, KeyAnswer::Created))
        })
        .await
    }

    /// Every key there has ever been, the oldest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, Error> {
        self.ask(|| async {
            Ok(sqlx::query_as("select * from api_key order by api_key_id").fetch_all(&self.pool).await?)
        })
        .await
    }

    /// The keys that nobody has revoked.
    pub async fn standing_api_keys(&self) -> Result<Vec<ApiKey>, Error> {
        self.ask(|| async {
            let sql = "select * from api_key where revoked_at is null order by api_key_id";
            Ok(sqlx::query_as(sql).fetch_all(&self.pool).await?)
        })
        .await
    }

    /// Make a key good for nothing. Whether it was good for something.
    pub async fn revoke_api_key(&self, id: Uuid) -> Result<bool, Error> {
        self.ask(|| async {
            let sql = "update api_key set revoked_at = now() where api_key_id = $1 and revoked_at is null";
            Ok(sqlx::query(sql).bind(id).execute(&self.pool).await?.rows_affected() == 1)
        })
        .await
    }

    /// Note that these keys have been used, unless that was noted within the last minute.
    pub async fn note_use_of_api_keys(&self, ids: &[Uuid]) -> Result<(), Error> {
        self.ask(|| async {
            let sql = "update api_key set last_used_at = now()
                       where api_key_id = any($1) and coalesce(last_used_at < now() - interval '1 minute', true)";
            sqlx::query(sql).bind(ids).execute(&self.pool).await?;
            Ok(())
        })
        .await
    }
}
