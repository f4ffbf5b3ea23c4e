//! Backups: a dump is restored, shows the same to the byte, and what had not ended goes on in it.

use std::{fs, process::Command};

use super::succeeds;
use crate::support::{
    own_server::OwnServer,
    program::{Place, pipeline, repository, turn, workspace},
};

#[test]
fn a_dump_restores_weights_and_scores_and_an_open_cycle_goes_on() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(OwnServer::start());
    let place = Place::with_database(&server.url());
    let finished = workspace(|text| {
        let others = ["button-press", "door-open", "reach"].map(|task| format!("  - metaworld/{task}-v3\n"));
        others.iter().fold(text.to_owned(), |text, other| text.replace(other, ""))
    });
    let ran = place.run(&["run-pipeline", &pipeline(&finished), "-i", "episodes_per_env=2"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let open = tempfile::tempdir().unwrap();
    fs::create_dir(open.path().join("environments")).unwrap();
    let gate = open.path().join("gate");
    let stage = format!(
        "  wait:\n    uses: container/run\n    with: {{ runtime: process, \
         command: [sh, -c, 'until test -e {}; do sleep 0.05; done; echo \"{{}}\"'] }}\n",
        gate.display()
    );
    fs::write(open.path().join("pipeline.yaml"), format!("version: 1\nname: open\nstages:\n{stage}")).unwrap();
    let mut running = place.start(&["run-pipeline", &pipeline(&open)]);
    running.until("wait ...");
    running.kill_everything();
    fs::write(gate, "").unwrap();

    let mut drill = Command::new(repository().join("scripts/restore-drill"));
    drill.args(["--resume", &server.url()]).env("ROBO", env!("CARGO_BIN_EXE_robo"));
    let said = succeeds(drill.env("ROBO_DATA_DIR", place.data.path()).env_remove("ROBO_BACKEND_DATABASE_URL"));
    for line in ["1 published vectors are the same", "shows the same weights and scores", "went on and completed"] {
        assert!(said.contains(line), "{said}");
    }
    let cycles = place.json(&["cycle", "ls", "--format", "json"]);
    assert_eq!(cycles["cycles"][0]["status"], "interrupted", "only the copy was changed");
    let left = "select count(*) from pg_database where datname like 'robo_restore_drill_%'";
    let left = succeeds(Command::new("psql").args(["-XAt", &server.url(), "-c", left]));
    assert_eq!(left.trim(), "0", "the copy is gone");
}
