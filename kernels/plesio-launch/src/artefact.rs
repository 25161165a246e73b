//! Compiled kernels: those that this program carries, those of a folder, and which of them a chip runs.
//!
//! Knows which machine code runs where and which driver takes which text. Does not know a runtime: nothing is loaded
//! here. Invariant: what [`Artefacts::choose`] gives is whole, compiled from the source of this program, and for this
//! chip.

use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

pub use plesio_artefact::{Artefact, Digest, FolderError, Kind, Target};
use plesio_artefact::{driver, folder};

use crate::Chip;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Chips whose machine code is theirs alone, and that run no other chip's: NVIDIA's for cars and robots.
const ALONE: [u32; 6] = [53, 62, 72, 87, 101, 110];

/// Kernels, one artefact for each target.
#[derive(Clone, Debug)]
pub struct Artefacts(Vec<Artefact>);

/// Whether a chip runs an artefact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fit {
    /// It does; the less the number, the nearer to the chip.
    Runs(u32),
    /// It would, with a driver of this version or later, as drivers tell theirs.
    Driver(u32),
    /// It is for other chips.
    Other,
}

/// Why there is no kernel for a chip; what mends it is [`ArtefactError::fix`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ArtefactError {
    /// Nothing was embedded when this program was built.
    Without {
        /// What the build lacked.
        why: &'static str,
    },
    /// Nothing here runs on the chip.
    Chip {
        /// The chip's name, and its architecture.
        chip: String,
        /// What the compilers call it.
        architecture: String,
        /// What there is.
        targets: Vec<String>,
    },
    /// The driver is older than everything that would run on the chip.
    Driver {
        /// The chip's name, and its architecture.
        chip: String,
        /// The driver's version as it tells it.
        found: u32,
        /// The artefact that needs the least.
        target: Target,
        /// The version that it needs.
        least: u32,
    },
    /// The bytes are not those that were compiled.
    Altered {
        /// Which artefact.
        target: Target,
    },
    /// A folder is refused.
    Folder(FolderError),
}

impl fmt::Display for ArtefactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without { why } => write!(f, "built without kernels: {why}"),
            Self::Chip { chip, targets, .. } => {
                let targets = if targets.is_empty() { "none".into() } else { targets.join(", ") };
                write!(f, "no kernel for {chip}: there are {targets}")
            }
            Self::Driver { chip, found, target, least } => write!(
                f,
                "the driver of {chip} is of CUDA {} and {target} needs {}",
                driver::spell(*found),
                driver::spell(*least)
            ),
            Self::Altered { target } => write!(f, "the kernels for {target} are altered"),
            Self::Folder(error) => write!(f, "{error}"),
        }
    }
}

impl ArtefactError {
    /// What mends it, for a program that is told of a folder of artefacts as `folder` says: `--kernels DIR`.
    #[must_use]
    pub fn fix(&self, folder: &str) -> String {
        match self {
            Self::Without { .. } => {
                "do that, then cargo clean --package plesio-launch and build again".into()
            }
            Self::Chip { architecture, .. } => {
                let ptx = architecture.parse::<Target>().ok().and_then(|target| target.ptx_instead());
                let target = ptx.as_ref().map_or(architecture.as_str(), Target::name);
                format!("cargo xtask kernels --target {target} --out DIR, and {folder}")
            }
            Self::Driver { .. } => "update the driver".into(),
            Self::Altered { .. } => "install this program again".into(),
            Self::Folder(_) => folder::FIX.into(),
        }
    }
}

impl std::error::Error for ArtefactError {}

/// What this program carries.
///
/// # Errors
/// [`ArtefactError::Without`] where it was built without kernels.
pub fn available() -> Result<&'static Artefacts, ArtefactError> {
    static CARRIED: LazyLock<Artefacts> = LazyLock::new(|| {
        let parsed = EMBEDDED.iter().map(|(name, digest, bytes)| {
            let target = name.parse().expect("the build writes names of targets");
            Artefact { target, bytes: (*bytes).into(), digest: *digest }
        });
        Artefacts::new(parsed.collect())
    });
    if EMBEDDED.is_empty() { Err(ArtefactError::Without { why: WITHOUT }) } else { Ok(&CARRIED) }
}

