//! What versions are decided by: flags that `up`, `demo` and `sim` share. All nodes of a mesh are given the same.

use super::said;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Absent is the default: a file may say it too.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct RulesArgs {
    /// How much a contribution weighs in a version, the same at all nodes [default: mass]
    #[arg(long, env = "PLESIO_WEIGHTS", value_enum)]
    pub(crate) weights: Option<WeightsArg>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WeightsArg {
    /// One part of as many as there are members, whoever contributes: for members with different data
    #[default]
    Mass,
    /// By the steps in it, among those that the version counts: for members that draw from one pool of data
    Work,
    /// Equal parts among those that the version counts: for comparison
    Equal,
}

impl RulesArgs {
    /// What is said here, else what `other` says.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { weights: self.weights.or(other.weights) }
    }

    pub(crate) fn rules(&self) -> plesio::Rules {
        let weights = match self.weights.unwrap_or_default() {
            WeightsArg::Mass => plesio::WeightMode::Mass,
            WeightsArg::Work => plesio::WeightMode::Work,
            WeightsArg::Equal => plesio::WeightMode::Equal,
        };
        plesio::Rules { weights }
    }
}

/// As a command line says them; nothing where all are the default.
impl std::fmt::Display for RulesArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&said("weights", self.weights.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};

    #[test]
    fn weights_are_chosen_by_name_and_no_other_is_taken() {
        for (line, said) in
            [("sim", ""), ("sim --weights mass", ""), ("sim --weights work", " --weights work")]
        {
            let cli = Cli::read(format!("plesio {line}").split(' ')).expect("sound");
            let Command::Sim(args) = cli.command else { panic!("a sim") };
            assert_eq!(args.rules.to_string(), said);
        }
        let error = Cli::read("plesio up --found --weights heavy".split(' ')).expect_err("no such mode");
        let words = error.to_string();
        for word in ["heavy", "--weights", "mass", "work", "equal"] {
            assert!(words.contains(word), "{words}");
        }
    }
}
