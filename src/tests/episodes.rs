//! Episodes one by one: played by hand, kept with their actions as the pipeline says, played again and compared.

use std::fs;

use robo::cycle::Actions;
use serde_json::Value;

use crate::examples::Miner;
use crate::support::database::{TestDatabase, Version};
use crate::support::program::{Place, pipeline, repository, turn, workspace};

/// A workspace with the pendulum, whose miners may take their time and whose episodes are kept as `retention` says.
fn pendulum(miners: [&Miner; 2], retention: &str) -> tempfile::TempDir {
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(|_| {
        let text = example("pipelines/pendulum.yaml").replace("classic-control/*", "classic-control/pendulum");
        let text =
            text.replace("http://127.0.0.1:9001", &miners[0].url).replace("http://127.0.0.1:9002", &miners[1].url);
        let setting = "episodes: \"${{ inputs.episodes_per_env }}\"";
        text.replace(setting, &format!("{setting}\n      keep_actions: {retention}"))
    });
    let family = example("environments/classic-control.yaml").replace("action_timeout: 100ms", "action_timeout: 20s");
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();
    folder
}

#[test]
fn what_is_kept_is_played_again_to_the_same_trajectory() {
    let _turn = turn();
    let (swing_up, still) = (Miner::start("swing-up"), Miner::start("still"));
    let folder = pendulum([&swing_up, &still], "failures");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let place = Place::with_database(database.url());
    let salt = "5a".repeat(32);
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2", "--salt", &salt]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let listed = |arguments: &[&str]| -> Vec<Value> {
        let report = place.json(&[&["episode", "ls", "--format", "json"], arguments].concat());
        report["episodes"].as_array().unwrap().clone()
    };
    assert_eq!(listed(&[]).len(), 4);
    assert_eq!(listed(&["--miner", "still", "--limit", "1"]).len(), 1);
    let (kept, lost) = (listed(&["--outcome", "failure"]), listed(&["--outcome", "success"]));
    assert!(kept.len() >= 2 && !lost.is_empty());
    let id = |episode: &Value| episode["id"].as_str().unwrap().to_owned();
    let (kept, lost) = (id(&kept[0]), id(&lost[0]));

    let shown = place.json(&["episode", "show", &kept[..12], "--format", "json"]);
    assert_eq!((&shown["id"], &shown["actions_kept"]), (&Value::from(kept.as_str()), &Value::Bool(true)));
    assert_eq!(shown["report"]["steps"], 200);
    let table = place.run(&["episode", "show", &lost]).stdout;
    assert!(table.contains("outcome success") && table.contains("actions not kept"), "{table}");
    assert_eq!(place.run(&["episode", "show", "zz"]).code, 2);

    let again = place.json(&["episode", "replay", &kept, "--check", "--format", "json"]);
    assert_eq!((&again["same"], &again["end"]["steps"]), (&Value::Bool(true), &Value::from(200)));
    assert_eq!(again["end"]["return"], shown["report"]["return"]);
    let refused = place.run(&["episode", "replay", &lost, "--check"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("were not kept") && refused.stderr.contains("keep_actions: all"),
        "{}",
        refused.stderr
    );

    // Actions that did not lead to what was written down.
    let others = Actions::pack(&[0.25; 200]).unwrap();
    runtime.block_on(async {
        let mut connection = database.connection().await;
        let disable = "alter table episode_actions disable trigger user";
        sqlx::query(disable).execute(&mut connection).await.unwrap();
        let change = sqlx::query("update episode_actions set actions = $1").bind(others.as_bytes());
        change.execute(&mut connection).await.unwrap();
    });
    let another = place.run(&["episode", "replay", &kept, "--check"]);
    assert_eq!(another.code, 6, "{}", another.stderr);
    assert!(another.stdout.contains("NOT the same"), "{}", another.stdout);
    assert_eq!(place.run(&["episode", "replay", &kept]).code, 0);
}

#[test]
fn an_episode_is_played_and_filmed_by_hand() {
    let folder = workspace(str::to_owned);
    let (root, film) = (folder.path().to_str().unwrap(), folder.path().join("reach.gif"));
    let place = Place::new();
    let run = |more: &[&str]| {
        let arguments = ["episode", "run", "--env", "metaworld/reach-v3", "--seed", "7", "--root", root];
        place.run(&[&arguments[..], more].concat())
    };
    let miner = ["--miner", "demo:noop", "--format", "json"];
    let filmed = run(&[&miner[..], &["--video", film.to_str().unwrap(), "--camera", "corner2"]].concat());
    assert_eq!(filmed.code, 0, "{}", filmed.stderr);
    let first: Value = serde_json::from_str(&filmed.stdout).unwrap();
    assert_eq!((&first["report"]["outcome"]["outcome"], &first["report"]["steps"]), (&"failure".into(), &500.into()));
    assert!(fs::read(&film).unwrap().starts_with(b"GIF89a"));
    let second: Value = serde_json::from_str(&run(&miner).stdout).unwrap();
    assert_eq!(first["report"]["trajectory_hash"], second["report"]["trajectory_hash"]);

    let film = folder.path().join("reach.mp4");
    let filmed = run(&[&miner[..], &["--video", film.to_str().unwrap()]].concat());
    assert_eq!(filmed.code, 0, "{}", filmed.stderr);
    assert_eq!(fs::read(&film).unwrap()[4..8], *b"ftyp");
    let mut without = place.robo(&["episode", "run", "--env", "metaworld/reach-v3", "--video", "reach.mp4"]);
    let refused = without.env("PATH", "/nonexistent").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("package ffmpeg"), "{said}");
    let unknown = run(&["--miner", "demo:nobody"]);
    assert_eq!(unknown.code, 1, "{}", unknown.stderr);
}
