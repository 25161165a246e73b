//! What is simulated, as a file says it: SCENARIO.toml, and `scenario` in the documents of `plesio sim`, which replays read.
//!
//! ```toml
//! nodes = 4
//! seeds = "0..10"            # left out: seed 0 alone
//! seconds = 20
//! faults = "all"
//! codec = "i32"
//! shares = "rate"
//! network = "lan"            # what `--links` says
//! clock_error = 0.5          # frames, 0 to 8
//! no_hysteresis = true
//! period_ms = 250            # and period_min_ms, period_max_ms
//! ring_depth = 4
//! elements = 64
//! links = "--loss 1% --delay 2ms"   # flags; one of them on the line replaces them all
//! rules = { tau = 8 }
//!
//! [[fault]]                  # with at least one of them nothing is drawn from `faults`
//! kind = "crash"
//! node = 2
//! at_s = 3.0
//! for_s = 1.5                # left out: it stays down; of other kinds: until nothing breaks any more
//!
//! [[fault]]
//! kind = "one-way"
//! reach = "from"             # "into", "from", or `to = N`; `side = [0, 1]` for a partition; left out: all links
//! node = 1
//! at_s = 6.0
//! for_s = 0.8
//! level = 100                # 1 to 100, of the worst that this kind of fault does
//! ```

use crate::args::{CodecArg, ImpairArgs, LinksArg, RulesArgs, SharesArg, SimArgs, parse_seeds};
use crate::failure::Failure;
use crate::host;
use crate::up::file::meant;
use clap::ValueEnum;
use plesio_sim::{Fault, FaultSet, Reach, SimConfig, Strike};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

/// See the module.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) nodes: u8,
    pub(crate) seeds: Text<Seeds>,
    pub(crate) faults: Text<FaultSet>,
    pub(crate) seconds: u32,
    pub(crate) codec: CodecArg,
    pub(crate) shares: SharesArg,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period_min_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period_max_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ring_depth: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) elements: Option<u64>,
    /// What the mesh clock of some nodes is off, unknown to them, frames.
    pub(crate) clock_error: f64,
    /// Which kind of network, as `--links` says it.
    pub(crate) network: LinksArg,
    pub(crate) no_hysteresis: bool,
    pub(crate) rules: RulesArgs,
    /// As flags.
    pub(crate) links: Text<ImpairArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) fault: Vec<Struck>,
}

/// One fault, at its time.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Struck {
    pub(crate) kind: String,
    pub(crate) at_s: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) for_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reach: Option<Direction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) side: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<u8>,
}

/// Which way of a node's links.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Into,
    From,
}

/// Something that is written as it stands on a command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// `A..B`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seeds(pub(crate) Range<u64>);

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.start, self.0.end)
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_seeds(text).map(Self)
    }
}

impl Default for Scenario {
    fn default() -> Self {
        let base = SimConfig::default();
        Self {
            nodes: base.nodes,
            seeds: Text(Seeds(0..1)),
            faults: Text(base.faults),
            seconds: base.simulated_s,
            codec: CodecArg::default(),
            shares: SharesArg::default(),
            period_ms: None,
            period_min_ms: None,
            period_max_ms: None,
            ring_depth: None,
            elements: None,
            clock_error: 0.0,
            network: LinksArg::default(),
            no_hysteresis: false,
            rules: RulesArgs::default(),
            links: Text(ImpairArgs { burst: 1, ..ImpairArgs::default() }),
            fault: Vec::new(),
        }
    }
}

/// Names of the file, and of a fault in it.
const NAMES: [&str; 17] = [
    "nodes",
    "seeds",
    "faults",
    "seconds",
    "codec",
    "shares",
    "period_ms",
    "period_min_ms",
    "period_max_ms",
    "ring_depth",
    "elements",
    "clock_error",
    "network",
    "no_hysteresis",
    "rules",
    "links",
    "fault",
];
const FAULT_NAMES: [&str; 8] = ["kind", "at_s", "for_s", "node", "to", "reach", "side", "level"];

impl Scenario {
    /// What the flags say.
    pub(crate) fn of(args: &SimArgs) -> Self {
        let mut scenario = Self::default();
        // Of flags that are taken together, one stands for all.
        for name in ["nodes", "seeds", "faults", "seconds", "codec", "shares", "clock_error", "links"] {
            scenario.take(name, args);
        }
        ["no_hysteresis", "tau", "loss"].iter().for_each(|name| scenario.take(name, args));
        scenario
    }

