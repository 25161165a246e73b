//! What versions are decided by: flags that `up`, `demo` and `sim` share. All nodes of a mesh are given the same.

use super::said;
use crate::failure::Failure;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Absent is the default: a file may say it too.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct RulesArgs {
    /// How much a contribution weighs in a version, the same at all nodes [default: mass]
    #[arg(long, env = "PLESIO_WEIGHTS", value_enum)]
    pub(crate) weights: Option<WeightsArg>,

    /// What each version of staleness leaves of that, 0.25 to 1, the same at all nodes; what is taken away goes back to
    /// its node and with a later contribution [default: 1]
    #[arg(long, env = "PLESIO_LAMBDA", value_name = "SHARE", value_parser = lambda)]
    pub(crate) lambda: Option<f64>,
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
        Self { weights: self.weights.or(other.weights), lambda: self.lambda.or(other.lambda) }
    }

    pub(crate) fn rules(&self) -> plesio::Rules {
        let weights = match self.weights.unwrap_or_default() {
            WeightsArg::Mass => plesio::WeightMode::Mass,
            WeightsArg::Work => plesio::WeightMode::Work,
            WeightsArg::Equal => plesio::WeightMode::Equal,
        };
        let whole = plesio::Rules::default();
        let lambda = self.lambda.map_or(whole.lambda, |lambda| discount(lambda).unwrap_or(whole.lambda));
        plesio::Rules { weights, lambda }
    }

    /// A file's values are checked here; flags were before.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refused = |name: &str, value: String, range: &str| {
            Err(Failure::usage(
                "config",
                format!("cannot use {name} = {value}"),
                format!("it must be {range}"),
            )
            .fix("leave it out for the default"))
        };
        match self.lambda {
            Some(lambda) if discount(lambda).is_none() => refused("lambda", lambda.to_string(), LAMBDA),
            _ => Ok(()),
        }
    }
}

const LAMBDA: &str = "0.25 to 1";

/// In units of 2^-24: what the nodes compare and reckon with.
fn discount(lambda: f64) -> Option<plesio::Lambda> {
    let q24 = (lambda * f64::from(1 << 24)).round();
    // A number that is none becomes zero, which is refused.
    plesio::Lambda::new(q24 as u32).ok()
}

fn lambda(text: &str) -> Result<f64, String> {
    let lambda = text.parse().ok().filter(|lambda| discount(*lambda).is_some());
    lambda.ok_or_else(|| format!("lambda is {LAMBDA}"))
}

/// As a command line says them; nothing where all are the default.
impl std::fmt::Display for RulesArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&said("weights", self.weights.unwrap_or_default()))?;
        match self.lambda.filter(|lambda| *lambda != 1.0) {
            Some(lambda) => write!(f, " --lambda {lambda}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RulesArgs;
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
        for (text, taken) in
            [("0.25", true), ("1", true), ("0.9", true), ("0.2", false), ("1.1", false), ("NaN", false)]
        {
            let line = ["plesio", "sim", "--lambda", text];
            assert_eq!(Cli::read(line).is_ok(), taken, "{text}");
        }
        let error = Cli::read("plesio up --found --lambda 0.1".split(' ')).expect_err("too little");
        assert!(error.to_string().contains("0.25 to 1"), "{error}");
        let said = RulesArgs { lambda: Some(0.1), ..RulesArgs::default() };
        let refused = said.check().expect_err("as in a file");
        assert!(refused.what.contains("lambda = 0.1") && refused.cause.contains("0.25 to 1"));
        let error = Cli::read("plesio up --found --weights heavy".split(' ')).expect_err("no such mode");
        let words = error.to_string();
        for word in ["heavy", "--weights", "mass", "work", "equal"] {
            assert!(words.contains(word), "{words}");
        }
    }
}
