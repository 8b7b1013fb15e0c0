//! Messages of the default action: lists of steps, and what two of them come to.

use super::action::UPSERT_END_MAX;
use crate::base::codec::{Decoder, Encoder};

/// One step of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Delete,
    Replace(&'a [u8]),
    /// Bytes at an offset; a gap before them is zeros.
    Write(usize, &'a [u8]),
}

/// The steps of a message, as far as it is well-formed.
pub(super) struct Steps<'a>(Decoder<'a>);

impl<'a> Steps<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Self(Decoder::new(message))
    }

    /// Whether all steps were taken.
    pub fn is_at_end(&self) -> bool {
        self.0.remaining() == 0
    }

    fn read(mut input: Decoder<'a>) -> Option<(Step<'a>, Decoder<'a>)> {
        let step = match input.u8("step").ok()? {
            0 => Step::Delete,
            1 => Step::Replace(input.bytes(UPSERT_END_MAX as usize, "value").ok()?),
            2 => {
                let offset = input.u32("offset").ok()? as usize;
                let bytes = input.bytes(UPSERT_END_MAX as usize, "bytes").ok()?;
                offset.checked_add(bytes.len()).filter(|end| *end as u64 <= UPSERT_END_MAX)?;
                Step::Write(offset, bytes)
            }
            _ => return None,
        };
        Some((step, input))
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (step, rest) = Self::read(self.0.clone())?;
        self.0 = rest;
        Some(step)
    }
}

impl Step<'_> {
    pub fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Delete => out.u8(0),
            Self::Replace(bytes) => {
                out.u8(1);
                out.bytes(bytes);
            }
            Self::Write(offset, bytes) => {
                out.u8(2);
                out.u32(*offset as u32);
                out.bytes(bytes);
            }
        }
    }
}

/// Steps one after the other, without those and the parts of those that later ones undo.
#[derive(Debug, Default)]
pub(super) struct Patch<'a> {
    /// A delete or a replacement, before all else.
    base: Option<Step<'a>>,
    /// Offsets and bytes, in order, none over another.
    writes: Vec<(usize, &'a [u8])>,
    /// How long the writes make the value at least; `None` without one.
    end: Option<usize>,
}

impl<'a> Patch<'a> {
    /// What the messages do one after the other; `None` when one of them is malformed.
    pub fn of(messages: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut patch = Self::default();
        for message in messages {
            let mut steps = Steps::of(message);
            steps.by_ref().for_each(|step| patch.push(step));
            if !steps.is_at_end() {
                return None;
            }
        }
        Some(patch)
    }

    fn push(&mut self, step: Step<'a>) {
        match step {
            Step::Delete | Step::Replace(_) => *self = Self { base: Some(step), ..Self::default() },
            Step::Write(offset, bytes) => {
                let end = offset + bytes.len();
                self.end = Some(self.end.unwrap_or(0).max(end));
                if !bytes.is_empty() {
                    self.write(offset, bytes);
                }
            }
        }
    }

    fn write(&mut self, offset: usize, bytes: &'a [u8]) {
        let end = offset + bytes.len();
        let first = self.writes.partition_point(|(at, old)| at + old.len() <= offset);
        let after = self.writes.partition_point(|(at, _)| *at < end).max(first);
        let mut new = Vec::with_capacity(3);
        // What of the others sticks out before and behind.
        if let Some((at, old)) = self.writes[first..after].first().filter(|(at, _)| *at < offset) {
            new.push((*at, &old[..offset - at]));
        }
        new.push((offset, bytes));
        if let Some((at, old)) = self.writes[first..after].last().filter(|(at, old)| at + old.len() > end) {
            new.push((end, &old[end - at..]));
        }
        self.writes.splice(first..after, new);
    }

    /// The message that does this.
    pub fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.writes.iter().map(|(_, bytes)| bytes.len() + 10).sum();
        let base = if let Some(Step::Replace(value)) = self.base { value.len() } else { 0 };
        let mut out = Encoder::with_capacity(bytes + base + 20);
        if let Some(base) = &self.base {
            base.encode(&mut out);
        }
        let mut end = None;
        for neighbours in self.writes.chunk_by(|(at, bytes), (next, _)| at + bytes.len() == *next) {
            let Some((offset, _)) = neighbours.first() else { continue };
            let length: usize = neighbours.iter().map(|(_, bytes)| bytes.len()).sum();
            out.u8(2);
            out.u32(*offset as u32);
            out.varint(length as u64);
            neighbours.iter().for_each(|(_, bytes)| out.raw(bytes));
            end = Some(offset + length);
        }
        // Writing nothing makes a value, or makes it longer.
        if let Some(longest) = self.end.filter(|longest| end.is_none_or(|end| end < *longest)) {
            Step::Write(longest, &[]).encode(&mut out);
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{DefaultMessageAction, MessageAction};
    use crate::vdev::SimRng;

    fn any_message(rng: &mut SimRng) -> Vec<u8> {
        let mut out = Encoder::new();
        for _ in 0..rng.below(5) {
            let bytes: Vec<u8> = (0..rng.below(9)).map(|_| rng.below(256) as u8).collect();
            match rng.below(12) {
                0 => Step::Delete,
                1 => Step::Replace(&bytes),
                _ => Step::Write(rng.below(30) as usize, &bytes),
            }
            .encode(&mut out);
        }
        out.finish()
    }

    #[test]
    fn a_patch_does_what_its_messages_do_and_holds_no_byte_twice() {
        let action = DefaultMessageAction;
        let mut rng = SimRng::new(1);
        for _ in 0..3000 {
            let messages: Vec<Vec<u8>> = (0..1 + rng.below(6)).map(|_| any_message(&mut rng)).collect();
            let patch = Patch::of(messages.iter().map(Vec::as_slice)).unwrap();
            let mut covered = [false; 64];
            for (offset, bytes) in &patch.writes {
                covered[*offset..offset + bytes.len()].iter_mut().for_each(|byte| {
                    assert!(!std::mem::replace(byte, true), "{patch:?}");
                });
            }
            for start in [None, Some(Vec::new()), Some((0..20).collect::<Vec<u8>>())] {
                let (mut one, mut two) = (start.clone(), start);
                messages.iter().for_each(|message| action.apply(b"", message, &mut one));
                action.apply(b"", &patch.encode(), &mut two);
                assert_eq!(one, two, "{messages:?}");
            }
        }
        assert!(Patch::of([&[9][..]]).is_none());
    }
}