    /// The scenario of a file; what was said on the line or in the environment beats it.
    ///
    /// # Errors
    /// What the file says that nobody understands, with the name that was probably meant.
    pub(crate) fn read(text: &str, args: &SimArgs) -> Result<Self, String> {
        let toml = |error: toml::de::Error| error.to_string().trim_end().to_owned();
        let table: toml::Table = text.parse().map_err(toml)?;
        unknown(&table, &NAMES)?;
        table.get("links").and_then(toml::Value::as_str).map_or(Ok(()), no_network)?;
        for fault in table.get("fault").and_then(toml::Value::as_array).into_iter().flatten() {
            unknown(fault.as_table().unwrap_or(&toml::Table::new()), &FAULT_NAMES)?;
        }
        let mut scenario: Self = toml::from_str(text).map_err(toml)?;
        for name in &args.said.0 {
            scenario.take(name, args);
        }
        Ok(scenario)
    }

    fn take(&mut self, name: &str, args: &SimArgs) {
        match name {
            "nodes" => self.nodes = args.nodes,
            "seeds" | "seed" => {
                let one = args.seed.map(|seed| seed..seed.saturating_add(1));
                self.seeds = Text(Seeds(one.unwrap_or_else(|| args.seeds.clone())));
            }
            "faults" => self.faults = Text(args.faults),
            "seconds" => self.seconds = args.seconds,
            "codec" => self.codec = args.codec,
            "shares" => self.shares = args.shares,
            "clock_error" => self.clock_error = args.clock_error,
            "links" => self.network = args.links,
            "no_hysteresis" => self.no_hysteresis = args.no_hysteresis,
            "loss" | "burst" | "delay" | "jitter" | "reorder" | "dup" | "corrupt" | "rate" => {
                self.links = Text(args.impair);
            }
            _ => self.rules = args.rules.or(self.rules),
        }
    }

    /// The same for the simulator.
    ///
    /// # Errors
    /// What is out of its range, or cannot happen.
    pub(crate) fn config(&self, args: &SimArgs) -> Result<SimConfig, Failure> {
        let wrong = |what: String| {
            Failure::usage("sim", "cannot simulate this", what)
                .fix("see `plesio sim --help` for names and ranges")
        };
        let script = self.fault.iter().enumerate().map(|(at, struck)| {
            struck.strike().map_err(|what| wrong(format!("fault {} ({}): {what}", at + 1, struck.kind)))
        });
        let script: Vec<Strike> = script.collect::<Result<_, _>>()?;
        let ns = |name: &str, ms: Option<f64>| {
            let within = |ms| nanoseconds(ms / 1e3).map_err(|cause| wrong(format!("{name} = {ms}: {cause}")));
            ms.map(within).transpose()
        };
        let period_ns = ns("period_ms", self.period_ms)?;
        let period_min_ns = ns("period_min_ms", self.period_min_ms)?;
        let period_max_ns = ns("period_max_ms", self.period_max_ms)?;
        if !CLOCK_ERROR_FRAMES.contains(&self.clock_error) {
            let (low, high) = (CLOCK_ERROR_FRAMES.start(), CLOCK_ERROR_FRAMES.end());
            return Err(wrong(format!(
                "clock_error = {} is out of range; choose {low} to {high} frames",
                self.clock_error
            )));
        }
        let config = SimConfig {
            nodes: self.nodes,
            seeds: self.seeds.0.0.clone(),
            faults: self.faults.0,
            links: self.links.0.impairment(),
            simulated_s: self.seconds,
            threads: host::cores(),
            codec: self.codec.codec(),
            sharing: self.shares.sharing(),
            rules: self.rules.rules()?,
            elements: self.elements,
            clock_error_millis: (self.clock_error * 1e3).round() as u32,
            profile: self.network.profile(),
            hysteresis: !self.no_hysteresis,
            script: (!script.is_empty()).then_some(script),
            period_ns,
            period_min_ns,
            period_max_ns,
            ring_depth: self.ring_depth,
            story: args.story,
            trace: args.trace.is_some(),
            ..SimConfig::default()
        };
        config.check().map_err(|error| wrong(error.to_string()))?;
        Ok(config)
    }

