//! Parity arithmetic: P is the sum of the data columns, Q the sum of `2ʲ` times column `j`, in GF(2⁸).
//!
//! The field is that of H. P. Anvin, "The mathematics of RAID-6": sums are exclusive or, products are modulo
//! x⁸ + x⁴ + x³ + x² + 1, and 2 generates it. A column that is shorter than the others counts as zero behind its end.

use std::ops::Range;

/// The field's polynomial without its highest term.
const POLYNOMIAL: u8 = 0x1d;
const LANE: usize = 8;
/// Bytes that are done for all columns before the next ones: sums stay in the nearest cache.
const PASS: usize = 4096;

/// Twice each of eight bytes.
const fn double_lane(lane: u64) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let carry = (lane & HIGH) >> 7;
    ((lane & !HIGH) << 1) ^ (carry * POLYNOMIAL as u64)
}

fn double(value: u8) -> u8 {
    (value << 1) ^ if value & 0x80 == 0 { 0 } else { POLYNOMIAL }
}

fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

fn power(exponent: usize) -> u8 {
    (0..exponent).fold(1, |value, _| double(value))
}

/// The inverse of `value`, which is not 0: its 254th power.
fn inverse(value: u8) -> u8 {
    (0..254).fold(1, |product, _| times(product, value))
}

/// `to += from`; what of `to` is behind the end of `from` stays.
fn add(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

/// `to = 2 × to + from`; `from` counts as zero behind its end.
fn double_add(to: &mut [u8], from: &[u8]) {
    let (both, rest) = to.split_at_mut(from.len().min(to.len()));
    let (lanes, _) = both.as_chunks_mut::<LANE>();
    for (lane, from) in lanes.iter_mut().zip(from.as_chunks::<LANE>().0) {
        *lane = (double_lane(u64::from_le_bytes(*lane)) ^ u64::from_le_bytes(*from)).to_le_bytes();
    }
    for lane in rest.as_chunks_mut::<LANE>().0 {
        *lane = double_lane(u64::from_le_bytes(*lane)).to_le_bytes();
    }
}

/// `bytes *= factor`.
fn scale(bytes: &mut [u8], factor: u8) {
    // A mask for each bit instead of a branch: the compiler then does several lanes at a time.
    let masks: [u64; 8] = std::array::from_fn(|bit| 0_u64.wrapping_sub(u64::from(factor >> bit & 1)));
    for lane in bytes.as_chunks_mut::<LANE>().0 {
        let (mut power, mut product) = (u64::from_le_bytes(*lane), 0);
        for mask in masks {
            product ^= power & mask;
            power = double_lane(power);
        }
        *lane = product.to_le_bytes();
    }
}

/// The bytes of `column` that lie in `pass`.
fn cut<'a>(column: &'a [u8], pass: &Range<usize>) -> &'a [u8] {
    &column[pass.start.min(column.len())..pass.end.min(column.len())]
}

/// Stretches of `bytes` bytes, one after the other.
fn passes(bytes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..bytes).step_by(PASS).map(move |start| start..(start + PASS).min(bytes))
}

/// The first parity of `data`, of which those in `without` count as zero.
fn first_parity(data: &[&[u8]], without: &[usize], pass: &Range<usize>, out: &mut [u8]) {
    out.fill(0);
    for (index, column) in data.iter().enumerate() {
        if !without.contains(&index) {
            add(out, cut(column, pass));
        }
    }
}

/// The second parity of `data`, of which those in `without` count as zero: by Horner's rule, from the last column on.
fn second_parity(data: &[&[u8]], without: &[usize], pass: &Range<usize>, out: &mut [u8]) {
    out.fill(0);
    for (index, column) in data.iter().enumerate().rev() {
        double_add(out, if without.contains(&index) { &[] } else { cut(column, pass) });
    }
}

/// Fills `parity` (one or two columns, as long as the longest of `data`) from `data`. Columns are whole lanes of 8 bytes.
pub(super) fn encode(data: &[&[u8]], parity: &mut [&mut [u8]]) {
    for pass in passes(parity.first().map_or(0, |first| first.len())) {
        for (index, out) in parity.iter_mut().enumerate() {
            match index {
                0 => first_parity(data, &[], &pass, &mut out[pass.clone()]),
                _ => second_parity(data, &[], &pass, &mut out[pass.clone()]),
            }
        }
    }
}

