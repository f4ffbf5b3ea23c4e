//! What children inherit: neither a variable nor a folder of whoever starts robo decides a result.
//!
//! Every test works in a poisoned place: its current directory has modules that leave a trace when somebody imports them, and
//! its environment names that directory and more in every variable that Python, the linker, MuJoCo and PostgreSQL read.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use robo::config::{INHERITED, Role, fixed};
use serde_json::Value;
use tempfile::TempDir;

use crate::examples::Miner;
use crate::support::database::{TestDatabase, Version};
use crate::support::program::{Place, Ran, repository, turn};

/// Modules that somebody would import who searches the current directory.
const MODULES: [&str; 8] = ["gymnasium", "msgpack", "numpy", "venv", "pip", "six", "sitecustomize", "robo_eval_env"];

/// A lock that is installed in a moment.
const LOCK: &str =
    "six==1.17.0 \\\n    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n";

/// A current directory that others can write to, and did.
struct Poisoned {
    folder: TempDir,
}

impl Poisoned {
    fn new() -> Self {
        let poisoned = Self { folder: tempfile::tempdir().unwrap() };
        for module in MODULES {
            let trap = format!("open({:?}, 'a').write({module:?})\n", poisoned.trap());
            if module == "msgpack" {
                fs::write(poisoned.path("msgpack.py"), trap).unwrap();
            } else {
                fs::create_dir(poisoned.path(module)).unwrap();
                fs::write(poisoned.path(module).join("__init__.py"), trap).unwrap();
            }
        }
        fs::write(poisoned.path("startup.py"), format!("open({:?}, 'a').write('startup')\n", poisoned.trap())).unwrap();
        // What belongs there: a root with a family and a pipeline, named by relative paths.
        fs::create_dir_all(poisoned.path("root/environments")).unwrap();
        symlink(repository().join("eval-env"), poisoned.path("root/eval-env")).unwrap();
        poisoned
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file that says who was imported.
    fn trap(&self) -> PathBuf {
        self.path("trapped")
    }

    /// A family of the examples, which is played without a hurry.
    fn family(&self, change: impl Fn(String) -> String) {
        let text = fs::read_to_string(repository().join("examples/environments/classic-control.yaml")).unwrap();
        let text = text.replace("action_timeout: 100ms", "action_timeout: 20s");
        fs::write(self.path("root/environments/classic-control.yaml"), change(text)).unwrap();
    }

    fn executable(&self, name: &str, text: &str) {
        let (draft, path) = (self.path("draft"), self.path(name));
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        // Our own handle may be held open by a process that another test forks meanwhile.
        assert!(Command::new("cp").arg(&draft).arg(&path).status().unwrap().success());
    }

    /// Variables that would change what children do.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let here = self.folder.path().display().to_string();
        let text = |text: &str| text.to_owned();
        vec![
            ("PYTHONPATH", here.clone()),
            ("PYTHONSTARTUP", format!("{here}/startup.py")),
            ("PYTHONHOME", here.clone()),
            ("PYTHONUSERBASE", here.clone()),
            ("PYTHONINSPECT", text("1")),
            ("PYTHONWARNINGS", text("error")),
            ("PYTHONOPTIMIZE", text("2")),
            ("LD_LIBRARY_PATH", here.clone()),
            ("MUJOCO_GL", text("glfw")),
            ("PYOPENGL_PLATFORM", text("glx")),
            ("OMP_NUM_THREADS", text("7")),
            ("OPENBLAS_CORETYPE", text("Prescott")),
            ("LC_ALL", text("tr_TR.ISO-8859-9")),
            ("TZ", text("Asia/Kathmandu")),
            ("PIP_TARGET", here),
            ("PGOPTIONS", text("-c default_transaction_read_only=on")),
            ("PGHOST", text("nowhere.invalid")),
            ("PGPORT", text("1")),
            ("PGUSER", text("nobody")),
            ("PGPASSWORD", text("a password")),
            ("PGSSLMODE", text("verify-full")),
            ("PGSSLROOTCERT", text("/nowhere")),
            ("DATABASE_URL", text("postgresql://a:b@nowhere.invalid/c")),
            ("ROBO_SECRET_PROBE", text("a secret")),
            ("MY_API_TOKEN", text("a token")),
        ]
    }

