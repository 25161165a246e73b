//! What artefacts are built for, named as the vendors' compilers name it: `sm_90`, `compute_75`, `gfx942`.
//!
//! Invariant: a target's name is short, lower case and free of separators, so that it can be a file's name and a
//! compiler's argument.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Every target that a release carries: assembler text for NVIDIA's chips from Turing on, machine code for what
/// appliances hold.
pub const SHIPPED: [&str; 12] = [
    "compute_75",
    "sm_75",
    "sm_80",
    "sm_87",
    "sm_90",
    "sm_100",
    "sm_110", // NVIDIA
    "gfx906",
    "gfx90a",
    "gfx942",
    "gfx1100",
    "gfx1151", // AMD
];

/// What the bytes of an artefact are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// NVIDIA's assembler text: the driver makes code of it for its chip and every later one.
    Ptx,
    /// NVIDIA's machine code.
    Cubin,
    /// AMD's machine code.
    CodeObject,
}

/// One architecture.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Target {
    kind: Kind,
    name: String,
}

impl Target {
    /// What the bytes for it are.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The compilers' name of it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// NVIDIA's compute capability: 90 is 9.0, 110 is 11.0.
    #[must_use]
    pub fn capability(&self) -> Option<u32> {
        match self.kind {
            Kind::Ptx => self.name.strip_prefix(PTX),
            Kind::Cubin => self.name.strip_prefix(CUBIN),
            Kind::CodeObject => None,
        }
        .and_then(|digits| digits.parse().ok())
    }

    /// What serves in the place of machine code that no compiler of today makes, for NVIDIA's chips before Turing:
    /// text, which clang makes and their drivers compile.
    #[must_use]
    pub fn ptx_instead(&self) -> Option<Self> {
        let capability = self.capability().filter(|capability| LEFT_BEHIND.contains(capability))?;
        (self.kind == Kind::Cubin).then(|| Self { kind: Kind::Ptx, name: format!("{PTX}{capability}") })
    }

    /// What a folder calls the artefact.
    #[must_use]
    pub fn file_name(&self) -> String {
        let extension = match self.kind {
            Kind::Ptx => "ptx",
            Kind::Cubin => "cubin",
            Kind::CodeObject => "co",
        };
        format!("{}.{extension}", self.name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// A name that no compiler has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownTarget(String);

impl fmt::Display for UnknownTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no architecture; use sm_NN, compute_NN or gfxNNN, such as sm_90", self.0)
    }
}

impl std::error::Error for UnknownTarget {}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Self, UnknownTarget> {
        let capability = |digits: &str| {
            (2..=3).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
        };
        // AMD counts its steppings in hexadecimal: gfx90a.
        let stepping = |digits: &str| {
            (3..=4).contains(&digits.len())
                && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let kind = if name.strip_prefix(PTX).is_some_and(capability) {
            Kind::Ptx
        } else if name.strip_prefix(CUBIN).is_some_and(capability) {
            Kind::Cubin
        } else if name.strip_prefix(CODE_OBJECT).is_some_and(stepping) {
            Kind::CodeObject
        } else {
            return Err(UnknownTarget(name.chars().take(NAME_CHARS_TOLD).collect()));
        };
        Ok(Self { kind, name: name.into() })
    }
}

const PTX: &str = "compute_";
const CUBIN: &str = "sm_";
const CODE_OBJECT: &str = "gfx";
/// Capabilities that clang knows and nvcc does not any more, from its release 13 on.
const LEFT_BEHIND: Range<u32> = 35..75;
/// A name from a file may be long; so much of it is told.
const NAME_CHARS_TOLD: usize = 32;

/// The targets of a release.
///
/// # Panics
/// Never: a test parses every name.
#[must_use]
pub fn shipped() -> Vec<Target> {
    SHIPPED.iter().map(|name| name.parse().expect("shipped names are targets")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_names_are_targets_and_no_two_share_a_file() {
        let mut files: Vec<String> = shipped().iter().map(Target::file_name).collect();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), SHIPPED.len());
        let kinds = |kind| shipped().iter().filter(|target| target.kind() == kind).count();
        assert_eq!([kinds(Kind::Ptx), kinds(Kind::Cubin), kinds(Kind::CodeObject)], [1, 6, 5]);
    }

    #[test]
    fn capabilities_are_numbers_of_nvidia_alone() {
        let capability = |name: &str| name.parse::<Target>().unwrap().capability();
        assert_eq!(capability("sm_110"), Some(110));
        assert_eq!(capability("compute_75"), Some(75));
        assert_eq!(capability("gfx906"), None);
    }

    #[test]
    fn text_takes_the_place_of_machine_code_for_chips_before_turing_alone() {
        let instead = |name: &str| name.parse::<Target>().unwrap().ptx_instead();
        for (name, text) in [("sm_61", "compute_61"), ("sm_72", "compute_72")] {
            assert_eq!(instead(name), Some(text.parse().unwrap()));
        }
        for name in ["sm_11", "sm_75", "sm_110", "compute_61", "gfx906"] {
            assert_eq!(instead(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let long = "sm_".to_string() + &"9".repeat(1 << 20);
        for name in [
            "",
            "sm_",
            "sm_9",
            "sm_90a",
            "sm_-1",
            "sm_1000",
            "SM_90",
            "compute_7.5",
            "gfx",
            "gfx90A",
            "gfx90g",
            "gfx11000",
            "../sm_90",
            "sm_90/../x",
            "sm_90 ",
            "sm_९०",
            long.as_str(),
        ] {
            let refusal = name.parse::<Target>().unwrap_err().to_string();
            assert!(refusal.len() < 200, "{refusal}");
        }
    }
}
