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
