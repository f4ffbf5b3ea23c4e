//! Every command of the guides, run in the order in which a reader meets them.
//!
//! A guide's `sh` blocks are one script, run in a folder like a fresh checkout by a shell that stops at the first failure. Ports are
//! exchanged for free ones, and time-outs of miners are longer, so that guides can be run beside anything else. What needs
//! a machine of the reader's own stands in `console` blocks, of which the commands of ours must at least be ones.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    ports,
    program::{Place, Ran, repository, turn},
};

/// The blocks of a page that are in one of these languages.
pub(crate) fn blocks(page: &str, languages: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let (mut found, mut open): (Vec<String>, Option<String>) = (Vec::new(), None);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(if languages.contains(&language) { String::new() } else { "\0".into() })
            }
            (Some(block), Some(_)) => {
                found.extend(Some(std::mem::take(block)).filter(|block| !block.starts_with('\0')));
                open = None;
            }
            (Some(block), None) => block.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    found
}

/// The words of a command line, as a shell would take it apart.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, ' ' | '(' | ')') => words.push(std::mem::take(&mut word)),
            (_, letter) => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// A folder like a fresh checkout, whose files may be changed.
struct Checkout {
    folder: TempDir,
    ports: BTreeMap<&'static str, String>,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = |port| (port, ports::free().to_string());
        let checkout = Self { folder, ports: ["8000", "9000", "9001", "9002", "9003"].map(free).into() };
        for name in ["eval-env", "docs", "schemas"] {
            symlink(repository().join(name), checkout.folder.path().join(name)).unwrap();
        }
        for name in ["pipelines", "environments", "examples"] {
            checkout.copy(&repository().join(name), &checkout.folder.path().join(name));
        }
        checkout
    }

    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (from, to): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
            match from.is_dir() {
                true => self.copy(&from, &to),
                false => match fs::read_to_string(&from) {
                    Ok(text) => fs::write(&to, self.fitted(&text)).unwrap(),
                    Err(_) => drop(fs::copy(&from, &to).unwrap()),
                },
            }
        }
    }

    /// A text for this machine: other ports, and miners that are not judged by how busy it is.
    fn fitted(&self, text: &str) -> String {
        let text = self
            .ports
            .iter()
            .fold(text.to_owned(), |text, (port, free)| text.replace(&format!(":{port}"), &format!(":{free}")));
        let text = self
            .ports
            .iter()
            .fold(text, |text, (port, free)| text.replace(&format!("--port {port}"), &format!("--port {free}")));
        text.replace("action_timeout: 100ms", "action_timeout: 20s")
    }

    /// Run a guide, for which something else was done `before`.
    fn follow(&self, place: &Place, (before, page): (&str, &str)) -> Ran {
        let script = blocks(page, &["sh"]).concat();
        assert!(script.lines().count() > 1, "{page} has commands");
        let script = self.fitted(&format!("{before}\n{script}"));
        let program = Path::new(env!("CARGO_BIN_EXE_robo")).parent().unwrap();
        let python = std::env::var("ROBO_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
        let python = Path::new(&python).parent().unwrap().display().to_string();
        let path = format!("{}:{python}:{}", program.display(), std::env::var("PATH").unwrap());
        // What a guide leaves running ends with it. `set -m` gives each job a group of its own, as at a terminal.
        let ends =
            "trap 'code=$?; for job in $(jobs -p); do kill -TERM -- -$job 2>/dev/null; done; wait; exit $code' EXIT";
        let script = format!("set -euo pipefail\nset -m\n{ends}\n{script}");
        let robo = place.robo(&[]);
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(self.folder.path()).env("PATH", path).envs_of(&robo);
        // A chain that nobody reads; pipelines of these guides name their miners.
        command.env("ROBO_BACKEND_NETWORK", "ws://127.0.0.1:9").stdin(Stdio::null());
        // Schedules are as a reader has them.
        command.env_remove("ROBO_BACKEND_EVAL_INTERVAL_SECONDS");
        command.output().unwrap().into()
    }
}

/// The variables of another command.
trait EnvironmentOf {
    fn envs_of(&mut self, other: &Command) -> &mut Self;
}

