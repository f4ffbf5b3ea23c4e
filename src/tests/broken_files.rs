//! A mistake in one file stays where it is: what does not use the file goes on, and the mistake is named.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::program::{Place, pipeline, workspace};

/// A workspace with a family and a pipeline that are broken, and leftovers of editors beside the good files.
fn project() -> TempDir {
    let folder = workspace(|text| text.to_owned());
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("environments/broken.yaml", "version: 1\nfamily: other\nadapter: 7\n");
    write("environments/half.yaml", "family: [\n");
    for leftover in ["._metaworld.yaml", ".#metaworld.yaml", "metaworld.yaml~", "#metaworld.yaml#"] {
        write(&format!("environments/{leftover}"), "\u{0}not yaml: [");
    }
    write("broken.yaml", "version: 1\nname: broken\nstages: { a: { uses: no/kind } }\n");
    folder
}

fn lint(place: &Place, file: &Path) -> (i32, String) {
    let ran = place.run(&["lint", file.to_str().unwrap()]);
    (ran.code, ran.stderr)
}

#[test]
fn a_pipeline_is_not_stopped_by_manifests_that_it_does_not_use() {
    let (folder, place) = (project(), Place::new());
    let (code, said) = lint(&place, &folder.path().join("pipeline.yaml"));
    assert_eq!(code, 0, "{said}");
    for words in ["warning: ", "environments/broken.yaml", "environments/half.yaml"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("error: ") && !said.contains("metaworld.yaml~") && !said.contains("._metaworld"), "{said}");
    assert_eq!(place.run(&["plan", &pipeline(&folder)]).code, 0);

    // A pipeline that uses the family is stopped.
    let text = fs::read_to_string(folder.path().join("pipeline.yaml")).unwrap();
    let all = text.replace("environments:\n", "environments:\n  - other/task\n");
    fs::write(folder.path().join("other.yaml"), &all).unwrap();
    let (code, said) = lint(&place, &folder.path().join("other.yaml"));
    assert!(code == 2 && said.contains("error: ") && said.contains("environments/broken.yaml"), "{said}");

    let root = folder.path().to_str().unwrap();
    let listed = place.run(&["env", "ls", "--root", root]);
    assert!(listed.code == 0 && listed.stderr.contains("environments/broken.yaml"), "{}", listed.stderr);
    assert_eq!(place.run(&["env", "ls", "other", "--root", root]).code, 2);
    let checked = place.robo(&["doctor", "--format", "json"]).current_dir(folder.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let files = report["findings"].as_array().unwrap().iter().find(|it| it["about"] == "files").unwrap();
    assert_eq!(files["verdict"], "warning", "{files}");
    assert!(files["found"].as_str().unwrap().contains("environments/broken.yaml"), "{files}");
}

#[test]
fn a_manifest_may_be_called_yml() {
    let (folder, place) = (workspace(|text| text.to_owned()), Place::new());
    let file = folder.path().join("environments/metaworld.yaml");
    fs::rename(&file, file.with_extension("yml")).unwrap();
    assert_eq!(place.run(&["plan", &pipeline(&folder)]).code, 0);
}

#[test]
fn a_backend_starts_whatever_its_files_say_and_takes_up_what_is_mended() {
    let (folder, place) = (project(), Place::new());
    let (good, broken) = (pipeline(&folder), folder.path().join("broken.yaml"));
    let arguments = ["backend", "--host", "127.0.0.1", "--port", "0", "--network", "ws://127.0.0.1:9", "--pipeline"];
    let key = place.run(&["apikey", "create", "operator"]);
    assert_eq!(key.code, 0, "{}", key.stderr);
    let mut running = place.start(&[&arguments[..], &[&good, broken.to_str().unwrap()]].concat());
    running.until("listening on");
    assert!(running.said.contains("broken.yaml cannot be used"), "{}", running.said);
    assert!(running.said.contains("WARN"), "{}", running.said);
    let url = running.said.split("listening on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    crate::install_tls();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| -> Value {
        runtime.block_on(async {
            let asked = client.get(format!("{url}{path}")).bearer_auth(key.stdout.trim());
            asked.send().await.unwrap().json().await.unwrap()
        })
    };
    assert_eq!(get("/health")["status"], "healthy");
    let shown = |name: &str| {
        let body = get("/v1/pipelines");
        let all = body["pipelines"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{body}")).clone()
    };
    let quickstart = shown("quickstart");
    assert_eq!(quickstart["status"], "current");
    assert!(quickstart["warnings"].as_str().unwrap().contains("environments/broken.yaml"), "{quickstart}");
    let broken_one = shown("broken");
    assert_eq!((&broken_one["status"], &broken_one["definition_hash"]), (&"broken".into(), &Value::Null));
    assert!(broken_one["problem"].as_str().unwrap().contains("no/kind"), "{broken_one}");

    let text = fs::read_to_string(&good).unwrap();
    fs::write(&broken, text.replace("name: quickstart", "name: mended")).unwrap();
    while get("/v1/pipelines")["pipelines"].as_array().unwrap().iter().all(|it| it["name"] != "mended") {}
    assert_eq!(shown("mended")["status"], "current");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
}
