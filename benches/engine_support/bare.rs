//! The least that a durable transition can cost: one row inserted, one updated, one commit.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

/// A loop of commits on one connection.
pub(crate) struct Loop {
    connection: PgConnection,
    next: i64,
}

impl Loop {
    pub(crate) async fn new(url: &str) -> Self {
        let mut connection = PgConnection::connect(url).await.expect("the server takes connections");
        connection
            .execute(
                "create table bare_task (id int primary key, status text not null);
                 create table bare_event (id bigint primary key, payload json not null);
                 insert into bare_task select id, 'pending' from generate_series(0, 39) id;",
            )
            .await
            .expect("the tables are new");
        Self { connection, next: 0 }
    }

    /// So many commits, one after the other.
    pub(crate) async fn run(&mut self, commits: usize) -> Duration {
        let started = Instant::now();
        for _ in 0..commits {
            let mut transaction = self.connection.begin().await.expect("a transaction begins");
            sqlx::query("insert into bare_event (id, payload) values ($1, $2::text::json)")
                .bind(self.next)
                .bind("{\"kind\":\"started\"}")
                .execute(&mut *transaction)
                .await
                .expect("the id is new");
            sqlx::query("update bare_task set status = $2 where id = $1")
                .bind((self.next % 40) as i32)
                .bind(if self.next % 2 == 0 { "running" } else { "succeeded" })
                .execute(&mut *transaction)
                .await
                .expect("the row is there");
            transaction.commit().await.expect("it is committed");
            self.next += 1;
        }
        started.elapsed()
    }
}