    /// robo in this directory, with those variables.
    fn robo(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.robo(arguments);
        command.current_dir(self.folder.path()).envs(self.variables());
        command
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Ran {
        let ran = Ran::from(self.robo(place, arguments).output().unwrap());
        let trapped = fs::read_to_string(self.trap()).unwrap_or_default();
        assert_eq!(trapped, "", "robo {arguments:?} imported from the current directory");
        ran
    }
}

/// What an interpreter of ours was started with: its directory, the directory's mode and files, its arguments, its environment.
const REPORT: &str = "{ pwd; stat -c %a .; ls -A | wc -l; echo \"$@\"; env; } ";

struct Report {
    directory: PathBuf,
    mode: String,
    files: String,
    arguments: String,
    variables: BTreeSet<String>,
}

impl Report {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap().trim().to_owned();
        let (directory, mode, files, arguments) = (next().into(), next(), next(), next());
        let name = |line: &str| line.split_once('=').map(|(name, _)| name.to_owned());
        Self { directory, mode, files, arguments, variables: lines.filter_map(name).collect() }
    }

    /// It had an empty directory of its own, and the variables of its role besides `own` ones.
    fn holds(&self, role: Role, own: &[&str]) {
        assert_eq!((self.mode.as_str(), self.files.as_str()), ("700", "0"));
        assert!(!self.directory.exists(), "{} is still there", self.directory.display());
        // The shell that reports sets these itself.
        let mut allowed: BTreeSet<&str> = ["PWD", "OLDPWD", "SHLVL", "_"].into();
        allowed.extend(own);
        allowed.extend(fixed(role).iter().map(|(name, _)| *name));
        allowed.extend(INHERITED.iter().filter(|it| it.roles.contains(&role)).map(|it| it.variable));
        let more: Vec<&String> = self.variables.iter().filter(|name| !allowed.contains(name.as_str())).collect();
        assert!(more.is_empty(), "{} gets {more:?}", role.name());
        for name in own.iter().chain(fixed(role).iter().map(|(name, _)| name)) {
            assert!(self.variables.contains(*name), "{} does not get {name}", role.name());
        }
        assert!(self.variables.contains("ROBO_TEST_PLACE"), "our tests would not find it");
    }
}

#[test]
fn the_docs_say_what_a_child_inherits() {
    let text = fs::read_to_string(repository().join("docs/operator.md")).unwrap();
    let section = text.split("## What a child inherits").nth(1).unwrap().split("\n## ").next().unwrap();
    let said: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |entry: &robo::config::Inherited| {
        let roles: Vec<&str> = entry.roles.iter().map(|role| role.name()).collect();
        format!("| `{}` | {} | {} |", entry.variable, roles.join(", "), entry.reason)
    };
    assert!(INHERITED.iter().any(|entry| entry.variable == robo::host::ledger::MARK));
    let rows: Vec<String> = INHERITED.iter().map(row).collect();
    assert_eq!(said, rows, "write into docs/operator.md:\n{}", rows.join("\n"));
}

