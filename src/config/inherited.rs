//! What a child process inherits of our environment: a whitelist by the role of the child. Pure.
//!
//! A result has to follow from the definition that a cycle is pinned to. Therefore a child starts with an empty environment and
//! gets the variables of [`INHERITED`] and [`fixed`], each of which has a reason. The table in `docs/operator.md` shows the same.

use std::{
    env::{join_paths, split_paths},
    ffi::{OsStr, OsString},
    path::{Path, PathBuf, absolute},
};

/// What a child is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The program `robo` itself: environment servers, demonstration miners, the supervisor of the embedded database.
    Robo,
    /// Python with a simulator: workers, `robo env test`, `robo episode replay`.
    Simulator,
    /// A Python that is asked for its version or makes a virtual environment.
    Interpreter,
    /// pip, which fills a virtual environment.
    Pip,
    /// A tool of this machine, such as `strip` or `nft`.
    Tool,
    /// A program of a pipeline (`container/run`), which gets the variables of its stage besides.
    Stage,
    /// The programs of the embedded database.
    Database,
    /// The same command of the operator once more, or the command of a container's image in its container: everything.
    Whole,
}

impl Role {
    /// Every role with a whitelist.
    pub const LISTED: [Self; 7] =
        [Self::Robo, Self::Simulator, Self::Interpreter, Self::Pip, Self::Tool, Self::Stage, Self::Database];

    /// Its name in the table of the docs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Robo => "robo",
            Self::Simulator => "simulator",
            Self::Interpreter => "python",
            Self::Pip => "pip",
            Self::Tool => "tool",
            Self::Stage => "stage",
            Self::Database => "database",
            Self::Whole => "whole",
        }
    }

    /// Whether its working directory is its home and takes its temporary files as well: nothing in the user's own home is read,
    /// and nothing stays behind.
    pub fn has_own_home(self) -> bool {
        matches!(self, Self::Robo | Self::Simulator | Self::Tool)
    }
}

/// How a value has to be changed for a child that works in another directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Not at all.
    Text,
    /// It is a path: a relative one is made absolute.
    Path,
    /// It is addresses and paths with blanks between them.
    Words,
    /// It is directories with colons between them, of which only absolute ones are passed.
    Search,
}

/// A variable that children inherit.
#[derive(Debug)]
pub struct Inherited {
    /// Its name.
    pub variable: &'static str,
    /// Which children inherit it.
    pub roles: &'static [Role],
    /// Why they do.
    pub reason: &'static str,
    form: Form,
}

const fn entry(variable: &'static str, form: Form, roles: &'static [Role], reason: &'static str) -> Inherited {
    Inherited { variable, roles, reason, form }
}

const MARKED: &[Role] = &[Role::Robo, Role::Simulator, Role::Interpreter, Role::Pip, Role::Tool];
const SERVERS: &[Role] = &[Role::Robo, Role::Simulator];
const PIP: &[Role] = &[Role::Pip];
const PROXY: &str = "the way to the package index";
const INDEX: &str = "where packages come from; their hashes are pinned";