impl EnvironmentOf for Command {
    fn envs_of(&mut self, other: &Command) -> &mut Self {
        for (name, value) in other.get_envs() {
            match value {
                Some(value) => self.env(name, value),
                None => self.env_remove(name),
            };
        }
        self
    }
}

fn follow(page: &str) -> Ran {
    follow_after("", page)
}

/// What pages begin with that are about a backend that runs: a cycle that has completed, and the backend.
const SERVED: &str = "\
robo run-pipeline pipelines/quickstart.yaml -i episodes_per_env=1
robo backend --pipeline pipelines/quickstart.yaml --eval-interval 0 --host 127.0.0.1 --port 8000 &
curl --retry 60 --retry-delay 1 --retry-connrefused --fail --silent --show-error http://127.0.0.1:8000/health";

fn follow_after(before: &str, page: &str) -> Ran {
    let _turn = turn();
    let (place, checkout) = (Place::new(), Checkout::new());
    let ran = checkout.follow(&place, (before, page));
    assert_eq!(ran.code, 0, "{page}:\n{}\n{}", ran.stdout, ran.stderr);
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
    ran
}

#[test]
fn the_operators_guide_works_as_it_is_written() {
    let ran = follow("docs/operator.md");
    assert!(ran.stdout.contains("\"status\":\"healthy\""), "{}", ran.stdout);
    assert!(ran.stdout.contains("`quickstart` is no longer paused"), "{}", ran.stdout);
}

#[test]
fn the_miners_guide_works_as_it_is_written() {
    let ran = follow("docs/miner.md");
    assert!(ran.stdout.contains("swing-up"), "{}", ran.stdout);
    for health in [r#"{"status": "ok", "max_concurrency": 16}"#, r#"{"status": "ok"}"#] {
        assert!(ran.stdout.contains(health), "{}", ran.stdout);
    }
    // The policies on the page are those that were played.
    let miner = fs::read_to_string(repository().join("examples/miner.py")).unwrap();
    let policies = blocks("docs/miner.md", &["python"]);
    assert_eq!(policies.len(), 2);
    assert!(policies.iter().all(|policy| miner.contains(policy)), "{policies:?}");
}

#[test]
fn the_guide_to_environments_works_as_it_is_written() {
    follow("docs/environments.md");
}

#[test]
fn the_page_of_the_api_works_as_it_is_written() {
    let ran = follow_after(SERVED, "docs/api.md");
    assert!(ran.stdout.contains("304\n") && ran.stdout.contains("400\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("event: end") || ran.stdout.contains("event:end"), "{}", ran.stdout);
}

#[test]
fn the_page_of_keys_works_as_it_is_written() {
    let ran = follow_after(SERVED, "docs/api-keys.md");
    assert!(ran.stdout.contains("cancel_requested") && ran.stdout.contains("--trusted-proxy"), "{}", ran.stdout);
}

#[test]
fn commands_in_all_pages_are_commands_of_ours() {
    let mut checked = 0;
    let pages = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in
        pages.chain([repository().join("README.md")]).filter(|page| page.extension().is_some_and(|it| it == "md"))
    {
        let name = page.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
        // At a console only lines with a prompt are commands; the others are what comes of them.
        let console = blocks(&name, &["console"]).concat().replace("\\\n", " ");
        let console = console.lines().filter_map(|line| line.strip_prefix("$ ").or(line.strip_prefix("# ")));
        let script = blocks(&name, &["sh"]).concat().replace("\\\n", " ");
        for line in script.lines().chain(console) {
            let line = line.trim_start_matches(['#', ' ']).split(" #").next().unwrap().trim();
            let words = words_of(line);
            let mut words = words.iter().map(String::as_str).skip_while(|word| *word == "export" || word.contains('='));
            if words.next() != Some("robo") {
                continue;
            }
            let words: Vec<&str> = words.take_while(|word| !["|", "&", "&&", ">", ";"].contains(word)).collect();
            // `a | b` in the README lists verbs.
            if words.is_empty() || line.contains(" | show") || line.contains(" | ") && name == "README.md" {
                continue;
            }
            if let Err(problem) = robo::cli::understands(&words) {
                panic!("{name}: `{line}`: {problem}");
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} commands were found");
}
