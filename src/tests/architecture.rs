//! The rules of the house that a compiler does not know: who may use whom, and what stands where.
//!
//! Reads the sources as text. Inline tests (`mod tests`) are exempt from the rules about libraries.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules by level, as the map in `src/lib.rs` shows them.
const LEVELS: [&[&str]; 6] = [
    &[
        "address",
        "cycle",
        "manifest",
        "plan",
        "schedule",
        "scoring",
        "evidence",
        "shipped",
        "config",
        "host",
        "telemetry",
    ],
    &["chain", "store", "miner", "rollout", "runtime"],
    &["envserver", "stage", "validator"],
    &["engine"],
    &["api", "backend"],
    &["cli", "main"],
];

/// Lower modules that are out of bounds all the same: the journal is a trait to these, whoever implements it.
const OUT_OF_BOUNDS: [(&str, &str); 2] = [("stage", "store"), ("engine", "store")];

struct Source {
    /// Path from the repository's root.
    path: String,
    /// The folder or file right under `src`.
    module: String,
    /// The lines without comments.
    code: String,
    text: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let module = relative.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
        let code = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
        let code = code.map(|line| format!("{line}\n")).collect();
        Self { path: relative, module, code, text }
    }

    /// The code up to its inline tests.
    fn product(&self) -> &str {
        self.code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// Whether `path`, as `tokio::`, stands in the code as a path of its own.
    fn mentions(&self, path: &str) -> bool {
        self.product().match_indices(path).any(|(at, _)| starts_a_word(self.product(), at))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join("src"), root.join("benches")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.extend(paths.iter().filter(|path| path.extension().is_some_and(|it| it == "rs")).cloned());
        folders.extend(paths.into_iter().filter(|path| path.is_dir()));
    }
    found.sort();
    assert!(found.len() > 30, "the sources are there");
    found.iter().map(|path| Source::read(root, path)).collect()
}

fn product_sources() -> Vec<Source> {
    sources().into_iter().filter(|it| it.path.starts_with("src/") && it.module != "tests").collect()
}

fn starts_a_word(text: &str, at: usize) -> bool {
    !text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':')
}

/// Top modules that a code names as `crate::module` or `crate::{module, ...}`.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, prefix) in code.match_indices("crate::").filter(|(at, _)| starts_a_word(code, *at)) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => used.push(word(rest)),
            Some(group) => used.extend(group_heads(group)),
        }
    }
    used.retain(|module| !module.is_empty());
    used
}

/// The first words of the entries of a `{...}` group, of which `group` is the text after the bracket.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut entry) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut entry)),
            c if depth == 0 => entry.push(c),
            _ => {}
        }
    }
    heads.push(entry);
    heads.iter().map(|entry| word(entry.trim())).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

/// Fail with every violation, one a line.
fn hold(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn paths_are_read_from_code() {
    let code = "use crate::{\n    host::{Progress, child::Child},\n    config, plan::Server,\n};\nfn f() { crate::cycle::x(); my_crate::y() }";
    assert_eq!(used_modules(code), ["host", "config", "plan", "cycle"]);
}

#[test]
fn a_module_uses_only_lower_levels() {
    let mut violations = Vec::new();
    for source in product_sources() {
        let module = source.module.as_str();
        let Some(own) = level(module) else {
            if module != "lib" {
                violations.push(format!("{} belongs to no level", source.path));
            }
            continue;
        };
        for used in used_modules(&source.code) {
            let is_fine = used == module
                || level(&used).is_some_and(|theirs| theirs < own || (theirs == 0 && own == 0))
                    && !OUT_OF_BOUNDS.contains(&(module, used.as_str()));
            if !is_fine {
                violations.push(format!("{} uses `crate::{used}`", source.path));
            }
        }
    }
    hold(violations);
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut violations = Vec::new();
    for source in product_sources() {
        let module = source.module.as_str();
        let is_pure = level(module) == Some(0) && !["host", "config", "telemetry"].contains(&module);
        let refused = |library: &str| match library {
            "sqlx::" => module != "store",
            "subxt::" | "subxt_signer::" => module != "chain",
            "axum::" => level(module) == Some(0),
            _ => is_pure,
        };
        for library in ["sqlx::", "subxt::", "subxt_signer::", "axum::", "tokio::", "reqwest::"] {
            if refused(library) && source.mentions(library) {
                violations.push(format!("{} uses `{library}`", source.path));
            }
        }
    }
    hold(violations);
}

#[test]
fn the_environment_and_the_terminal_have_one_door_each() {
    let mut violations = Vec::new();
    for source in product_sources() {
        for printing in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
            if source.path != "src/cli/render.rs" && source.mentions(printing) {
                violations.push(format!("{} prints with `{printing}`", source.path));
            }
        }
        for reading in ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("] {
            if source.path != "src/config.rs" && source.product().contains(reading) {
                violations.push(format!("{} reads the environment with `{reading}`", source.path));
            }
        }
    }
    hold(violations);
}

#[test]
fn every_child_is_made_in_the_one_place_that_knows_what_it_inherits() {
    /// Where a child may inherit everything: the operator's own command once more, and a container's own command.
    const WHOLE: [&str; 4] =
        ["src/cli/chaos.rs", "src/cli/env_server_hold.rs", "src/config/inherited.rs", "src/host/environment.rs"];
    let mut violations = Vec::new();
    for source in product_sources() {
        let code = source.product().replace("clap::Command::new(", "");
        if source.path != "src/host/environment.rs" && code.contains("Command::new(") {
            violations.push(format!("{} makes a process without `host::environment::command`", source.path));
        }
        if code.contains("Role::Whole") && !WHOLE.contains(&source.path.as_str()) {
            violations.push(format!("{} hands all of our environment on", source.path));
        }
    }
    hold(violations);
}

#[test]
fn every_file_says_why_it_exists_and_is_of_a_readable_size() {
    let mut violations = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            violations.push(format!("{} does not open with `//!`", source.path));
        }
        let lines = source.text.lines().count();
        if lines > 600 {
            violations.push(format!("{} has {lines} lines", source.path));
        }
    }
    hold(violations);
}

#[test]
fn no_lint_is_silenced_without_a_reason_and_no_test_is_left_out() {
    // Written in two parts, so that this file does not find itself.
    let refused = [["#[all", "ow("], ["#![all", "ow("], ["#[ign", "ore"], ["tod", "o!("], ["TO", "DO"]];
    let mut violations = Vec::new();
    for source in sources() {
        for word in refused.map(|parts| parts.concat()) {
            if source.text.contains(&word) {
                violations.push(format!("{} contains `{word}`", source.path));
            }
        }
    }
    hold(violations);
}
