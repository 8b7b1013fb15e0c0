//! Inputs made from valid ones: the mutations that libFuzzer makes, without its guidance.

use betree::vdev::SimRng;

/// Longest input.
const BYTES_MAX: usize = 64 << 10;
/// Numbers at which decoders tend to be wrong.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 3, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x0010_0000, 0x7fff_ffff, 0xffff_ffff, 1 << 52, u64::MAX];

/// An input: one of `seeds` with one to eight changes, seldom noise.
#[must_use]
pub fn mutate(seeds: &[Vec<u8>], rng: &mut SimRng) -> Vec<u8> {
    if seeds.is_empty() || rng.chance(1, 16) {
        return noise(rng);
    }
    let mut bytes = seeds[rng.index(seeds.len())].clone();
    let changes = 1 + rng.below(4) * rng.below(3);
    for _ in 0..changes {
        change(&mut bytes, seeds, rng);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn noise(rng: &mut SimRng) -> Vec<u8> {
    let bits = rng.below(13);
    let length = rng.below(1 << bits) as usize;
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut SimRng) {
    if bytes.is_empty() {
        bytes.extend(noise(rng));
        return;
    }
    // Headers are where the lengths are: half of all changes happen there.
    let reach = if rng.chance(1, 2) { bytes.len().min(128) } else { bytes.len() };
    let at = rng.index(reach);
    let end = (at + 1 + rng.index(16)).min(bytes.len());
    match rng.below(10) {
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at] = rng.next_u64() as u8,
        3 | 4 => {
            let number = NUMBERS[rng.index(NUMBERS.len())].wrapping_add(rng.below(3)).wrapping_sub(1);
            let width = [1, 2, 4, 8][rng.index(4)];
            let place = at..(at + width).min(bytes.len());
            let length = place.len();
            bytes[place].copy_from_slice(&number.to_le_bytes()[..length]);
        }
        5 => drop(bytes.drain(at..end)),
        6 => {
            let copy = bytes[at..end].to_vec();
            let to = rng.index(bytes.len());
            drop(bytes.splice(to..to, copy));
        }
        7 => bytes.truncate(at),
        8 => {
            let other = &seeds[rng.index(seeds.len())];
            let from = rng.index(other.len() + 1);
            let copy = other[from..(from + rng.index(64)).min(other.len())].to_vec();
            let end = (at + copy.len()).min(bytes.len());
            drop(bytes.splice(at..end, copy));
        }
        _ => {
            let delta = 1 + rng.below(4) as u8;
            bytes[at] =
                if rng.chance(1, 2) { bytes[at].wrapping_add(delta) } else { bytes[at].wrapping_sub(delta) };
        }
    }
}
