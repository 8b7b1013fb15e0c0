//! A part of a value: what a reader wants of it, and messages that apply to that alone.

use std::ops::Range;

/// What was read of a part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRead {
    /// Bytes at the start of the buffer that are of the value: fewer than the buffer has where the value ends.
    pub filled: usize,
    /// Length of the whole value, in bytes.
    pub value_length: u64,
}

/// The part of a value that a reader wants, as an action sees it: messages say what they do to the whole value, and here
/// it happens to the part. What is below the messages is read afterwards, and only where none of them wrote.
#[derive(Debug)]
pub struct ValuePart<'a> {
    /// Where the part starts in the value.
    offset: u64,
    /// The bytes of the part; zero where the value has none.
    bytes: &'a mut [u8],
    /// Length of the value; `None`: there is none.
    length: Option<u64>,
    /// What messages wrote of `bytes`: in order, with room between.
    written: Vec<Range<usize>>,
}

impl<'a> ValuePart<'a> {
    /// The part from byte `offset` that fits into `bytes`, of a value of `length` bytes that was not read yet. With messages,
    /// `bytes` are zero.
    pub(super) fn new(offset: u64, bytes: &'a mut [u8], length: Option<u64>) -> Self {
        Self { offset, bytes, length, written: Vec::new() }
    }

    /// Length of the whole value; `None`: the key has none.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The key has no value from here on.
    pub fn delete(&mut self) {
        self.bytes.fill(0);
        self.length = None;
        self.note_written(0..self.bytes.len());
    }

    /// The value is `value` from here on.
    pub fn replace(&mut self, value: &[u8]) {
        self.delete();
        self.write(0, value);
    }

    /// Writes `bytes` at byte `at` of the value, which grows as needed, with zeros.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len() as u64);
        self.length = Some(self.length.unwrap_or(0).max(end));
        let (from, to) = (at.max(self.offset), end.min(self.offset.saturating_add(self.bytes.len() as u64)));
        if from < to {
            let place = (from - self.offset) as usize..(to - self.offset) as usize;
            let source = (from - at) as usize..(to - at) as usize;
            self.bytes[place.clone()].copy_from_slice(&bytes[source]);
            self.note_written(place);
        }
    }

    fn note_written(&mut self, range: Range<usize>) {
        let first = self.written.partition_point(|other| other.end < range.start);
        let after = self.written.partition_point(|other| other.start <= range.end);
        let joined = self.written[first..after]
            .iter()
            .fold(range, |joined, other| joined.start.min(other.start)..joined.end.max(other.end));
        self.written.splice(first..after, [joined]);
    }

    /// Lets `read` fill what no message wrote: it gets the offset in the value below, which has `length` bytes, and the
    /// place.
    pub(super) fn fill_gaps<E>(
        &mut self,
        length: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = usize::try_from(length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let end = end.min(self.bytes.len());
        let mut from = 0;
        for range in self.written.iter().cloned().chain(std::iter::once(end..end)) {
            let gap = from..range.start.min(end);
            if !gap.is_empty() {
                read(self.offset + gap.start as u64, &mut self.bytes[gap])?;
            }
            from = range.end;
        }
        Ok(())
    }

    /// What was read.
    pub(super) fn finish(self) -> Option<PartRead> {
        let value_length = self.length?;
        let there = usize::try_from(value_length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        Some(PartRead { filled: there.min(self.bytes.len()), value_length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part of a value is that part of the whole.
    #[test]
    fn messages_do_to_a_part_what_they_do_to_the_whole() {
        type Step = (u64, &'static [u8]);
        let cases: [(&[u8], &[Step]); 5] = [
            (b"0123456789", &[(2, b"ab"), (7, b"cdefg")]),
            (b"0123456789", &[(4, b"x"), (3, b"yyy"), (5, b"z")]),
            (b"0123456789", &[(0, b"ab"), (2, b"cd"), (8, b"ef")]),
            (b"01", &[(5, b"a")]),
            (b"", &[(1, b"abc"), (9, b"")]),
        ];
        for (base, steps) in cases {
            let mut whole = base.to_vec();
            for (at, bytes) in steps {
                let end = *at as usize + bytes.len();
                whole.resize(whole.len().max(end), 0);
                whole[*at as usize..end].copy_from_slice(bytes);
            }
            for offset in 0..14 {
                for wanted in 0..14 {
                    let mut out = vec![0; wanted];
                    let mut part = ValuePart::new(offset, &mut out, Some(base.len() as u64));
                    steps.iter().for_each(|(at, bytes)| part.write(*at, bytes));
                    let read = part.fill_gaps(base.len() as u64, |at, place| {
                        place.copy_from_slice(&base[at as usize..][..place.len()]);
                        Ok::<_, ()>(())
                    });
                    assert_eq!(read, Ok(()));
                    let read = part.finish().unwrap();
                    let expected = whole.get(offset as usize..).unwrap_or_default();
                    let expected = &expected[..expected.len().min(wanted)];
                    assert_eq!(&out[..read.filled], expected);
                    assert_eq!(read.value_length, whole.len() as u64);
                }
            }
        }
    }

    #[test]
    fn what_was_written_is_not_read() {
        let mut out = [0; 100];
        let mut part = ValuePart::new(1000, &mut out, Some(5000));
        part.write(990, &[1; 20]);
        part.write(1050, &[2; 10]);
        part.write(1055, &[3; 10]);
        let mut gaps = Vec::new();
        let read = part.fill_gaps(1080, |at, place| {
            gaps.push((at, place.len()));
            Ok::<_, ()>(())
        });
        assert_eq!((read, gaps), (Ok(()), vec![(1010, 40), (1065, 15)]));
        part.replace(&[4; 1005]);
        let read = part.fill_gaps(5000, |_, _| Err("nothing is left to read"));
        assert_eq!(read, Ok(()));
        assert_eq!(part.finish(), Some(PartRead { filled: 5, value_length: 1005 }));
        let mut part = ValuePart::new(0, &mut out, Some(5000));
        part.delete();
        assert_eq!((part.length(), part.finish()), (None, None));
    }
}
