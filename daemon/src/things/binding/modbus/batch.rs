//! Joins reads of adjacent entries into one request: a request costs a turn of the line, an entry two bytes.

use super::{Block, READ_BITS_MAX, READ_WORDS_MAX, point::Data};

/// A read that serves several points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<K> {
    /// What to read.
    pub block: Block,
    /// Whose blocks lie within.
    pub members: Vec<(K, Block)>,
}

impl<K> Batch<K> {
    /// The part of the answer that belongs to a member's block. None when the answer is too short.
    #[must_use]
    pub fn part(&self, member: Block, answer: &Data) -> Option<Data> {
        let start = usize::from(member.address.checked_sub(self.block.address)?);
        let end = start + usize::from(member.count);
        Some(match answer {
            Data::Bits(bits) => Data::Bits(bits.get(start..end)?.to_vec()),
            Data::Words(words) => Data::Words(words.get(start..end)?.to_vec()),
        })
    }
}

/// Joins blocks that touch or overlap. Never reads an entry that nobody asked for: units answer a gap in their map with an exception.
#[must_use]
pub fn batches<K>(points: impl IntoIterator<Item = (K, Block)>) -> Vec<Batch<K>> {
    let mut sorted: Vec<(K, Block)> = points.into_iter().collect();
    sorted.sort_by_key(|(_, block)| *block);
    let mut joined: Vec<Batch<K>> = Vec::new();
    for (key, block) in sorted {
        let end = u32::from(block.address) + u32::from(block.count);
        if let Some(last) = joined.last_mut() {
            let last_end = u32::from(last.block.address) + u32::from(last.block.count);
            let limit = if block.table.is_bits() {
                READ_BITS_MAX
            } else {
                READ_WORDS_MAX
            };
            let whole = last_end.max(end) - u32::from(last.block.address);
            if last.block.table == block.table
                && u32::from(block.address) <= last_end
                && whole <= u32::from(limit)
            {
                last.block.count = whole as u16;
                last.members.push((key, block));
                continue;
            }
        }
        joined.push(Batch {
            block,
            members: vec![(key, block)],
        });
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::*;
    use proptest::prelude::*;

    fn block(address: u16, count: u16) -> Block {
        Block {
            table: Table::HoldingRegisters,
            address,
            count,
        }
    }

    #[test]
    fn adjacent_blocks_are_one_read_and_gaps_are_not_read() {
        let coil = Block {
            table: Table::Coils,
            address: 2,
            count: 1,
        };
        let joined = batches([
            (1, block(4, 2)),
            (2, block(0, 2)),
            (3, block(2, 2)),
            (4, block(7, 1)),
            (5, coil),
        ]);
        let blocks: Vec<Block> = joined.iter().map(|batch| batch.block).collect();
        assert_eq!(blocks, [coil, block(0, 6), block(7, 1)]);
        let answer = Data::Words((0..6).collect());
        assert_eq!(
            joined[1].part(block(4, 2), &answer),
            Some(Data::Words(vec![4, 5]))
        );
        assert_eq!(joined[1].part(block(4, 2), &Data::Words(vec![1])), None);
    }

    proptest! {
        #[test]
        fn every_block_is_read_once_within_the_limits(blocks in prop::collection::vec((0u16..2000, 1u16..=125), 0..60)) {
            let wanted: Vec<Block> = blocks.iter().map(|(address, count)| block(*address, *count)).collect();
            let joined = batches(wanted.iter().copied().enumerate());
            let mut seen: Vec<usize> = joined.iter().flat_map(|batch| &batch.members).map(|(key, _)| *key).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..wanted.len()).collect::<Vec<_>>());
            for batch in &joined {
                prop_assert!(batch.block.count <= READ_WORDS_MAX);
                let answer = Data::Words((0..batch.block.count).map(|at| batch.block.address + at).collect());
                for (_, member) in &batch.members {
                    let expected = (0..member.count).map(|at| member.address + at).collect();
                    prop_assert_eq!(batch.part(*member, &answer), Some(Data::Words(expected)));
                }
            }
        }
    }
}