    /// Whether flags alone say the same.
    pub(crate) fn is_flags(&self) -> bool {
        self.fault.is_empty()
            && self.period_ms.is_none()
            && self.period_min_ms.is_none()
            && self.period_max_ms.is_none()
            && self.ring_depth.is_none()
            && self.elements.is_none()
    }
}

fn unknown(table: &toml::Table, names: &[&'static str]) -> Result<(), String> {
    let Some(name) = table.keys().find(|name| !names.contains(&name.as_str())) else { return Ok(()) };
    Err(match meant(name, names) {
        Some(meant) => format!("there is no {name:?}; did you mean {meant:?}?"),
        None => format!("there is no {name:?}; there are {}", names.join(", ")),
    })
}

/// Refuses a kind of network where flags belong.
fn no_network(links: &str) -> Result<(), String> {
    let links = links.trim();
    if links.is_empty() || links.starts_with('-') {
        return Ok(());
    }
    let network = if LinksArg::from_str(links, false).is_ok() { links } else { "lan" };
    Err(format!(
        "links = {links:?}: that is no flag of a link, such as \"--loss 1%\"; for the kind of network, which the \
         flag --links says, write network = {network:?}"
    ))
}

impl Struck {
    fn strike(&self) -> Result<Strike, String> {
        let kinds: FaultSet =
            self.kind.parse().map_err(|error: plesio_sim::ConfigError| error.to_string())?;
        let fault = kinds.iter().next().filter(|_| kinds.len() == 1).ok_or("kind is one kind of fault")?;
        let of_host = matches!(
            fault,
            Fault::Crash
                | Fault::Exit
                | Fault::Restart
                | Fault::Pause
                | Fault::Suspend
                | Fault::Starve
                | Fault::Clock
                | Fault::Slow
                | Fault::Join
                | Fault::Leave
                | Fault::Buffers
                | Fault::Accuse
                | Fault::Stall
                | Fault::Forge
                | Fault::Equivocate
                | Fault::Suppress
        );
        if of_host && self.node.is_none() {
            return Err("say which node".into());
        }
        // The others would ignore which links are said. A slow host has slow links, too.
        let of_links = matches!(
            fault,
            Fault::Loss
                | Fault::Burst
                | Fault::Delay
                | Fault::Jitter
                | Fault::Reorder
                | Fault::Duplicate
                | Fault::Corrupt
                | Fault::OneWay
                | Fault::Partition
                | Fault::Mtu
                | Fault::Narrow
                | Fault::Slow
        );
        let said =
            [("to", self.to.is_some()), ("reach", self.reach.is_some()), ("side", self.side.is_some())];
        if let Some((name, _)) = said.iter().find(|(_, is_said)| *is_said && !of_links) {
            return Err(format!("it has no {name}, as one-way and partition have: leave {name} out"));
        }
        if let Some(side) = &self.side {
            if side.is_empty() || side.iter().any(|host| *host >= 32) {
                return Err("side names nodes, 0 to 31, at least one".into());
            }
            if self.to.is_some() || self.reach.is_some() {
                return Err("side stands alone, without to and reach".into());
            }
        }
        if self.to.is_some() && self.to == self.node {
            return Err("a node has no link to itself".into());
        }
        let reach = match (self.node, self.to, self.reach) {
            _ if self.side.is_some() => {
                Reach::Between(self.side.iter().flatten().fold(0, |side, host| side | 1 << host))
            }
            (Some(node), Some(to), None) => Reach::Way(node, to),
            (Some(node), None, Some(Direction::Into)) => Reach::Into(node),
            (Some(node), None, Some(Direction::From)) => Reach::From(node),
            (_, None, None) => Reach::All,
            _ => return Err("reach and to need node, and exclude each other".into()),
        };
        Ok(Strike {
            fault,
            host: self.node.unwrap_or_default(),
            begin_ns: nanoseconds(self.at_s)?,
            lasts_ns: self.for_s.map(nanoseconds).transpose()?,
            reach,
            level: self.level.unwrap_or(50),
        })
    }
}

/// What `clock_error` may be, as for `--clock-error`.
const CLOCK_ERROR_FRAMES: RangeInclusive<f64> = 0.0..=8.0;

/// Of seconds, within the longest simulation.
fn nanoseconds(seconds: f64) -> Result<u64, String> {
    if (0.0..=3_600.0).contains(&seconds) {
        return Ok((seconds * 1e9).round() as u64);
    }
    Err(format!("{seconds} s is out of range; choose 0 to 3600"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, sim_args as args};
    use clap::CommandFactory;

    const WHOLE: &str = r#"
        nodes = 4
        seeds = "3..9"
        faults = "crash,loss"
        seconds = 15
        codec = "int8"
        shares = "equal"
        period_ms = 250.0
        period_min_ms = 62.5
        period_max_ms = 1000.0
        ring_depth = 8
        elements = 64
        links = "--loss 1% --delay 2ms"
        rules = { tau = 8 }
        [[fault]]
        kind = "crash"
        node = 2
        at_s = 3.5
        for_s = 1.0
        [[fault]]
        kind = "one-way"
        node = 1
        reach = "from"
        at_s = 4.0
        [[fault]]
        kind = "partition"
        side = [0, 3]
        at_s = 5.0
        level = 100
    "#;

    #[test]
    fn a_file_says_all_and_is_said_again() {
        let scenario = Scenario::read(WHOLE, &args("")).expect("whole");
        let config = scenario.config(&args("")).expect("in range");
        assert_eq!((config.nodes, config.seeds.clone(), config.simulated_s), (4, 3..9, 15));
        assert_eq!((config.period_ns, config.ring_depth, config.rules.tau), (Some(250_000_000), Some(8), 8));
        assert_eq!((config.period_min_ns, config.period_max_ns), (Some(62_500_000), Some(1_000_000_000)));
        assert_eq!(config.links.loss_ppm, 10_000);
        let script = config.script.expect("three");
        assert_eq!((script[0].begin_ns, script[0].lasts_ns), (3_500_000_000, Some(1_000_000_000)));
        assert_eq!((script[1].reach, script[2].reach), (Reach::From(1), Reach::Between(0b1001)));
        let text = serde_json::to_string(&scenario).expect("JSON");
        assert_eq!(serde_json::from_str::<Scenario>(&text).expect("the same"), scenario);
        assert_eq!(Scenario::read("", &args("")).expect("nothing said"), Scenario::default());
    }

    #[test]
    fn what_stands_on_the_line_beats_the_file() {
        let scenario = Scenario::read(WHOLE, &args("--nodes 5 --seed 7 --kappa 3 --loss 2%")).expect("whole");
        assert_eq!((scenario.nodes, scenario.seeds.0.0.clone(), scenario.seconds), (5, 7..8, 15));
        let rules = scenario.rules.rules().expect("in range");
        assert_eq!((rules.tau, rules.kappa), (8, 3));
        assert_eq!(scenario.links.0.to_string(), "--loss 2%");
    }

    #[test]
    fn flags_alone_are_a_scenario_too() {
        let scenario = Scenario::of(&args("--nodes 5 --seed 7 --faults crash --tau 8"));
        assert!(scenario.is_flags());
        assert_eq!((scenario.nodes, scenario.seeds.0.0.clone(), scenario.rules.tau), (5, 7..8, Some(8)));
    }

    #[test]
    fn what_nobody_understands_is_refused() {
        for (wrong, word) in [
            ("nods = 3", "did you mean \"nodes\""),
            ("[[fault]]\nkind = \"crash\"\nat_s = 1.0\nnoed = 1", "did you mean \"node\""),
            ("seeds = \"9..3\"", "no seed lies in it"),
            ("faults = \"fire\"", "no fault is called"),
            ("links = \"--loss 2\"", "loss"),
            ("nodes = \"four\"", "nodes"),
            ("[[fault]]\nat_s = 1.0", "kind"),
            ("[rules]\nlamda = 0.5", "lamda"),
            ("links = \"wifi\"", "write network = \"wifi\""),
            ("links = \"fast\"", "write network = \"lan\""),
        ] {
            let error = Scenario::read(wrong, &args("")).expect_err(wrong);
            assert!(error.contains(word), "{wrong}: {error}");
        }
        for (wrong, word) in [
            ("[[fault]]\nkind = \"crash\"\nat_s = 1.0", "say which node"),
            ("[[fault]]\nkind = \"exit\"\nat_s = 1.0", "say which node"),
            ("[[fault]]\nkind = \"suppress\"\nat_s = 1.0", "say which node"),
            ("[[fault]]\nkind = \"all\"\nat_s = 1.0", "one kind"),
            ("[[fault]]\nkind = \"loss\"\nat_s = -1.0", "out of range"),
            ("[[fault]]\nkind = \"loss\"\nat_s = nan", "out of range"),
            ("[[fault]]\nkind = \"loss\"\nat_s = 1.0\nto = 3", "need node"),
            ("[[fault]]\nkind = \"crash\"\nnode = 9\nat_s = 1.0", "no node 9"),
            ("[[fault]]\nkind = \"partition\"\nside = []\nat_s = 1.0", "at least one"),
            ("[[fault]]\nkind = \"partition\"\nside = [0]\nto = 1\nat_s = 1.0", "alone"),
            ("[[fault]]\nkind = \"one-way\"\nnode = 1\nto = 1\nat_s = 1.0", "to itself"),
            ("period_ms = 1e300", "out of range"),
            ("period_max_ms = 1e300", "period_max_ms"),
            ("period_ms = 250.0\nperiod_max_ms = 125.0", "125 ms is out of range; choose 250 to 60000 ms"),
            ("period_min_ms = 250.0\nperiod_max_ms = 125.0", "out of range; choose 50 to 125 ms"),
            ("ring_depth = 3", "2, 4, 8 or 16"),
            // They would ignore it, and another fault would strike than the file says.
            ("[[fault]]\nkind = \"crash\"\nnode = 1\nto = 2\nat_s = 1.0", "fault 1 (crash): it has no to"),
            ("[[fault]]\nkind = \"pause\"\nnode = 1\nreach = \"from\"\nat_s = 1.0", "it has no reach"),
            ("[[fault]]\nkind = \"leave\"\nnode = 1\nside = [0]\nat_s = 1.0", "leave side out"),
            ("[[fault]]\nkind = \"split\"\nside = [0]\nat_s = 1.0", "it has no side"),
            ("[[fault]]\nkind = \"halt\"\nnode = 1\nto = 2\nat_s = 1.0", "it has no to"),
        ] {
            let scenario = Scenario::read(wrong, &args("")).expect(wrong);
            let refused = scenario.config(&args("")).expect_err(wrong);
            assert!(refused.cause.contains(word), "{wrong}: {refused}");
        }
    }

    /// Below 0, and nan, were 0.
    #[test]
    fn a_clock_error_is_bounded_as_by_its_flag() {
        for frames in ["0", "-0.0", "0.5", "8", "8.0001", "-0.0001", "-3.0", "nan", "inf", "-inf"] {
            let line = format!("plesio sim --clock-error={frames}");
            let by_flag = Cli::read(line.split_whitespace()).is_ok();
            let scenario = Scenario::read(&format!("clock_error = {frames}"), &args(""));
            let by_file = scenario.expect("a number").config(&args(""));
            assert_eq!(by_file.is_ok(), by_flag, "{frames}");
            let refused = by_file.map_err(|refused| refused.cause).err().unwrap_or_default();
            assert!(by_flag || refused.contains("out of range; choose 0 to 8 frames"), "{frames}: {refused}");
        }
        // A record says it as JSON.
        let record: Scenario = serde_json::from_str("{ \"clock_error\": -3.0 }").expect("a number");
        assert!(record.config(&args("")).is_err_and(|refused| refused.cause.contains("clock_error = -3")));
    }

    #[test]
    fn the_help_names_all_that_a_file_says() {
        let sim = Cli::command().find_subcommand("sim").expect("there is one").clone();
        let help = sim.get_after_help().expect("of scenarios").to_string();
        let says = |name: &str| help.split_whitespace().any(|word| word == name);
        for name in NAMES.iter().filter(|name| **name != "fault").chain(&FAULT_NAMES) {
            assert!(says(name), "{name}: {help}");
        }
        for said in ["without: seed 0 alone", "what --links says", "replace these as a whole"] {
            assert!(help.contains(said), "{said}: {help}");
        }
        // As it says.
        assert_eq!(Scenario::read("nodes = 3", &args("")).expect("good").seeds.0.0, 0..1);
        let links = Scenario::read("links = \"--delay 20ms\"", &args("--loss 1%")).expect("good").links;
        assert_eq!(links.0.to_string(), "--loss 1%");
    }
}
