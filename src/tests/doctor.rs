//! `robo doctor`: what is there is found, what is missing is told with what to do about it.

use serde_json::Value;

use crate::support::{
    database::{TestDatabase, Version},
    program::Place,
};

fn of<'a>(report: &'a Value, about: &str) -> &'a Value {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["about"] == about).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_looked_over_and_every_failure_has_a_remedy() {
    let nobody = ["--network", "ws://127.0.0.1:9", "--docker-host", "tcp://127.0.0.1:9", "--format", "json"];
    let doctor = |place: &Place, more: &[&str]| {
        let ran = tokio::task::block_in_place(|| place.run(&[&["doctor"], &nobody[..], more].concat()));
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
        (ran.code, report)
    };
    // Nothing is there yet, and nothing of it is needed by everybody.
    let place = Place::new();
    let (code, report) = doctor(&place, &[]);
    assert_eq!(code, 0, "{report:#}");
    let all: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|it| it["about"].as_str().unwrap()).collect();
    assert_eq!(all, ["database", "migrations", "docker", "images", "chain", "disk", "clock", "gpu", "files"]);
    assert_eq!(
        (&of(&report, "docker")["verdict"], &of(&report, "chain")["verdict"]),
        (&"warning".into(), &"warning".into())
    );
    assert!(!place.data.path().join("postgres").exists(), "it changes nothing");

    // Who needs them is told that they fail.
    let (code, report) = doctor(&place, &["--runtime", "docker", "--netuid", "7"]);
    assert_eq!(code, 1, "{report:#}");
    for about in ["docker", "chain"] {
        let finding = of(&report, about);
        assert!(finding["verdict"] == "failed" && finding["remedy"].as_str().unwrap().len() > 20, "{finding}");
    }

    // A database that is there, with its schema and its clock; one that is not.
    let database = TestDatabase::new(Version::Default).await;
    database.store().await.close().await;
    let (code, report) = doctor(&Place::with_database(database.url()), &[]);
    assert_eq!((code, &of(&report, "migrations")["verdict"]), (0, &"ok".into()), "{report:#}");
    assert!(of(&report, "clock")["found"].as_str().unwrap().starts_with("agrees"), "{report:#}");
    let (code, report) = doctor(&Place::with_database("postgresql://robo@127.0.0.1:9/robo"), &[]);
    assert_eq!((code, &of(&report, "database")["verdict"]), (1, &"failed".into()), "{report:#}");
    assert!(of(&report, "database")["found"].as_str().unwrap().starts_with("Database connection failed"), "{report:#}");

    // For people: a line each.
    let ran = tokio::task::block_in_place(|| place.run(&["doctor", "--network", "ws://127.0.0.1:9"]));
    assert_eq!(ran.stdout.lines().count(), 9, "{}", ran.stdout);
}