/// Makes the columns of a stripe that are named in `missing` (ascending) from the others, into `outs`, which are as long as
/// these columns. The first `parity` of `columns` are parity, the others data; what `columns` has for those that are missing
/// does not matter. Whether there were enough.
pub(super) fn rebuild(columns: &[&[u8]], parity: usize, missing: &[usize], outs: &mut [&mut [u8]]) -> bool {
    if missing.len() > parity.min(outs.len()) || missing.iter().any(|column| *column >= columns.len()) {
        return false;
    }
    let data = &columns[parity..];
    let parities = missing.iter().filter(|column| **column < parity).count();
    let lost: Vec<usize> = missing[parities..].iter().map(|column| column - parity).collect();
    match (&lost[..], &mut outs[parities..]) {
        ([], _) => {}
        ([_], [out, ..]) if !missing.contains(&0) => {
            for pass in passes(out.len()) {
                let out = &mut out[pass.clone()];
                first_parity(data, &lost, &pass, out);
                add(out, cut(columns[0], &pass));
            }
        }
        ([x], [out, ..]) => {
            let factor = inverse(power(*x));
            for pass in passes(out.len()) {
                let out = &mut out[pass.clone()];
                second_parity(data, &lost, &pass, out);
                add(out, cut(columns[1], &pass));
                scale(out, factor);
            }
        }
        ([x, y], [out_x, out_y, ..]) => {
            // x + y = p and 2ˣ x + 2ʸ y = q. The later column is not the longer one; behind its end it is zero.
            let (gx, gy) = (power(*x), power(*y));
            let factor = inverse(gx ^ gy);
            let mut sum = [0; PASS];
            for pass in passes(out_x.len()) {
                let out = &mut out_x[pass.clone()];
                let p = &mut sum[..out.len()];
                first_parity(data, &lost, &pass, p);
                add(p, cut(columns[0], &pass));
                second_parity(data, &lost, &pass, out);
                add(out, cut(columns[1], &pass));
                let end = pass.end.min(out_y.len());
                let other = &mut out_y[pass.start.min(end)..end];
                let length = other.len();
                other.copy_from_slice(&p[..length]);
                scale(p, gy);
                add(out, p);
                scale(out, factor);
                add(other, out);
            }
        }
        _ => return false,
    }
    let (parity_outs, data_outs) = outs.split_at_mut(parities);
    let mut whole = data.to_vec();
    lost.iter().zip(&*data_outs).for_each(|(index, out)| whole[*index] = out);
    for (column, out) in missing.iter().zip(parity_outs) {
        for pass in passes(out.len()) {
            match column {
                0 => first_parity(&whole, &[], &pass, &mut out[pass.clone()]),
                _ => second_parity(&whole, &[], &pass, &mut out[pass.clone()]),
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vdev::SimRng;

    #[test]
    fn the_field_is_one() {
        for a in 1..=255u8 {
            assert_eq!(times(a, inverse(a)), 1);
            assert_eq!(double(a), times(a, 2));
            for b in [1, 2, 3, 29, 128, 255] {
                assert_eq!(times(a, b), times(b, a));
                let mut bytes = [a; 16];
                scale(&mut bytes, b);
                assert_eq!(bytes, [times(a, b); 16]);
            }
        }
        let powers: std::collections::BTreeSet<u8> = (0..255).map(power).collect();
        assert_eq!(powers.len(), 255, "2 generates it");
    }

    /// Every set of missing columns within redundancy, columns of two lengths.
    #[test]
    fn what_is_missing_is_made_from_the_rest() {
        let mut rng = SimRng::new(6);
        for parity in 1..=2usize {
            for width in 1..=10 {
                let mut column =
                    |length: usize| (0..length).map(|_| rng.below(256) as u8).collect::<Vec<u8>>();
                let mut columns = vec![vec![0; 64]; parity];
                columns.extend(
                    (0..width).map(|index| column(if index < width / 2 || width == 1 { 64 } else { 48 })),
                );
                {
                    let (parities, data) = columns.split_at_mut(parity);
                    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
                    let mut parities: Vec<&mut [u8]> = parities.iter_mut().map(Vec::as_mut_slice).collect();
                    encode(&data, &mut parities);
                }
                let all = columns.len();
                for first in 0..all {
                    for second in first..all {
                        let missing = if first == second { vec![first] } else { vec![first, second] };
                        let mut damaged = columns.clone();
                        missing.iter().for_each(|at| damaged[*at].fill(0xa5));
                        let given: Vec<&[u8]> = damaged.iter().map(Vec::as_slice).collect();
                        let mut made: Vec<Vec<u8>> =
                            missing.iter().map(|at| vec![0x5a; columns[*at].len()]).collect();
                        let mut outs: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
                        let enough = rebuild(&given, parity, &missing, &mut outs);
                        assert_eq!(enough, missing.len() <= parity);
                        let right = missing.iter().zip(&made).all(|(at, made)| columns[*at] == *made);
                        assert!(!enough || right, "{parity}+{width}: {missing:?}");
                    }
                }
                let given: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
                assert!(!rebuild(&given, parity, &[all], &mut [&mut [0; 64]]), "no such column");
            }
        }
    }
}