/// What of it the chip runs.
///
/// # Errors
/// As [`available`] and [`Artefacts::choose`].
pub fn choose(chip: &Chip) -> Result<&'static Artefact, ArtefactError> {
    available()?.choose(chip)
}

impl Artefacts {
    /// Those that were made here and now.
    #[must_use]
    pub const fn new(artefacts: Vec<Artefact>) -> Self {
        Self(artefacts)
    }

    /// Reads all that a folder's manifest lists, where it was built from the same source as this program: parameters
    /// of another source would be misread.
    ///
    /// # Errors
    /// [`ArtefactError::Folder`] says which file and why.
    pub fn read(folder: &Path) -> Result<Self, ArtefactError> {
        let (_, artefacts) = folder::read(folder, SOURCE).map_err(ArtefactError::Folder)?;
        Ok(Self::new(artefacts))
    }

    /// What they are for.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.0.iter().map(|artefact| &artefact.target)
    }

    /// Each of them, and whether a chip runs it.
    pub fn fits<'a>(&'a self, chip: &Chip) -> impl Iterator<Item = (&'a Artefact, Fit)> {
        self.0.iter().map(move |artefact| {
            let fit = match (rank(&artefact.target, &chip.architecture), driver::least(artefact)) {
                (None, _) => Fit::Other,
                (Some(_), Some(least)) if chip.driver < least => Fit::Driver(least),
                (Some(distance), _) => Fit::Runs(distance),
            };
            (artefact, fit)
        })
    }

    /// The best one for a chip: its own machine code, then a near relation's, then text for its driver to compile.
    ///
    /// # Errors
    /// Nothing runs there, the driver is too old for what would, or it is altered.
    pub fn choose(&self, chip: &Chip) -> Result<&Artefact, ArtefactError> {
        let best = self.fits(chip).filter_map(|(artefact, fit)| match fit {
            Fit::Runs(distance) => Some((distance, artefact)),
            Fit::Driver(_) | Fit::Other => None,
        });
        let Some((_, artefact)) = best.min_by_key(|(distance, _)| *distance) else {
            let newer = self.fits(chip).filter_map(|(artefact, fit)| match fit {
                Fit::Driver(least) => Some((least, &artefact.target)),
                Fit::Runs(_) | Fit::Other => None,
            });
            return Err(match newer.min() {
                Some((least, target)) => ArtefactError::Driver {
                    chip: chip.to_string(),
                    found: chip.driver,
                    target: target.clone(),
                    least,
                },
                None => ArtefactError::Chip {
                    chip: chip.to_string(),
                    architecture: chip.architecture.clone(),
                    targets: self.targets().map(Target::to_string).collect(),
                },
            });
        };
        if artefact.is_whole() {
            Ok(artefact)
        } else {
            Err(ArtefactError::Altered { target: artefact.target.clone() })
        }
    }
}

/// How far a target is from a chip that runs it, none where it does not: the CUDA programming guide's rules of binary
/// and PTX compatibility. AMD's machine code runs on its own architecture alone.
fn rank(target: &Target, architecture: &str) -> Option<u32> {
    let exact = target.name() == architecture;
    let chip = architecture.parse::<Target>().ok()?;
    match (target.kind(), target.capability(), chip.capability()) {
        (Kind::Ptx, Some(least), Some(chip)) => chip.checked_sub(least).map(|distance| PTX_RANK + distance),
        (Kind::Cubin, ..) if exact => Some(0),
        (Kind::Cubin, Some(of), Some(chip)) => {
            let family = of / 10 == chip / 10 && !ALONE.contains(&of) && !ALONE.contains(&chip);
            chip.checked_sub(of).filter(|_| family)
        }
        (Kind::CodeObject, ..) => exact.then_some(0),
        _ => None,
    }
}

/// Farther than any machine code.
const PTX_RANK: u32 = 1000;

#[cfg(test)]
mod tests;
