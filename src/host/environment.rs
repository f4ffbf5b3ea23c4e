//! The one place that makes a process of a program: with what it inherits, and where it works.
//!
//! A test keeps it the one place. It starts nothing.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub use crate::config::Role;
use crate::config::{fixed, inherited};

/// A program by its path or its name in PATH, with an environment of its role and nothing else.
pub fn command(role: Role, program: &Path) -> Command {
    let mut command = Command::new(located(program));
    command.env_clear().envs(inherited(role)).envs(fixed(role).iter().copied());
    command
}

/// The options of a Python of this role: neither its working directory nor the user's own packages are searched.
pub fn python_options(role: Role) -> &'static [&'static str] {
    match role {
        // It gets our package by PYTHONPATH, which `-I` would ignore.
        Role::Simulator => &["-P", "-s"],
        // Older versions do not know `-P`, and are to say their version all the same.
        _ => &["-I"],
    }
}

/// A path that means the same in every directory; as it is where the current directory is gone.
pub fn from_anywhere(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// An empty directory that only we may enter. It goes away with the value.
///
/// # Errors
/// What the system says.
pub fn private_directory() -> io::Result<TempDir> {
    let ours_alone = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("robo-child-").permissions(ours_alone).tempdir()
}

/// A name is looked for in PATH; a path is made to mean the same in the child's directory.
fn located(program: &Path) -> PathBuf {
    match program.components().count() {
        0 | 1 => program.to_owned(),
        _ => from_anywhere(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_to_a_program_means_the_same_elsewhere_and_a_name_stays_a_name() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(located(Path::new("python3")), Path::new("python3"));
        assert_eq!(located(Path::new("venv/bin/python")), here.join("venv/bin/python"));
        // `components` drops the dot in the middle of a path, not at its beginning.
        assert_eq!(located(Path::new("./robo")), here.join("robo"));
        assert_eq!(located(Path::new("/bin/sh")), Path::new("/bin/sh"));
    }

    #[test]
    fn a_working_directory_is_empty_ours_alone_and_goes_away() {
        let made = private_directory().unwrap();
        let path = made.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        drop(made);
        assert!(!path.exists());
    }
}