/// Every variable that a child inherits. What is not here is not passed on.
pub const INHERITED: &[Inherited] = &[
    entry(
        "PATH",
        Form::Search,
        &[Role::Robo, Role::Simulator, Role::Interpreter, Role::Pip, Role::Tool, Role::Stage],
        "programs are found in it; relative directories are left out",
    ),
    entry("HOME", Form::Path, &[Role::Interpreter, Role::Pip], "version managers and pip keep settings there"),
    entry("TMPDIR", Form::Path, &[Role::Robo, Role::Interpreter, Role::Pip], "temporary files go where there is room"),
    entry("CUDA_VISIBLE_DEVICES", Form::Text, SERVERS, "which GPUs of the machine are ours"),
    entry("CUDA_DEVICE_ORDER", Form::Text, SERVERS, "how `CUDA_VISIBLE_DEVICES` counts"),
    entry("SSL_CERT_FILE", Form::Path, &[Role::Robo, Role::Pip], "certificates that are trusted"),
    entry("SSL_CERT_DIR", Form::Path, &[Role::Robo, Role::Pip], "certificates that are trusted"),
    entry("RUST_LOG", Form::Text, &[Role::Robo], "what is logged"),
    entry("RUST_BACKTRACE", Form::Text, &[Role::Robo], "what a panic says"),
    entry("XDG_RUNTIME_DIR", Form::Path, &[Role::Robo], "where the embedded database puts its socket"),
    entry("XDG_CONFIG_HOME", Form::Path, PIP, "where pip.conf is"),
    entry("XDG_CACHE_HOME", Form::Path, PIP, "where pip keeps downloads"),
    entry("REQUESTS_CA_BUNDLE", Form::Path, PIP, "certificates that are trusted"),
    entry("HTTP_PROXY", Form::Text, PIP, PROXY),
    entry("HTTPS_PROXY", Form::Text, PIP, PROXY),
    entry("ALL_PROXY", Form::Text, PIP, PROXY),
    entry("NO_PROXY", Form::Text, PIP, PROXY),
    entry("http_proxy", Form::Text, PIP, PROXY),
    entry("https_proxy", Form::Text, PIP, PROXY),
    entry("all_proxy", Form::Text, PIP, PROXY),
    entry("no_proxy", Form::Text, PIP, PROXY),
    entry("PIP_INDEX_URL", Form::Text, PIP, INDEX),
    entry("PIP_EXTRA_INDEX_URL", Form::Text, PIP, INDEX),
    entry("PIP_FIND_LINKS", Form::Words, PIP, INDEX),
    entry("PIP_NO_INDEX", Form::Text, PIP, INDEX),
    entry("PIP_CERT", Form::Path, PIP, "certificates that are trusted"),
    entry("PIP_CLIENT_CERT", Form::Path, PIP, "who we are to the package index"),
    entry("PIP_TRUSTED_HOST", Form::Text, PIP, INDEX),
    entry("PIP_PROXY", Form::Text, PIP, PROXY),
    entry("PIP_DEFAULT_TIMEOUT", Form::Text, PIP, PROXY),
    entry("PIP_RETRIES", Form::Text, PIP, PROXY),
    entry("PIP_CACHE_DIR", Form::Path, PIP, "where pip keeps downloads"),
    entry("PIP_NO_CACHE_DIR", Form::Text, PIP, "where pip keeps downloads"),
    entry("PIP_CONFIG_FILE", Form::Path, PIP, "where pip.conf is"),
    entry("ROBO_RESOURCE", Form::Text, MARKED, "the mark by which a cycle's processes are found and ended"),
    entry("ROBO_TEST_RUN", Form::Text, MARKED, "the mark by which our tests find leftovers"),
    entry("ROBO_TEST_PLACE", Form::Text, MARKED, "the mark by which our tests find leftovers"),
];

/// Variables that are set for every child of a role, whatever ours are.
pub fn fixed(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Simulator | Role::Interpreter | Role::Pip => &[
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            // Grandchildren are isolated from their working directory and from the user's packages, too.
            ("PYTHONSAFEPATH", "1"),
            ("PYTHONNOUSERSITE", "1"),
        ],
        Role::Tool | Role::Database => &[("LC_ALL", "C")],
        Role::Robo | Role::Stage | Role::Whole => &[],
    }
}

/// What a child of a role gets of these variables.
pub(super) fn inherited(role: Role, ours: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let ours = ours.into_iter();
    if role == Role::Whole {
        return ours.collect();
    }
    let passed = ours.filter_map(|(name, value)| {
        let entry = INHERITED.iter().find(|entry| name == *entry.variable && entry.roles.contains(&role))?;
        Some((name, entry.form.of(value)))
    });
    passed.collect()
}

impl Form {
    fn of(self, value: OsString) -> OsString {
        match self {
            Self::Path if !value.is_empty() => absolute(&value).map_or(value, PathBuf::into_os_string),
            Self::Search => join_paths(split_paths(&value).filter(|it| it.is_absolute())).unwrap_or_default(),
            Self::Words => match value.to_str() {
                Some(text) => text.split_whitespace().map(word).collect::<Vec<_>>().join(OsStr::new(" ")),
                None => value,
            },
            Self::Path | Self::Text => value,
        }
    }
}

