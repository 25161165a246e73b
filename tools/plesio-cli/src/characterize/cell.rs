//! What is swept: cells, each a mesh of its own kind, and the rows that seeds make of them.

use crate::args::{AlphaArg, CharacterizeArgs, LinksArg, MixArg, WeightsArg};
use crate::demo::data;
use crate::demo::plan::SHARDS;
use plesio::Rules;
use plesio_sim::{FaultSet, Learning, SimConfig, Strike};
use serde::Serialize;
use std::sync::Arc;

/// One kind of mesh.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cell {
    pub(super) nodes: u8,
    pub(super) mix_ms: MixArg,
    pub(super) clock_ppm: u16,
    pub(super) links: LinksArg,
    pub(super) churn_per_node_h: u16,
    pub(super) alpha: AlphaArg,
    /// None: what suits the links.
    pub(super) period_ms: Option<u32>,
    pub(super) weights: WeightsArg,
    /// What it differs in from the first one; none: from a matrix, or the first one itself.
    pub(super) factor: Option<&'static str>,
}

/// The first values of all lists are those of the middle of the star.
struct Lists {
    nodes: Vec<u8>,
    mix: Vec<MixArg>,
    clock: Vec<u16>,
    links: Vec<LinksArg>,
    churn: Vec<u16>,
    alpha: Vec<AlphaArg>,
    period_ms: Vec<Option<u32>>,
    weights: Vec<WeightsArg>,
}

impl Lists {
    fn star() -> Self {
        Self {
            nodes: vec![8, 4, 16],
            mix: [&[15, 30, 60, 120][..], &[40], &[20, 20, 20, 320]].map(|ms| MixArg(ms.to_vec())).to_vec(),
            clock: vec![50, 0, 200],
            links: vec![LinksArg::Lan, LinksArg::Wifi],
            churn: vec![0, 60],
            alpha: [Some(1_000), None, Some(100)].map(AlphaArg).to_vec(),
            period_ms: vec![None, Some(250), Some(2_000)],
            weights: vec![WeightsArg::Mass, WeightsArg::Work, WeightsArg::Equal],
        }
    }

    fn middle(&self) -> Cell {
        Cell {
            nodes: self.nodes[0],
            mix_ms: self.mix[0].clone(),
            clock_ppm: self.clock[0],
            links: self.links[0],
            churn_per_node_h: self.churn[0],
            alpha: self.alpha[0],
            period_ms: self.period_ms[0],
            weights: self.weights[0],
            factor: None,
        }
    }
}

