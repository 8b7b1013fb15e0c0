//! Large values that lie one behind the other, as they do when they were written so: one request reads them all.

use super::TreeError;
use super::value::{Caching, LargeValue, Value};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::units::BLOCK_BYTES;
use crate::dmu::{Dmu, Reading};

/// Bytes of one request.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// A value that is longer keeps a device busy by itself.
const NEIGHBOUR_BYTES_MAX: usize = 128 << 10;

/// Values whose extents follow each other.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    values: Vec<LargeValue>,
    /// Blocks of all of them.
    blocks: u32,
}

/// Where `value` lies, when every block of that is data, and is where the pointer says.
fn place(dmu: &Dmu, value: &LargeValue) -> Option<Extent> {
    let [extent] = value.extents[..] else { return None };
    let is_plain = dmu.data_blocks(&[extent]) == u64::from(extent.blocks);
    (is_plain && dmu.places_of_moved(&extent).is_none()).then_some(extent)
}

impl Neighbours {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Adds `value`, when it is short, not in the cache, and lies behind the others. Whether it was added.
    pub fn add(&mut self, dmu: &Dmu, value: &LargeValue) -> bool {
        let (Some(extent), length) = (place(dmu, value), value.length as usize) else { return false };
        if length == 0
            || length > NEIGHBOUR_BYTES_MAX
            || value.missing_pieces(dmu, 0, length, Caching::Pass).is_none()
            || (self.blocks + extent.blocks) as usize * BLOCK_BYTES > REQUEST_BYTES_MAX
        {
            return false;
        }
        let joins = |last: &LargeValue| last.extents.last().is_some_and(|last| dmu.joins(last, &extent));
        if !self.values.last().is_none_or(joins) {
            return false;
        }
        self.blocks += extent.blocks;
        self.values.push(value.clone());
        true
    }

    /// Reads them all. What does not come whole with the others is read by itself, which finds out why, and repairs what can be.
    pub fn read(&self, dmu: &Dmu) -> Vec<Result<Value, TreeError>> {
        let mut out = Vec::with_capacity(self.values.len());
        read(dmu, &self.values, &mut out);
        out
    }
}

/// Adds what `values` are to `out`. Half of them at a time, and half of that, where a member does not give all: one bad sector does not make
/// each of them a request.
fn read(dmu: &Dmu, values: &[LargeValue], out: &mut Vec<Result<Value, TreeError>>) {
    let alone = |value: &LargeValue| value.read_value(dmu, Caching::Pass);
    match values {
        [] => {}
        [value] => out.push(alone(value)),
        _ => match read_joined(dmu, values) {
            Some(bytes) => {
                let mut rest = &bytes[..];
                for value in values {
                    let (stored, behind) = rest.split_at(value.stored_bytes() as usize);
                    rest = behind;
                    let bytes = &stored[..value.length as usize];
                    out.push(if value.is_right(bytes) { Ok(Value::from(bytes)) } else { alone(value) });
                }
            }
            None => {
                let (first, second) = values.split_at(values.len() / 2);
                read(dmu, first, out);
                read(dmu, second, out);
            }
        },
    }
}

/// The blocks of `values` with one request; `None` when not every member that is asked gives its part, or they are not where they were.
fn read_joined(dmu: &Dmu, values: &[LargeValue]) -> Option<AlignedBuffer> {
    let places: Vec<Extent> = values.iter().map(|value| place(dmu, value)).collect::<Option<_>>()?;
    let first = *places.first()?;
    let whole = Extent { blocks: places.iter().map(|place| place.blocks).sum(), ..first };
    match dmu.read_doubtful(&[whole], 0, whole.blocks as usize * BLOCK_BYTES) {
        Ok((bytes, Reading::Clean)) => {
            values.iter().for_each(|_| dmu.cache().record_miss());
            Some(bytes)
        }
        Ok((_, Reading::Partial | Reading::Failed(_))) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::preference::StoragePreference;
    use crate::dmu::Privilege;
    use crate::dmu::testing::{unit, worn_unit};
    use crate::pool::format::VdevKind;

    fn written(dmu: &Dmu, number: u8) -> LargeValue {
        let bytes = vec![number; 1 + usize::from(number) * 3001 % 20_000];
        LargeValue::write(dmu, &bytes, StoragePreference::NONE, Privilege::User).unwrap()
    }

    /// Values of different lengths, one behind the other.
    fn neighbours(dmu: &Dmu) -> (Vec<LargeValue>, impl Fn() -> Neighbours) {
        let values: Vec<LargeValue> = (1..=20).map(|number| written(dmu, number)).collect();
        let (dmu, of) = (dmu.clone(), values.clone());
        let all = move || {
            let mut neighbours = Neighbours::default();
            assert!(of.iter().all(|value| neighbours.add(&dmu, value)));
            neighbours
        };
        (values, all)
    }

    fn check(number: u8, value: &LargeValue, found: &Value) {
        assert_eq!(found.len(), value.length as usize);
        assert!(found.iter().all(|byte| *byte == number), "{number}");
    }

    #[test]
    fn values_side_by_side_come_with_one_request() {
        for (kind, leaves) in [(VdevKind::Leaf, 1), (VdevKind::Mirror, 2)] {
            let (dmu, disks) = unit(kind, leaves, 1 << 12);
            let reads = || -> u64 { dmu.pool().metrics().iter().map(|vdev| vdev.reads.requests).sum() };
            let (values, all) = neighbours(&dmu);
            let (neighbours, before) = (all(), reads());
            let found = neighbours.read(&dmu);
            assert_eq!((reads() - before, found.len()), (1, 20));
            for ((number, value), found) in (1..).zip(&values).zip(found) {
                check(number, value, &found.unwrap());
            }
            // One of them is damaged.
            disks[0].flip_bit(values[7].extents[0].block * 4096, 3);
            let found = all().read(&dmu);
            for ((number, value), found) in (1..).zip(&values).zip(found) {
                match found {
                    Err(_) => assert_eq!((kind, number), (VdevKind::Leaf, 8)),
                    Ok(found) => check(number, value, &found),
                }
            }
        }
        // On parity a stripe is longer than what is short.
        let (dmu, _disks) = unit(VdevKind::Parity1, 3, 1 << 12);
        assert!(!Neighbours::default().add(&dmu, &written(&dmu, 1)));
    }

    /// As by reading one by one: see `values_outlive_bad_sectors`.
    #[test]
    fn bad_sectors_among_neighbours_are_repaired() {
        let (dmu, disks) = worn_unit(VdevKind::Mirror, 2, 1 << 12);
        let (values, all) = neighbours(&dmu);
        disks[0].wear(values[3].extents[0].block);
        disks[1].wear(values[12].extents[0].block);
        for _ in 0..4 {
            let found = all().read(&dmu);
            for ((number, value), found) in (1..).zip(&values).zip(found) {
                check(number, value, &found.unwrap());
            }
        }
        // One of them was asked.
        assert!(disks.iter().any(|disk| disk.worn() == 0), "nothing is repaired");
    }
}
