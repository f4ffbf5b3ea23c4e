//! The schema as versions of the program come and go: several bring it up to date at once, and what is newer or other is
//! refused and left as it is.

use sqlx::{Connection, Executor, PgConnection};

use crate::{
    metrics::{Page, backend},
    support::{
        database::{TestDatabase, Version},
        own_server::OwnServer,
        program::Place,
    },
};

#[tokio::test]
async fn backends_that_start_at_once_on_an_empty_database_bring_it_up_to_date_together() {
    let server = OwnServer::start().await;
    let place = Place::with_database(&server.url());
    let backends = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| backend(&place, &["--role", "api"]))).collect();
        starting.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    for (running, url) in backends {
        assert_eq!(Page::of(&url).await.value("robo_database_up"), Some(1.0), "it can use the tables");
        running.kill_alone();
    }
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let (steps, versions): (i64, i64) =
        sqlx::query_as("select count(*), count(distinct version) from _sqlx_migrations where success")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    let files = std::fs::read_dir(crate::support::program::repository().join("migrations")).unwrap().count();
    assert_eq!((steps, versions), (files as i64, files as i64), "each step was taken once");
}

#[tokio::test]
async fn a_schema_that_is_newer_or_other_is_refused_and_left_as_it_is() {
    let database = TestDatabase::new(Version::Default).await;
    database.store().await.close().await;
    let place = Place::with_database(database.url());
    let mut connection = database.connection().await;
    for (change, undo, words) in [
        (
            "insert into _sqlx_migrations values (9999, 'from the future', now(), true, '\\x00', 0)",
            "delete from _sqlx_migrations where version = 9999",
            ["newer version (9999)", "upgrade robo"],
        ),
        (
            "update _sqlx_migrations set checksum = checksum || '\\x00' where version = 2",
            "update _sqlx_migrations set checksum = substring(checksum for octet_length(checksum) - 1) where version = 2",
            ["another build of robo", "step 2"],
        ),
    ] {
        connection.execute(change).await.unwrap();
        for arguments in
            [&["backend", "--role", "api", "--host", "127.0.0.1", "--port", "0"][..], &["cycle", "ls"], &["db", "init"]]
        {
            let ran = place.run(arguments);
            assert_eq!(ran.code, 1, "{arguments:?}: {}", ran.stderr);
            assert!(words.iter().all(|word| ran.stderr.contains(word)), "{arguments:?}: {}", ran.stderr);
            assert!(ran.stderr.contains("nothing was changed"), "{arguments:?}: {}", ran.stderr);
        }
        connection.execute(undo).await.unwrap();
    }
    assert_eq!(place.run(&["cycle", "ls"]).code, 0);
}

/// A cycle and its publication as a program of version 18 of the schema writes them.
async fn publish_as_before(connection: &mut PgConnection, sequence: i64, netuid: Option<i32>) -> uuid::Uuid {
    let cycle = uuid::Uuid::now_v7();
    sqlx::query(
        "insert into cycle (cycle_id, pipeline, definition, definition_hash, root, salt, salt_sha256, genesis, netuid, status,
                            finished_at)
         values ($1, 'test', '{}', 'h', '/', decode(repeat('00', 32), 'hex'), 's', $2, $3, 'completed', now())",
    )
    .bind(cycle)
    .bind(netuid.map(|_| "0x00"))
    .bind(netuid)
    .execute(&mut *connection)
    .await
    .unwrap();
    sqlx::query(
        "insert into publication (cycle_id, sequence, scores, weights, digest, previous_digest)
         values ($1, $2, '{}', '{}', $3, 'whatever was last')",
    )
    .bind(cycle)
    .bind(sequence)
    .bind(format!("digest {sequence}"))
    .execute(connection)
    .await
    .unwrap();
    cycle
}

#[tokio::test]
async fn an_older_database_is_numbered_and_assigned_and_so_is_what_an_older_program_writes_after_that() {
    let database = TestDatabase::new(Version::Default).await;
    let mut connection = database.connection().await;
    let steps = sqlx::migrate::Migrator::new(crate::support::program::repository().join("migrations")).await.unwrap();
    steps.run_to(18, &mut connection).await.unwrap();
    let first = publish_as_before(&mut connection, 1, Some(7)).await;
    let local = publish_as_before(&mut connection, 2, None).await;
    let store = database.store().await;
    assert_eq!(
        store.latest_publication().await.unwrap().unwrap().cycle,
        first.into(),
        "the local one replaces nothing"
    );
    let third = publish_as_before(&mut connection, 3, Some(7)).await;
    let latest = store.latest_publication().await.unwrap().unwrap();
    assert_eq!((latest.cycle, latest.previous_digest.as_deref()), (third.into(), Some("digest 1")));
    for (number, cycle) in [("1", first), ("2", local), ("3", third)] {
        assert_eq!(store.resolve(number).await.unwrap(), cycle.into());
    }
    store.reset().await.unwrap();
    let functions: i64 =
        sqlx::query_scalar("select count(*) from pg_proc where pronamespace = current_schema()::regnamespace")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(functions, 7, "a reset makes each function once");
}
