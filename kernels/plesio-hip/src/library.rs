//! The runtime's library: opened once for the process when somebody first asks, or never.
//!
//! Opening never panics and says why there is nothing to open.
#![expect(unsafe_code, reason = "a library is foreign code, and so are its functions")]

use std::error::Error;
use std::ffi::c_int;
use std::sync::OnceLock;

use libloading::Library;
use plesio_launch::Absence;

use crate::error::check;
use crate::sys::{Status, Table, VERSION_MIN};

/// The names under which the runtime may be there, newest first; the last is that of a machine that builds for it.
const NAMES: [&str; 4] = ["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"];

/// The runtime, ready to be called.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) table: Table,
    /// HIP 6.2 is 60200000.
    pub(crate) version: u32,
    /// Never closed: the runtime keeps threads.
    _library: Library,
}

/// The runtime, or why there is none; what was found first stays so for the process.
pub(crate) fn driver() -> Result<&'static Driver, &'static Absence> {
    static DRIVER: OnceLock<Result<Driver, Absence>> = OnceLock::new();
    DRIVER.get_or_init(load).as_ref()
}

fn load() -> Result<Driver, Absence> {
    let library = open()?;
    let version = version(&library)?;
    if version < VERSION_MIN {
        return Err(Absence::Old { found: told(version), least: "HIP 5.0" });
    }
    // SAFETY: the signatures are those of AMD's headers, and the library is kept with the table.
    let table = unsafe { Table::of(&library) }?;
    // SAFETY: takes a number that must be zero; may be called any number of times.
    let status = unsafe { (table.hipInit)(0) };
    check("hipInit", status).map_err(Absence::Refusing)?;
    Ok(Driver { table, version: u32::try_from(version).unwrap_or(0), _library: library })
}

/// The newest library that opens; else what the loader said to one that is there and does not, or to the last name.
fn open() -> Result<Library, Absence> {
    let mut why = String::new();
    for name in NAMES {
        // SAFETY: opening the runtime's library runs its initialisers, which only prepare it.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(error) => {
                let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                // A name that is not there is what the loader complains of itself; another one is what a library
                // lacks.
                if why.is_empty() || why.starts_with("libamdhip64") {
                    why = said;
                }
            }
        }
    }
    Err(Absence::Missing(why))
}

/// Asked before anything else: an old runtime lacks functions, and its age says more than their names.
fn version(library: &Library) -> Result<c_int, Absence> {
    const NAME: &str = "hipRuntimeGetVersion";
    // SAFETY: the type is that of the table.
    let ask = unsafe { library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(NAME) };
    let ask = ask.map_err(|_| Absence::Incomplete(NAME))?;
    let mut version = 0;
    // SAFETY: writes one number.
    let status = unsafe { ask(&mut version) };
    check(NAME, status).map_err(Absence::Refusing)?;
    Ok(version)
}

fn told(version: c_int) -> String {
    format!("HIP {}.{}", version / 10_000_000, version % 10_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn versions_are_told_as_people_know_them() {
        assert_eq!(told(50_221_153), "HIP 5.2");
        assert_eq!(told(60_200_000), "HIP 6.2");
    }

    #[test]
    fn without_a_runtime_it_says_so_within_five_milliseconds() {
        let tries: Vec<_> = (0..5)
            .map(|_| {
                let begin = Instant::now();
                (load(), begin.elapsed())
            })
            .collect();
        let Some(Err(Absence::Missing(why))) = tries.first().map(|(loaded, _)| loaded) else {
            println!("skipped: there is a runtime here");
            return;
        };
        assert!(why.starts_with("libamdhip64.so: "), "{why}");
        let fastest = tries.iter().map(|(_, took)| *took).min().expect("five tries");
        assert!(fastest < Duration::from_millis(5), "{fastest:?}");
    }
}