/// A word that names a file from here is made to name it from anywhere; addresses stay as they are.
fn word(text: &str) -> OsString {
    match absolute(Path::new(text)) {
        Ok(path) if path.exists() => path.into_os_string(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What decides results or is nobody's business, and where a child must not look for it.
    const REFUSED: [&str; 31] = [
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONINSPECT",
        "PYTHONWARNINGS",
        "PYTHONHASHSEED",
        "PYTHONUSERBASE",
        "PYTHONEXECUTABLE",
        "__PYVENV_LAUNCHER__",
        "MUJOCO_GL",
        "PYOPENGL_PLATFORM",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "GLIBC_TUNABLES",
        "OMP_NUM_THREADS",
        "OPENBLAS_CORETYPE",
        "NVIDIA_TF32_OVERRIDE",
        "LC_ALL",
        "LANG",
        "TZ",
        "PGOPTIONS",
        "PGHOST",
        "PGPASSWORD",
        "DATABASE_URL",
        "ROBO_BACKEND_DATABASE_URL",
        "ROBO_BACKEND_PRIVATE_KEY_FILE",
        "ROBO_SECRETS_DIR",
        "ROBO_ENV_SERVER_TOKEN",
        "ROBO_HOTKEY_NAME",
        "PIP_TARGET",
    ];

    fn names(role: Role, ours: &[&str]) -> Vec<String> {
        let ours = ours.iter().map(|name| (OsString::from(name), OsString::from("/x")));
        inherited(role, ours).into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
    }

    #[test]
    fn what_decides_results_or_is_a_secret_reaches_no_child() {
        for role in Role::LISTED {
            assert_eq!(names(role, &REFUSED), [""; 0], "{role:?}");
        }
        assert_eq!(names(Role::Whole, &REFUSED), REFUSED);
    }

    #[test]
    fn the_programs_of_the_database_inherit_nothing_and_those_of_a_stage_only_the_search_path() {
        let all: Vec<&str> = INHERITED.iter().map(|entry| entry.variable).collect();
        assert_eq!(names(Role::Database, &all), [""; 0]);
        assert_eq!(names(Role::Stage, &all), ["PATH"]);
    }

    #[test]
    fn paths_mean_the_same_in_another_directory() {
        let here = std::env::current_dir().unwrap();
        let given = |name: &str, value: &str| {
            let found = inherited(Role::Pip, [(name.into(), value.into())]);
            found.into_iter().next().unwrap().1.into_string().unwrap()
        };
        assert_eq!(given("PIP_CERT", "a/ca.pem"), here.join("a/ca.pem").display().to_string());
        assert_eq!(given("PIP_CERT", ""), "");
        let source = here.join("src").display().to_string();
        assert_eq!(given("PIP_FIND_LINKS", "https://x/y src"), format!("https://x/y {source}"));
        assert_eq!(given("PATH", ".:/usr/bin::bin:/bin"), "/usr/bin:/bin");
        assert_eq!(given("PIP_INDEX_URL", "src"), "src");
    }

    proptest! {
        #[test]
        fn a_child_gets_no_more_than_the_table_says(
            made_up in prop::collection::vec("[A-Za-z_]{1,12}|(PYTHON|PG|ROBO_|LD_|PIP_|LC_)[A-Z_]{1,12}", 0..30),
            known in prop::sample::subsequence(INHERITED.iter().map(|it| it.variable).collect::<Vec<_>>(), 0..30),
        ) {
            let ours: Vec<&str> = made_up.iter().map(String::as_str).chain(known.iter().copied()).collect();
            for role in Role::LISTED {
                let found = names(role, &ours);
                for name in &found {
                    let entry = INHERITED.iter().find(|entry| entry.variable == *name);
                    prop_assert!(entry.is_some_and(|entry| entry.roles.contains(&role)), "{} gets {}", role.name(), name);
                }
                for entry in INHERITED.iter().filter(|it| it.roles.contains(&role) && known.contains(&it.variable)) {
                    prop_assert!(found.iter().any(|name| name == entry.variable));
                }
            }
        }
    }
}
