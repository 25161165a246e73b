//! What a program carries of the kernels: the decision, and what comes of it.
//!
//! The order: a folder of prebuilt artefacts, nvcc, clang, nothing. Firmware names the folder and gets exactly what
//! its manifest lists, or no program; a developer's machine gets what it can compile, and a compiler that fails costs
//! its artefact and not the build.

use std::path::{Path, PathBuf};

use crate::toolchain::{Compiler, Toolchain};
use crate::{Artefact, FolderError, Job, Kind, Source, compile, folder, target};

/// The variable that names a folder of prebuilt artefacts.
pub const FOLDER_VARIABLE: &str = "PLESIO_KERNELS_DIR";

/// Where a program's kernels come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// From this folder, whole.
    Folder(PathBuf),
    /// From compilers that are here.
    Compile(Vec<Job>),
    /// From nowhere, and why.
    Nothing(String),
}

/// What was decided on, made.
#[derive(Clone, Debug, Default)]
pub struct Embedding {
    /// What the program will carry.
    pub artefacts: Vec<Artefact>,
    /// Why it carries nothing, where it does.
    pub without: Option<String>,
    /// What failed, for whoever builds.
    pub warnings: Vec<String>,
}

impl Delivery {
    /// Decides. `find` is asked only where no folder is named.
    pub fn decide(folder: Option<PathBuf>, find: impl FnOnce() -> Toolchain) -> Self {
        if let Some(folder) = folder {
            return Self::Folder(folder);
        }
        let toolchain = find();
        // Cubins are left out: a developer's machine has one chip, and its driver makes code of the PTX.
        let wanted = target::shipped().into_iter().filter(|target| target.kind() != Kind::Cubin);
        let (mut jobs, mut lack) = (Vec::new(), None);
        for target in wanted {
            let of_nvcc = match target.kind() {
                Kind::Ptx => toolchain.job(&target, Compiler::Nvcc).ok(),
                _ => None,
            };
            match of_nvcc.map_or_else(|| toolchain.job(&target, Compiler::Clang), Ok) {
                Ok(job) => jobs.push(job),
                Err(missing) => lack = lack.or(Some(missing)),
            }
        }
        match lack {
            Some(lack) if jobs.is_empty() => Self::Nothing(lack.to_string()),
            _ => Self::Compile(jobs),
        }
    }

