//! The driver's library: opened once for the process when somebody first asks, or never.
//!
//! Opening never panics and says why there is nothing to open. `cudarc` finds the library by the names that it has
//! had; its other calls are not made before it said that one is there.
#![expect(unsafe_code, reason = "a library is foreign code, and so are its functions")]

use std::ffi::c_int;
use std::sync::OnceLock;

use cudarc::driver::sys::{culib, is_culib_present};
use plesio_launch::Absence;

use crate::error::check;
use crate::sys::{Status, Table, VERSION_MIN};

/// The driver, ready to be called.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) table: Table,
    /// CUDA 13.0 is 13000.
    pub(crate) version: u32,
}

/// The driver, or why there is none; what was found first stays so for the process.
pub(crate) fn driver() -> Result<&'static Driver, &'static Absence> {
    static DRIVER: OnceLock<Result<Driver, Absence>> = OnceLock::new();
    DRIVER.get_or_init(load).as_ref()
}

fn load() -> Result<Driver, Absence> {
    // SAFETY: opening the driver's library runs its initialisers, which only prepare it.
    if !unsafe { is_culib_present() } {
        return Err(missing());
    }
    // SAFETY: as above; it is there, so this does not panic.
    let library = unsafe { culib() };
    let version = version(library)?;
    if version < VERSION_MIN {
        return Err(Absence::Old { found: told(version), least: "CUDA 11.4" });
    }
    // SAFETY: the signatures are cudarc's, and its library stays open for the process.
    let table = unsafe { Table::of(library) }?;
    // SAFETY: takes a number that must be zero; may be called any number of times.
    let status = unsafe { (table.cuInit)(0) };
    check("cuInit", status).map_err(Absence::Refusing)?;
    Ok(Driver { table, version: u32::try_from(version).unwrap_or(0) })
}

/// Asked before anything else: an old driver lacks functions, and its age says more than their names.
fn version(library: &libloading::Library) -> Result<c_int, Absence> {
    const NAME: &str = "cuDriverGetVersion";
    // SAFETY: the type is that of the table, which is cudarc's.
    let ask = unsafe { library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(NAME) };
    let ask = ask.map_err(|_| Absence::Incomplete(NAME))?;
    let mut version = 0;
    // SAFETY: writes one number; needs no initialised driver.
    let status = unsafe { ask(&mut version) };
    check(NAME, status).map_err(Absence::Refusing)?;
    Ok(version)
}

fn told(version: c_int) -> String {
    format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
}

/// What the loader says to the name that every driver has: it may be there and lack something itself.
fn missing() -> Absence {
    // SAFETY: as in `load`; what opens after all is closed again.
    let opened = unsafe { libloading::Library::new("libcuda.so.1") };
    Absence::Missing(opened.err().map_or_else(|| "the library comes and goes".into(), |error| reason(&error)))
}

fn reason(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn versions_are_told_as_people_know_them() {
        assert_eq!(told(11_040), "CUDA 11.4");
        assert_eq!(told(13_000), "CUDA 13.0");
    }

    #[test]
    fn without_a_driver_it_says_so_within_five_milliseconds() {
        let tries: Vec<_> = (0..5)
            .map(|_| {
                let begin = Instant::now();
                (load(), begin.elapsed())
            })
            .collect();
        let Some(Err(Absence::Missing(why))) = tries.first().map(|(loaded, _)| loaded) else {
            println!("skipped: there is a driver here");
            return;
        };
        assert!(why.starts_with("libcuda.so.1: "), "{why}");
        let fastest = tries.iter().map(|(_, took)| *took).min().expect("five tries");
        assert!(fastest < Duration::from_millis(5), "{fastest:?}");
    }
}
