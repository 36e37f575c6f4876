// SPDX-License-Identifier: GPL-2.0
//! What comes by chance, and comes again with the same seed.
//!
//! Each step of each actor has a generator of its own: what happens in one step, which hangs on time and on others,
//! changes nothing of what the next one will be.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn of(seed: u64, actor: u32, step: u64) -> Self {
        let mut rng = Self(seed);
        for more in [u64::from(actor), step] {
            rng.0 = rng.number() ^ more;
        }
        rng
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n as u64) as usize
    }

    /// From `low` on, less than `high`.
    pub fn from(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn of_these<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }

    /// One of these, each as often as its number says.
    pub fn weighted<T: Copy>(&mut self, these: &[(usize, T)]) -> T {
        let mut at = self.below(these.iter().map(|(weight, _)| weight).sum());
        for (weight, this) in these {
            if at < *weight {
                return *this;
            }
            at -= weight;
        }
        these[0].1
    }

    /// Bytes of a body: mostly few, at times up to a mebibyte.
    pub fn length(&mut self) -> usize {
        let limit = self.weighted(&[(8, 200), (8, 8 << 10), (3, 100 << 10), (1, 1 << 20)]);
        self.below(limit + 1)
    }

    pub fn shuffle<T>(&mut self, these: &mut [T]) {
        for last in (1..these.len()).rev() {
            these.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn comes_again() {
        let draw = |seed, actor, step| {
            let mut rng = Rng::of(seed, actor, step);
            (0..20).map(|_| rng.length()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        for other in [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(1, 3, 2)] {
            assert_ne!(draw(1, 2, 3), other);
        }
    }

    #[test]
    fn each_as_often_as_asked() {
        let mut rng = Rng::of(1, 1, 1);
        let drawn: usize = (0..4000).map(|_| rng.weighted(&[(1, 0), (3, 1)])).sum();
        assert!((2800..3200).contains(&drawn), "{drawn}");
    }
}