    /// Does what was decided, with the source in `source_folder`. Only a folder can be refused.
    pub fn embed(
        self,
        source: &Source,
        source_folder: &Path,
        scratch: &Path,
    ) -> Result<Embedding, FolderError> {
        let jobs = match self {
            Self::Folder(folder) => {
                let (_, artefacts) = folder::read(&folder, source.digest())?;
                let without = artefacts
                    .is_empty()
                    .then(|| format!("{} holds none: name another folder", folder.display()));
                return Ok(Embedding { artefacts, without, warnings: Vec::new() });
            }
            Self::Compile(jobs) => jobs,
            Self::Nothing(why) => return Ok(Embedding { without: Some(why), ..Embedding::default() }),
        };
        let mut embedding = Embedding::default();
        for result in compile::each(&jobs, &|job: &Job| job.run(source_folder, scratch)) {
            match result {
                Ok(built) => embedding.artefacts.push(built.artefact),
                Err(error) => embedding.warnings.push(error.to_string()),
            }
        }
        if embedding.artefacts.is_empty() {
            embedding.without = Some("every compiler failed: mend what the build warned of".into());
        }
        Ok(embedding)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::Places;
    use crate::folder::tests::Scratch;

    /// A folder with these scripts as its programs.
    fn stubs(scratch: &Scratch, programs: &[(&str, &str)]) -> Toolchain {
        for (name, script) in programs {
            scratch.program(&format!("bin/{name}"), script);
        }
        let bin = scratch.path().join("bin");
        Toolchain::find(&Places { path: bin.into(), cuda: Vec::new() })
    }

    /// Writes its own arguments to what `-o` names, unless `fails` is among them.
    fn clang(scratch: &Scratch, fails: &str) -> String {
        let lld = scratch.path().join("bin/lld");
        format!(
            "case \"$*\" in --version) echo 'clang version 19.1.7'; exit ;; \
             -print-prog-name=lld) echo '{}'; exit ;; *{fails}*) echo 'cannot select' >&2; exit 1 ;; esac\n\
             all=\"$*\"; while [ \"$1\" != -o ]; do shift; done; echo \"$all\" > \"$2\"",
            lld.display()
        )
    }

    fn source(scratch: &Scratch) -> Source {
        scratch.write("plesio.cu", "int unit;\n");
        Source::read(scratch.path()).unwrap()
    }

    fn embed(scratch: &Scratch, delivery: Delivery) -> Result<Embedding, FolderError> {
        delivery.embed(&source(scratch), scratch.path(), scratch.path())
    }

    fn names(artefacts: &[Artefact]) -> Vec<&str> {
        artefacts.iter().map(|artefact| artefact.target.name()).collect()
    }

    const GFX: [&str; 5] = ["gfx906", "gfx90a", "gfx942", "gfx1100", "gfx1151"];

    #[test]
    fn without_compilers_the_build_succeeds_without_kernels() {
        let scratch = Scratch::new("without");
        let delivery = Delivery::decide(None, || stubs(&scratch, &[("cc", "exit 0")]));
        assert!(matches!(&delivery, Delivery::Nothing(why) if why.contains("clang-19")), "{delivery:?}");
        let embedding = embed(&scratch, delivery).unwrap();
        assert!(embedding.artefacts.is_empty() && embedding.warnings.is_empty());
        assert!(embedding.without.unwrap().contains("apt-get install clang-19"));
    }

    #[test]
    fn clang_gives_ptx_and_every_object() {
        let scratch = Scratch::new("clang");
        let script = clang(&scratch, "NOTHING");
        let delivery = Delivery::decide(None, || stubs(&scratch, &[("lld", ""), ("clang-19", &script)]));
        let embedding = embed(&scratch, delivery).unwrap();
        assert_eq!(names(&embedding.artefacts), [&["compute_75"][..], &GFX].concat());
        assert_eq!((embedding.without, embedding.warnings.len()), (None, 0));
    }

    #[test]
    fn nvcc_makes_the_ptx_where_it_is_here_and_clang_the_objects() {
        let scratch = Scratch::new("nvcc");
        let script = clang(&scratch, "NOTHING");
        let nvcc = "case $1 in --version) echo 'release 13.0' ;; --list-gpu-code) echo sm_75 ;; esac";
        let both = [("lld", ""), ("clang-19", script.as_str()), ("nvcc", nvcc)];
        let compilers = |programs: &[(&str, &str)]| match Delivery::decide(None, || stubs(&scratch, programs))
        {
            Delivery::Compile(jobs) => jobs.iter().map(|job| job.compiler).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(compilers(&both), [&[Compiler::Nvcc][..], &[Compiler::Clang; 5]].concat());
        std::fs::remove_file(scratch.path().join("bin/clang-19")).unwrap();
        assert_eq!(compilers(&[]), [Compiler::Nvcc]);
    }

    #[test]
    fn a_compiler_that_fails_costs_its_artefact_and_not_the_build() {
        let scratch = Scratch::new("fails");
        let script = clang(&scratch, "gfx942");
        let delivery = Delivery::decide(None, || stubs(&scratch, &[("lld", ""), ("clang-19", &script)]));
        let embedding = embed(&scratch, delivery).unwrap();
        assert_eq!(names(&embedding.artefacts), ["compute_75", "gfx906", "gfx90a", "gfx1100", "gfx1151"]);
        assert!(
            embedding.warnings[0].contains("gfx942: clang failed")
                && embedding.warnings[0].contains("cannot select")
        );
        assert_eq!(embedding.without, None);

        let script = clang(&scratch, "-o");
        let delivery = Delivery::decide(None, || stubs(&scratch, &[("lld", ""), ("clang-19", &script)]));
        let embedding = embed(&scratch, delivery).unwrap();
        assert_eq!((embedding.artefacts.len(), embedding.warnings.len()), (0, 6));
        assert!(embedding.without.unwrap().contains("every compiler failed"));
    }

    #[test]
    fn a_named_folder_is_taken_whole_or_refused() {
        let scratch = Scratch::new("folder");
        let prebuilt = scratch.path().join("prebuilt");
        let artefacts = [Artefact::new("sm_87".parse().unwrap(), b"cubin".into())];
        folder::write(&prebuilt, source(&scratch).digest(), Vec::new(), &artefacts).unwrap();
        let decide = || Delivery::decide(Some(prebuilt.clone()), || panic!("a named folder is enough"));
        assert_eq!(embed(&scratch, decide()).unwrap().artefacts, artefacts);
        std::fs::write(prebuilt.join("sm_87.cubin"), b"CUBIN").unwrap();
        assert!(matches!(embed(&scratch, decide()), Err(FolderError::Altered { .. })));
        std::fs::remove_dir_all(&prebuilt).unwrap();
        assert!(matches!(embed(&scratch, decide()), Err(FolderError::File { .. })));
    }
}
