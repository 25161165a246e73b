//! How finely tensors are cut, and which are sent whole, by what the slowest link carries. Knows no call.

use super::Network;
use crate::shares::Rates;

impl Network {
    /// From the next call on pieces, and what is sent whole, are as suits these rates; one a rank, the same on all ranks.
    ///
    /// # Panics
    /// When a call is under way.
    pub fn set_rates(&mut self, rates: &[Rates]) {
        let piece_bytes = slowest_bytes_per_s(rates).saturating_mul(PIECE_MS) / 1000;
        self.set_piece_bytes_max(u32::try_from(piece_bytes).unwrap_or(u32::MAX).max(PIECE_BYTES_MIN));
        self.set_mail_bytes_max(Self::mail_bytes_by(rates));
    }

    /// What [`Self::set_rates`] sends whole at most: what goes to everybody whole is (n - 1) (n - 2) / n times its bytes
    /// more for each link, and the slowest has to carry them in the time that this spares.
    ///
    /// # Panics
    /// Where there are no rates, or more than 32.
    #[must_use]
    pub fn mail_bytes_by(rates: &[Rates]) -> u64 {
        let (carried_bytes, ranks) = (slowest_bytes_per_s(rates) / 1_000_000 * SPARED_US, rates.len() as u64);
        let more = ranks.saturating_sub(1) * ranks.saturating_sub(2);
        let worth = match carried_bytes.saturating_mul(ranks).checked_div(more) {
            Some(bytes) => bytes.max(MAIL_BYTES_MIN),
            None => u64::MAX,
        };
        worth.min(Self::mail_bytes_max(rates.len()))
    }
}

fn slowest_bytes_per_s(rates: &[Rates]) -> u64 {
    rates.iter().map(|rates| rates.up_bytes_per_s.min(rates.down_bytes_per_s)).min().unwrap_or(0)
}

/// What a tensor that is sent whole spares: two messages after one another and what they cost at either end.
const SPARED_US: u64 = 500;
/// One datagram to each.
const MAIL_BYTES_MIN: u64 = 1 << 10;
/// How long a piece is under way on the slowest link.
const PIECE_MS: u64 = 4;
/// Smaller pieces cost more to speak of than they save.
const PIECE_BYTES_MIN: u32 = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn links(ranks: usize, bytes_per_s: u64) -> Vec<Rates> {
        let alike =
            Rates { up_bytes_per_s: 1 << 40, down_bytes_per_s: bytes_per_s, sum_elements_per_s: 1 << 30 };
        vec![alike; ranks]
    }

    #[test]
    fn slow_links_are_sent_less_that_is_whole() {
        // Between two whole tensors cost no link more.
        assert_eq!(Network::mail_bytes_by(&links(2, 1)), Network::mail_bytes_max(2));
        // 500 us of 1 Gbit/s are 62,500 bytes; four ranks would send 1.5 times the tensor more.
        assert_eq!(Network::mail_bytes_by(&links(4, 125_000_000)), 41_666);
        assert_eq!(Network::mail_bytes_by(&links(4, 0)), 1 << 10);
        assert_eq!(Network::mail_bytes_by(&links(4, u64::MAX)), Network::mail_bytes_max(4));
    }
}
