//! What versions are decided by: flags that `up`, `demo` and `sim` share. All nodes of a mesh are given the same.

use super::said;
use crate::failure::Failure;
use clap::{Args, ValueEnum};
use plesio::{Lambda, Nesterov, Outer, Rules, WeightMode};
use serde::{Deserialize, Serialize};

/// Absent is the default: a file may say it too.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RulesArgs {
    /// How much a contribution weighs in a version, the same at all nodes [default: mass]
    #[arg(long, env = "PLESIO_WEIGHTS", value_enum)]
    pub(crate) weights: Option<WeightsArg>,

    /// What each version of staleness leaves of that, 0.25 to 1, the same at all nodes; what is taken away goes back to
    /// its node and with a later contribution [default: 1]
    #[arg(long, env = "PLESIO_LAMBDA", value_name = "SHARE")]
    pub(crate) lambda: Option<f64>,

    /// What a version's sum does to the state, the same at all nodes [default: sum]
    #[arg(long, env = "PLESIO_OUTER", value_enum)]
    pub(crate) outer: Option<OuterArg>,

    /// How much of the momentum stays from version to version, 0 to below 1, with --outer nesterov [default: 0.9]
    #[arg(long, env = "PLESIO_OUTER_MU", value_name = "SHARE")]
    pub(crate) outer_mu: Option<f64>,

    /// How much of what comes out of it is done, above 0 to 1, with --outer nesterov [default: 0.2]
    #[arg(long, env = "PLESIO_OUTER_ETA", value_name = "SHARE")]
    pub(crate) outer_eta: Option<f64>,

    /// Most versions that a contribution may lag, 2 to 64, the same at all nodes [default: 4]
    #[arg(long, env = "PLESIO_TAU", value_name = "VERSIONS")]
    pub(crate) tau: Option<u64>,

    /// Contributions above so many times the median norm per step wait, 2 and more, the same at all nodes [default: 8]
    #[arg(long, env = "PLESIO_KAPPA", value_name = "N")]
    pub(crate) kappa: Option<u32>,

    /// Silence after which a member is excluded, 600 to 60000, the same at all nodes [default: 1000]
    #[arg(long, env = "PLESIO_T_DEAD_MS", value_name = "MS")]
    pub(crate) t_dead_ms: Option<u64>,
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