/// Every value of a list, set in every cell there is.
fn cross<T: Clone>(cells: &mut Vec<Cell>, values: &[T], set: impl Fn(&mut Cell, T)) {
    if values.is_empty() {
        return;
    }
    let with = |cell: &Cell| -> Vec<Cell> {
        let one = |value: &T| {
            let mut cell = cell.clone();
            set(&mut cell, value.clone());
            cell
        };
        values.iter().map(one).collect()
    };
    let all: Vec<Cell> = cells.iter().flat_map(with).collect();
    cells.clear();
    for cell in all {
        // Said twice is said.
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
}

/// All values of a list but the first, each alone.
fn ray<T: Clone>(cells: &mut Vec<Cell>, factor: &'static str, values: &[T], set: impl Fn(&mut Cell, T)) {
    let middle = cells[0].clone();
    cells.extend(values[1..].iter().map(|value| {
        let mut cell = Cell { factor: Some(factor), ..middle.clone() };
        set(&mut cell, value.clone());
        cell
    }));
}

/// What is to be run: the matrix of the lists that were given, or the star where none was.
pub(super) fn cells(args: &CharacterizeArgs) -> Vec<Cell> {
    let star = Lists::star();
    let mut cells = vec![star.middle()];
    let period_ms: Vec<Option<u32>> = args.period_ms.iter().copied().map(Some).collect();
    cross(&mut cells, &args.nodes, |cell, nodes| cell.nodes = nodes);
    cross(&mut cells, &args.mix, |cell, mix| cell.mix_ms = mix);
    cross(&mut cells, &args.clock, |cell, ppm| cell.clock_ppm = ppm);
    cross(&mut cells, &args.links, |cell, links| cell.links = links);
    cross(&mut cells, &args.churn, |cell, churn| cell.churn_per_node_h = churn);
    cross(&mut cells, &args.alpha, |cell, alpha| cell.alpha = alpha);
    cross(&mut cells, &period_ms, |cell, period| cell.period_ms = period);
    cross(&mut cells, &args.weights, |cell, weights| cell.weights = weights);
    let given = [
        args.nodes.is_empty(),
        args.mix.is_empty(),
        args.clock.is_empty(),
        args.links.is_empty(),
        args.churn.is_empty(),
        args.alpha.is_empty(),
        args.period_ms.is_empty(),
        args.weights.is_empty(),
    ];
    if given.contains(&false) {
        return cells;
    }
    ray(&mut cells, "nodes", &star.nodes, |cell, nodes| cell.nodes = nodes);
    ray(&mut cells, "mix", &star.mix, |cell, mix| cell.mix_ms = mix);
    ray(&mut cells, "clock", &star.clock, |cell, ppm| cell.clock_ppm = ppm);
    ray(&mut cells, "links", &star.links, |cell, links| cell.links = links);
    ray(&mut cells, "churn", &star.churn, |cell, churn| cell.churn_per_node_h = churn);
    ray(&mut cells, "alpha", &star.alpha, |cell, alpha| cell.alpha = alpha);
    ray(&mut cells, "period", &star.period_ms, |cell, period| cell.period_ms = period);
    ray(&mut cells, "weights", &star.weights, |cell, weights| cell.weights = weights);
    cells
}

impl Cell {
    /// How long a step takes on each node, nanoseconds.
    fn steps_ns(&self) -> Vec<u64> {
        let steps = self.mix_ms.0.iter().cycle().take(self.nodes.into());
        steps.map(|ms| u64::from(*ms) * 1_000_000).collect()
    }

    /// The step of a machine of mean speed, nanoseconds.
    pub(super) fn mean_step_ns(&self) -> u64 {
        let steps_ns = self.steps_ns();
        let rate: f64 = steps_ns.iter().map(|step_ns| 1.0 / *step_ns as f64).sum();
        (steps_ns.len() as f64 / rate) as u64
    }

    /// What is learnt.
    pub(super) fn learning(&self) -> Result<Arc<Learning>, plesio_sim::ConfigError> {
        let texts: Vec<&[u8]> = (0..SHARDS as u8).map(data::whole).collect();
        Learning::new(&texts, self.alpha.0).map(Arc::new)
    }

    /// The same for the simulator.
    pub(super) fn config(
        &self,
        seed: u64,
        seconds: u32,
        learning: &Arc<Learning>,
    ) -> Result<SimConfig, plesio_sim::ConfigError> {
        let ppm = i64::from(self.clock_ppm) * 1_000;
        let profile = self.links.profile();
        let fixed_ns = self
            .period_ms
            .map(|ms| u64::from(ms) * 1_000_000)
            .or(profile.map(plesio_sim::Profile::period_ns));
        let config = SimConfig {
            nodes: self.nodes,
            seeds: seed..seed.saturating_add(1),
            faults: FaultSet::NONE,
            profile,
            simulated_s: seconds,
            threads: 1,
            rules: Rules { weights: self.weights.mode(), ..Rules::default() },
            script: Some(Strike::churn(seed, self.nodes, self.churn_per_node_h, seconds)),
            period_ns: fixed_ns,
            period_min_ns: fixed_ns,
            period_max_ns: fixed_ns,
            learning: Some(Arc::clone(learning)),
            steps_ns: self.steps_ns(),
            rates_ppb: vec![ppm, -ppm, ppm / 2, -ppm / 2],
            trace: true,
            ..SimConfig::default()
        };
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::characterize_args as args;

    #[test]
    fn without_lists_it_is_a_star_and_with_them_a_matrix() {
        let star = cells(&args(""));
        assert_eq!(star.len(), 15);
        let middle = &star[0];
        for cell in &star[1..] {
            let factor = cell.factor.expect("a ray");
            let same = [
                ("nodes", cell.nodes == middle.nodes),
                ("mix", cell.mix_ms == middle.mix_ms),
                ("clock", cell.clock_ppm == middle.clock_ppm),
                ("links", cell.links == middle.links),
                ("churn", cell.churn_per_node_h == middle.churn_per_node_h),
                ("alpha", cell.alpha == middle.alpha),
                ("period", cell.period_ms == middle.period_ms),
                ("weights", cell.weights == middle.weights),
            ];
            assert!(same.iter().all(|(name, same)| *same == (*name != factor)), "{cell:?}");
        }
        let middle = middle.clone();
        let matrix = cells(&args("--nodes 3,5 --alpha inf,0.1 --period-ms 250,500,1000"));
        assert_eq!(matrix.len(), 12);
        assert!(matrix.iter().all(|cell| cell.factor.is_none() && cell.mix_ms == middle.mix_ms));
    }

    #[test]
    fn every_cell_can_be_simulated() {
        for cell in
            cells(&args("--nodes 1,32 --mix 1:10000 --clock 1000 --links drawn,wifi --churn 3600,3600"))
        {
            let cell = Cell { period_ms: Some(250), ..cell };
            let learning = cell.learning().expect("eight texts");
            let config = cell.config(3, 60, &learning).expect("in range");
            assert_eq!(config.script.expect("a script").is_empty(), cell.nodes == 1);
            // 2 / (1/1 + 1/10000); with one node the first alone.
            assert_eq!(cell.mean_step_ns() / 1_000, if cell.nodes == 1 { 1_000 } else { 1_999 });
        }
    }
}
