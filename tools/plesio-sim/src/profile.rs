//! Kinds of networks whose figures were measured: ways between hosts that stay as they are for the whole run.
//!
//! | profile | one way | lost | source |
//! |---|---|---|---|
//! | `lan` | 0.2 ms, 0.05 up and down | nothing | a switch and two kernels; what `plesio bench pingpong` finds between two hosts |
//! | `wifi` | median 3 ms, 90 % within 20, 99 % within 200; a second at most | 1 %, most of it in rows of four | K. Sui et al., "Characterizing and Improving WiFi Latency in Large-Scale Operational Networks", MobiSys 2016: 47,000 devices, median 3 ms, 20 and 250 ms at 90 and 99 % |
//!
//! The paper's figures are of one round trip over the air; from node to node a datagram goes over the air twice, one way
//! each. How long a bad moment lasts it does not say. Queues keep the order, so a stall delays all that is sent during
//! it; new draws every 0.5 to 1 s keep the share of late datagrams at the figures above, and shorter ones would not.

use crate::impair::{Burst, Impairment, Tail};

/// A kind of network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Profile {
    /// Hosts at one switch.
    Lan,
    /// Hosts at one busy access point.
    Wifi,
}

impl Profile {
    /// Shortest and longest way between two hosts, nanoseconds.
    pub(crate) const fn path_ns(self) -> (u64, u64) {
        match self {
            Self::Lan => (150_000, 200_000),
            Self::Wifi => (900_000, 1_000_000),
        }
    }

    /// The frame period that suits it, nanoseconds: section 10 of the consensus text.
    #[must_use]
    pub const fn period_ns(self) -> u64 {
        match self {
            Self::Lan => 500_000_000,
            Self::Wifi => 1_000_000_000,
        }
    }

    /// Its links, with what else is wrong with them.
    pub(crate) fn over(self, links: Impairment) -> Impairment {
        let own = self.impairment();
        Impairment {
            loss_ppm: links.loss_ppm.max(own.loss_ppm),
            burst: links.burst.or(own.burst),
            jitter_ns: links.jitter_ns.max(own.jitter_ns),
            tail: own.tail,
            ..links
        }
    }

    /// What its links do to datagrams.
    #[must_use]
    pub fn impairment(self) -> Impairment {
        match self {
            Self::Lan => Impairment { jitter_ns: 50_000, ..Impairment::default() },
            Self::Wifi => Impairment {
                loss_ppm: 2_000,
                burst: Some(Burst::with_loss(8_000, 4)),
                tail: Some(Tail { median_ns: 2_000_000, most_ns: 1_000_000_000, hold_ns: 1_000_000_000 }),
                ..Impairment::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impair::{Fate, Path};
    use crate::random::Random;

    /// Delays of datagrams sent every 10 ms, sorted, and the share that is lost.
    fn delays(profile: Profile) -> (Vec<u64>, f64) {
        let (mut random, mut delays) = (Random::new(7, "profile"), Vec::new());
        let (mut lost, mut sent) = (0, 0);
        for path in 0..20 {
            let mut path = Path::new(profile.path_ns().0 + path);
            path.impair(profile.impairment());
            for number in 0..100_000u64 {
                let now_ns = number * 10_000_000;
                sent += 1;
                match path.pass(&mut random, now_ns, &mut vec![0; 100], &mut Vec::new()) {
                    Fate::Lose => lost += 1,
                    Fate::Arrive { at_ns, .. } => delays.push(at_ns - now_ns),
                }
            }
        }
        delays.sort_unstable();
        (delays, f64::from(lost) / f64::from(sent))
    }

    #[test]
    fn the_links_are_as_they_are_documented() {
        let quantile = |delays: &[u64], of: usize| delays[delays.len() / 1_000 * of] as f64 / 1e6;
        let (lan, lost) = delays(Profile::Lan);
        assert!(lan[0] >= 150_000 && lan[lan.len() - 1] <= 250_000 && lost == 0.0);
        let (wifi, lost) = delays(Profile::Wifi);
        let (half, most, all) = (quantile(&wifi, 500), quantile(&wifi, 900), quantile(&wifi, 990));
        assert!((2.5..3.6).contains(&half), "median {half} ms");
        assert!((16.0..26.0).contains(&most), "90 % {most} ms");
        assert!((170.0..300.0).contains(&all), "99 % {all} ms");
        assert!((0.008..0.012).contains(&lost), "{lost} lost");
    }
}
