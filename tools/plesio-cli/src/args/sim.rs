//! What `plesio sim` reads in ways of its own: seeds, and which of its flags were said at all.

use super::Cli;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, ValueEnum};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a scenario says.
pub(super) const SCENARIO: &str = "A scenario says what the flags say, links as flags too, and what strikes when; all may be left out:\n  \
        nodes = 4                  seconds = 20           faults = \"all\"\n  \
        seeds = \"0..10\"            # without: seed 0 alone, not the 200 that --seeds has without a file\n  \
        network = \"lan\"            # what --links says: drawn, lan or wifi\n  \
        clock_error = 0.5          no_hysteresis = true   # as the flags: 0 to 8 frames; true or false\n  \
        period_ms = 250            period_min_ms = 125    period_max_ms = 4000   # it follows links and steps in that range\n  \
        ring_depth = 4             elements = 64      codec = \"i32\"     shares = \"rate\"\n  \
        rules = { tau = 8 }        # a flag replaces the rule that it says\n  \
        links = \"--loss 1% --delay 2ms\"   # flags of a bad path replace these as a whole: give all\n  \
        [[fault]]                  # any of them: nothing is drawn from faults\n  \
        kind = \"crash\"             # as in --faults\n  \
        at_s = 3.0                 for_s = 1.5            # without: it stays down, other kinds last on\n  \
        node = 2                   level = 50             # 1 to 100, of the worst that this kind does\n  \
        reach = \"from\"             # of faults of links alone: into or from the node; or to = N; or side = [0, 1]";

/// What ways between simulated hosts are like.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinksArg {
    /// Every seed draws one: from loopback to two cities
    #[default]
    Drawn,
    /// One switch: 0.2 ms, 0.05 up and down; frames of 0.5 s
    Lan,
    /// One busy access point: median 3 ms, 90 % within 20, 99 % within 200, 1 % lost, in rows; frames of 1 s
    Wifi,
}

impl LinksArg {
    pub(crate) fn profile(self) -> Option<plesio_sim::Profile> {
        match self {
            Self::Drawn => None,
            Self::Lan => Some(plesio_sim::Profile::Lan),
            Self::Wifi => Some(plesio_sim::Profile::Wifi),
        }
    }
}

/// The flags that say what is simulated, as far as line or environment said them; a scenario says the rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said(pub(crate) Vec<String>);

/// All that there are.
const NAMES: [&str; 26] = [
    "nodes",
    "seeds",
    "seed",
    "faults",
    "seconds",
    "codec",
    "shares",
    "clock_error",
    "links",
    "no_hysteresis",
    "weights",
    "lambda",
    "outer",
    "outer_mu",
    "outer_eta",
    "tau",
    "kappa",
    "t_dead_ms",
    "loss",
    "burst",
    "delay",
    "jitter",
    "reorder",
    "dup",
    "corrupt",
    "rate",
];

impl Said {
    /// # Errors
    /// Flags on the line beside a record, which says all but the seeds.
    pub(super) fn of(found: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let is_said = |name: &&str| {
            matches!(found.value_source(name), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        let said: Vec<&str> = NAMES.into_iter().filter(is_said).collect();
        let on_line = |name: &str| found.value_source(name) == Some(ValueSource::CommandLine);
        let clash = said.iter().find(|name| on_line(name) && !name.starts_with("seed"));
        if let Some(name) = clash.filter(|_| on_line("replay")) {
            let name = name.replace('_', "-");
            let text = format!("the argument '--{name}' cannot be used with '--replay': the record says it");
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, text));
        }
        Ok(Self(said.into_iter().map(Into::into).collect()))
    }
}

/// `A..B`.
pub(crate) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write it as A..B, for example 0..200")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let seeds = number(from)?..number(to)?;
    if seeds.is_empty() {
        return Err(format!(
            "no seed lies in it: B is not among them, so write {from}..B with B above {from}"
        ));
    }
    Ok(seeds)
}

/// What a line of flags says, for tests.
#[cfg(test)]
pub(crate) fn sim_args(line: &str) -> super::SimArgs {
    let cli = Cli::read(format!("plesio sim {line}").split_whitespace()).expect("a good line");
    match cli.command {
        super::Command::Sim(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_what_is_simulated_is_known() {
        // What a run does beside that.
        const OTHERS: [&str; 14] = [
            "scenario",
            "replay",
            "any_build",
            "out",
            "trace",
            "story",
            "fail_fast",
            "require_coverage",
            "json",
            "json_stream",
            "quiet",
            "color",
            "help",
            "version",
        ];
        let command = Cli::command();
        let sim = command.find_subcommand("sim").expect("there is one");
        for flag in sim.get_arguments() {
            let name = flag.get_id().as_str();
            assert!(NAMES.contains(&name) != OTHERS.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_record_says_all_but_the_seeds() {
        let read = |line: &str| Cli::read(format!("plesio sim --replay run.json {line}").split_whitespace());
        assert!(read("--seed 3").is_ok() && read("--story").is_ok());
        let error = read("--t-dead-ms 2000").expect_err("the record says it");
        assert!(error.to_string().contains("'--t-dead-ms' cannot be used with '--replay'"), "{error}");
        assert!(read("scenario.toml").is_err());
    }
}
