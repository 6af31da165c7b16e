//! Which lane each partition has.
//!
//! Invariant: a partition keeps its lane for as long as the process lives, whatever becomes of it meanwhile. So what
//! comes to it later passes behind what came before.

use std::collections::HashMap;

use crate::source::Partition;

/// The lanes of all partitions that this process has ever held.
#[derive(Debug)]
pub(crate) struct Homes {
    lanes: usize,
    of: HashMap<Partition, usize>,
}

impl Homes {
    /// No partition has a lane yet. There is at least one lane.
    pub(crate) fn new(lanes: usize) -> Self {
        Self { lanes, of: HashMap::new() }
    }

    /// The lane of a partition that was [`settled`](Self::settle).
    pub(crate) fn of(&self, partition: &Partition) -> usize {
        self.of.get(partition).copied().unwrap_or_default()
    }

    /// Gives a partition that has no lane yet the one that has the fewest of those that are `held`. By number would
    /// not do: a group deals them out in turn, and then all of an instance's numbers may be even.
    pub(crate) fn settle<'a>(&mut self, partition: &Partition, held: impl Iterator<Item = &'a Partition>) {
        if self.of.contains_key(partition) {
            return;
        }
        let mut shares = vec![0_usize; self.lanes];
        for partition in held {
            if let Some(lane) = self.of.get(partition) {
                shares[*lane] += 1;
            }
        }
        let fewest = shares.iter().enumerate().min_by_key(|(_, share)| **share);
        self.of.insert(partition.clone(), fewest.map_or(0, |(lane, _)| lane));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(homes: &mut Homes, held: &mut Vec<Partition>, number: i32) -> usize {
        let partition = Partition::new("topic", number);
        homes.settle(&partition, held.iter());
        held.push(partition.clone());
        homes.of(&partition)
    }

    #[test]
    fn partitions_with_even_numbers_only_are_spread_over_all_lanes() {
        let (mut homes, mut held) = (Homes::new(2), Vec::new());
        let lanes: Vec<usize> = [0, 2, 4, 6].map(|number| settle(&mut homes, &mut held, number)).to_vec();
        assert_eq!(lanes, [0, 1, 0, 1]);
    }

    #[test]
    fn a_partition_that_comes_back_has_the_lane_it_had_and_others_take_the_room_it_left() {
        let (mut homes, mut held) = (Homes::new(2), Vec::new());
        for number in 0..4 {
            settle(&mut homes, &mut held, number);
        }
        held.retain(|partition| homes.of(partition) == 1);
        assert_eq!(settle(&mut homes, &mut held, 4), 0, "its lane stands empty");
        assert_eq!(settle(&mut homes, &mut held, 1), 1);
        assert_eq!(settle(&mut homes, &mut held, 0), 0);
    }
}