#[test]
fn a_test_of_environments_works_alone_with_what_it_is_given() {
    let (poisoned, place) = (Poisoned::new(), Place::new());
    poisoned.family(|text| text);
    let report = poisoned.path("report");
    poisoned.executable("python", &format!("#!/bin/sh\n{REPORT} > {}\nexit 3\n", report.display()));
    let arguments = ["env", "test", "classic-control", "--root", "root", "--python", "./python"];
    let ran = poisoned.run(&place, &arguments);
    assert!(ran.code != 0 && ran.stderr.contains("exit status: 3"), "{}", ran.stderr);
    let text = fs::read_to_string(report).unwrap();
    let found = Report::read(&text);
    found.holds(Role::Simulator, &["HOME", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"]);
    assert!(found.arguments.starts_with("-P -s -m robo_eval_env test "), "{}", found.arguments);
    let package = poisoned.path("root/eval-env").canonicalize().unwrap();
    let given = text.lines().find_map(|line| line.strip_prefix("PYTHONPATH=")).unwrap();
    assert_eq!(Path::new(given).canonicalize().unwrap(), package);
    assert!(text.contains(&format!("\nHOME={}\n", found.directory.display())), "{text}");
}

#[test]
fn an_environment_is_made_without_what_lies_around() {
    let (poisoned, place) = (Poisoned::new(), Place::new());
    // Environments of other tests are not to be touched.
    fs::remove_file(place.data.path().join("python")).unwrap();
    poisoned.family(|text| {
        text.replace(
            "context: ../eval-env, requirements: requirements/gymnasium.lock",
            "context: ../package, requirements: six.lock",
        )
    });
    fs::create_dir_all(poisoned.path("root/package/robo_eval_env")).unwrap();
    fs::write(poisoned.path("root/package/six.lock"), LOCK).unwrap();
    let reports = poisoned.path("reports");
    fs::create_dir(&reports).unwrap();
    poisoned.executable("python", &format!("#!/bin/sh\n{REPORT} > {}/$$\nexec python3 \"$@\"\n", reports.display()));
    let mut command = poisoned.robo(&place, &["env", "build", "classic-control", "--root", "root"]);
    let ran = Ran::from(command.env("ROBO_PYTHON", "./python").output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!poisoned.trap().exists(), "{}", fs::read_to_string(poisoned.trap()).unwrap());
    let found: Vec<Report> = fs::read_dir(&reports)
        .unwrap()
        .map(|entry| Report::read(&fs::read_to_string(entry.unwrap().path()).unwrap()))
        .collect();
    assert!(found.iter().any(|report| report.arguments.starts_with("-I -m venv ")));
    for report in found {
        report.holds(Role::Interpreter, &[]);
    }
}

#[test]
fn the_url_decides_which_database_and_how_it_works() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let (poisoned, place) = (Poisoned::new(), Place::with_database(database.url()));
    let mut command = poisoned.robo(&place, &["db", "init"]);
    // How to log in may stand in variables.
    let ran = Ran::from(command.env_remove("PGSSLMODE").env_remove("PGSSLROOTCERT").output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// What came of a cycle: who is paid, and how every episode went.
fn result(place: &Place) -> (Value, Value) {
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    (shown["weights_document"]["weights"].clone(), shown["outcomes"].clone())
}

#[test]
fn a_cycle_its_replay_and_a_test_come_to_the_same_in_a_poisoned_place() {
    let _turn = turn();
    let (swing_up, still) = (Miner::start("swing-up"), Miner::start("still"));
    let poisoned = Poisoned::new();
    poisoned.family(|text| text);
    let text = fs::read_to_string(repository().join("examples/pipelines/weights-by-expression.yaml")).unwrap();
    let text = text.replace("http://127.0.0.1:9001", &swing_up.url).replace("http://127.0.0.1:9002", &still.url);
    let kept = "episodes: \"${{ inputs.episodes_per_env }}\"\n";
    assert!(text.contains(kept));
    let text = text.replace(kept, &format!("{kept}      keep_actions: all\n"));
    fs::write(poisoned.path("root/pipeline.yaml"), text).unwrap();

    let (clean, place) = (Place::new(), Place::new());
    let salt = "5a".repeat(32);
    let whole = poisoned.path("root/pipeline.yaml").display().to_string();
    let ran = clean.run(&["run-pipeline", &whole, "-i", "episodes_per_env=2", "--salt", &salt]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let arguments = ["run-pipeline", "root/pipeline.yaml", "-i", "episodes_per_env=2", "--salt", &salt];
    let ran = poisoned.run(&place, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(result(&place), result(&clean));

    let listed = place.json(&["episode", "ls", "--format", "json"]);
    let id = listed["episodes"][0]["id"].as_str().unwrap().to_owned();
    let ran = poisoned.run(&place, &["episode", "replay", &id, "--check"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);

    let arguments = ["env", "test", "classic-control", "--root", "root", "--steps", "20"];
    let ran = poisoned.run(&place, &arguments);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}