impl WeightsArg {
    /// In the words of the nodes.
    pub(crate) fn mode(self) -> WeightMode {
        match self {
            Self::Mass => WeightMode::Mass,
            Self::Work => WeightMode::Work,
            Self::Equal => WeightMode::Equal,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OuterArg {
    /// It is added
    #[default]
    Sum,
    /// It goes through a momentum, which takes 40 bytes an element more than the sum does
    Nesterov,
}

impl RulesArgs {
    /// What is said here, else what `other` says.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            weights: self.weights.or(other.weights),
            lambda: self.lambda.or(other.lambda),
            outer: self.outer.or(other.outer),
            outer_mu: self.outer_mu.or(other.outer_mu),
            outer_eta: self.outer_eta.or(other.outer_eta),
            tau: self.tau.or(other.tau),
            kappa: self.kappa.or(other.kappa),
            t_dead_ms: self.t_dead_ms.or(other.t_dead_ms),
        }
    }

    /// In the words of the nodes.
    pub(crate) fn rules(&self) -> Result<Rules, Failure> {
        let whole = Rules::default();
        let weights = self.weights.unwrap_or_default().mode();
        let lambda = match self.lambda {
            Some(lambda) => Lambda::new(fixed(lambda, 24))
                .map_err(|_| refused("lambda", lambda, "it must be 0.25 to 1"))?,
            None => whole.lambda,
        };
        let (tau, kappa) = (self.tau.unwrap_or(whole.tau), self.kappa.unwrap_or(whole.kappa));
        if !(2..=64).contains(&tau) {
            return Err(refused("tau", tau, "it must be 2 to 64"));
        }
        if kappa < 2 {
            return Err(refused("kappa", kappa, "it must be 2 or more"));
        }
        let t_dead_ms = self.t_dead_ms.unwrap_or(whole.t_dead_ns / MS);
        if !(600..=60_000).contains(&t_dead_ms) {
            return Err(refused("t_dead_ms", t_dead_ms, "it must be 600 to 60000"));
        }
        Ok(Rules { weights, lambda, outer: self.outer()?, tau, kappa, t_dead_ns: t_dead_ms * MS })
    }

    fn outer(&self) -> Result<Outer, Failure> {
        let said = [("outer_mu", self.outer_mu), ("outer_eta", self.outer_eta)];
        if self.outer.unwrap_or_default() == OuterArg::Sum {
            return match said.into_iter().find_map(|(name, value)| Some((name, value?))) {
                Some((name, value)) => {
                    Err(refused(name, value, "a sum has no momentum; it goes with outer = nesterov"))
                }
                None => Ok(Outer::Sum),
            };
        }
        let tuned = Nesterov::TUNED;
        let mu16 = self.outer_mu.map_or(tuned.mu16(), |mu| fixed(mu, 16));
        let eta16 = self.outer_eta.map_or(tuned.eta16(), |eta| fixed(eta, 16));
        if let Some(mu) = self.outer_mu.filter(|mu| !(0.0..1.0).contains(mu) || mu16 > 65_535) {
            return Err(refused("outer_mu", mu, "it must be 0 to below 1"));
        }
        if let Some(eta) = self.outer_eta.filter(|eta| !(0.0..=1.0).contains(eta) || eta16 == 0) {
            return Err(refused("outer_eta", eta, "it must be above 0, and at most 1"));
        }
        let factors = Nesterov::new(mu16, eta16);
        factors.map(Outer::Nesterov).map_err(|error| refused("outer", "nesterov", &error.to_string()))
    }
}

const MS: u64 = 1_000_000;

/// In units of 2^-bits, which is what nodes compare and reckon with. What is no number becomes zero.
fn fixed(value: f64, bits: i32) -> u32 {
    (value * f64::from(bits).exp2()).round() as u32
}

pub(crate) fn refused(name: &str, value: impl std::fmt::Display, range: &str) -> Failure {
    Failure::usage("config", format!("cannot use {name} = {value}"), range)
        .fix("leave it out for the default")
}

/// As a command line says them; nothing where all are the default.
impl std::fmt::Display for RulesArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&said("weights", self.weights.unwrap_or_default()))?;
        f.write_str(&said("outer", self.outer.unwrap_or_default()))?;
        let numbers = [
            ("lambda", self.lambda.map(|value| value.to_string())),
            ("outer-mu", self.outer_mu.map(|value| value.to_string())),
            ("outer-eta", self.outer_eta.map(|value| value.to_string())),
            ("tau", self.tau.map(|value| value.to_string())),
            ("kappa", self.kappa.map(|value| value.to_string())),
            ("t-dead-ms", self.t_dead_ms.map(|value| value.to_string())),
        ];
        for (flag, value) in numbers {
            if let Some(value) = value {
                write!(f, " --{flag} {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};

    fn read(line: &str) -> RulesArgs {
        let cli = Cli::read(format!("plesio sim {line}").split_whitespace()).expect("sound");
        let Command::Sim(args) = cli.command else { panic!("a sim") };
        args.rules
    }

    #[test]
    fn weights_are_chosen_by_name_and_no_other_is_taken() {
        for (line, said) in [("", ""), ("--weights mass", ""), ("--weights work", " --weights work")] {
            assert_eq!(read(line).to_string(), said);
        }
        let error = Cli::read("plesio up --found --weights heavy".split(' ')).expect_err("no such mode");
        let words = error.to_string();
        for word in ["heavy", "--weights", "mass", "work", "equal"] {
            assert!(words.contains(word), "{words}");
        }
    }

    #[test]
    fn what_is_said_is_what_the_nodes_go_by() {
        assert_eq!(read("").rules().expect("defaults"), Rules::default());
        let line = " --weights equal --outer nesterov --lambda 0.5 --outer-mu 0.5 --outer-eta 1 --tau 8 --kappa 3 \
            --t-dead-ms 2500";
        let said = read(line);
        assert_eq!(
            said.to_string().split_whitespace().collect::<Vec<_>>(),
            line.split_whitespace().collect::<Vec<_>>()
        );
        let rules = said.rules().expect("in range");
        let outer = Outer::Nesterov(Nesterov::new(32_768, 65_536).expect("in range"));
        let lambda = Lambda::new(1 << 23).expect("in range");
        let weights = WeightMode::Equal;
        assert_eq!(rules, Rules { weights, lambda, outer, tau: 8, kappa: 3, t_dead_ns: 2_500_000_000 });
        let tuned = read("--outer nesterov").rules().expect("the recommended ones");
        assert_eq!(tuned.outer, Outer::Nesterov(Nesterov::TUNED));
        let mu_and_eta = read("--outer nesterov --outer-mu 0.9 --outer-eta 0.2").rules().expect("the same");
        assert_eq!(mu_and_eta.outer, tuned.outer);
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_name_value_and_range() {
        for (line, what, range) in [
            ("--lambda 0.24", "lambda = 0.24", "0.25 to 1"),
            ("--lambda 1.1", "lambda = 1.1", "0.25 to 1"),
            ("--lambda NaN", "lambda = NaN", "0.25 to 1"),
            ("--tau 1", "tau = 1", "2 to 64"),
            ("--tau 65", "tau = 65", "2 to 64"),
            ("--kappa 1", "kappa = 1", "2 or more"),
            ("--t-dead-ms 500", "t_dead_ms = 500", "600 to 60000"),
            ("--outer nesterov --outer-mu 1", "outer_mu = 1", "0 to below 1"),
            ("--outer nesterov --outer-eta 0", "outer_eta = 0", "above 0"),
            ("--outer-eta 0.5", "outer_eta = 0.5", "outer = nesterov"),
        ] {
            let refused = read(line).rules().expect_err(line);
            assert!(
                refused.what.contains(what) && refused.cause.contains(range),
                "{line}: {}",
                refused.cause
            );
        }
    }
}
