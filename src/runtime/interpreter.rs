//! Finding a Python that the simulators run on.
//!
//! Asks each candidate for its version by running it; never changes anything.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::python::Error;
use crate::host::{
    child::Program,
    environment::{Role, from_anywhere, python_options},
};

/// The oldest Python that will do.
const OLDEST: (u32, u32) = (3, 11);
/// The newest one that today's simulators have wheels for; a newer one is taken when there is no other.
const NEWEST_TRIED: (u32, u32) = (3, 13);
/// Names that are tried, the user's own choice of default first.
const NAMES: [&str; 6] = ["python3", "python3.13", "python3.12", "python3.11", "python3.14", "python"];

/// A version, as 3.11.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// An interpreter that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

/// A Python that sees neither the user's own settings nor what lies in the current directory.
pub(super) fn program(role: Role, name: &str, path: &Path) -> Program {
    Program::new(role, name, path).args(python_options(role))
}

/// A Python that runs a command of our package.
pub(super) fn simulator(name: &str, path: &Path, package: &Path) -> Program {
    program(Role::Simulator, name, path)
        .env("PYTHONPATH", from_anywhere(package))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-m", "robo_eval_env"])
}

/// The interpreter to use: `chosen`, or the first suitable one of the usual names.
pub(super) async fn find(chosen: Option<&Path>) -> Result<Interpreter, Error> {
    if let Some(path) = chosen {
        let version = version_of(path).await.map_err(|problem| Error::ChosenPython { path: path.into(), problem })?;
        return if (version.0, version.1) >= OLDEST {
            Ok(Interpreter { path: path.into(), version })
        } else {
            Err(Error::ChosenPython { path: path.into(), problem: format!("it is Python {version}") })
        };
    }
    let mut found = Vec::new();
    for name in NAMES {
        if let Ok(version) = version_of(Path::new(name)).await {
            found.push(Interpreter { path: name.into(), version });
        }
    }
    select(&found).cloned().ok_or_else(|| {
        let found = found.iter().map(|it| format!("`{}` is {}", it.path.display(), it.version));
        Error::NoPython { found: found.collect::<Vec<_>>().join(", ") }
    })
}

fn select(found: &[Interpreter]) -> Option<&Interpreter> {
    let suits = |it: &&Interpreter| (it.version.0, it.version.1) >= OLDEST;
    let is_tried = |it: &&Interpreter| (it.version.0, it.version.1) <= NEWEST_TRIED;
    found.iter().filter(suits).find(is_tried).or_else(|| found.iter().find(suits))
}

/// Its version, or why it has none.
pub(super) async fn version_of(path: &Path) -> Result<Version, String> {
    const QUESTION: &str = "import sys; sys.stdout.write('%d %d %d\\n' % tuple(sys.version_info[:3]))";
    let run = async {
        let mut child = program(Role::Interpreter, "python", path).args(["-c", QUESTION]).start().await?;
        let line = child.next_line().await;
        let status = child.wait().await?;
        Ok(match line {
            Some(line) if status.success() => Ok(line),
            _ => Err(format!("it cannot be run ({status})")),
        })
    };
    let line = match timeout(Duration::from_secs(30), run).await {
        Err(_) => return Err("it did not answer within 30 seconds".into()),
        Ok(Err::<_, crate::host::child::ChildError>(_)) => return Err("it cannot be started".into()),
        Ok(Ok(line)) => line?,
    };
    let numbers: Vec<u32> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [major, minor, patch] => Ok(Version(major, minor, patch)),
        _ => Err(format!("it does not say its version but `{line}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tried_version_goes_before_a_newer_one_and_old_ones_are_refused() {
        let python = |name: &str, minor| Interpreter { path: name.into(), version: Version(3, minor, 0) };
        let name = |found: &[Interpreter]| select(found).map(|it| it.path.display().to_string());
        assert_eq!(name(&[python("python3", 12), python("python3.13", 13)]).as_deref(), Some("python3"));
        assert_eq!(name(&[python("python3", 9), python("python3.11", 11)]).as_deref(), Some("python3.11"));
        assert_eq!(name(&[python("python3", 14), python("python3.13", 13)]).as_deref(), Some("python3.13"));
        assert_eq!(name(&[python("python3", 14)]).as_deref(), Some("python3"));
        assert_eq!(name(&[python("python3", 10)]), None);
    }
}
