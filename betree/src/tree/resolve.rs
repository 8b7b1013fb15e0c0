//! From the versions of one key, newest first, to its value.

use super::TreeError;
use super::action::Action;
use super::part::{PartRead, ValuePart};
use super::value::{Caching, LargeValue, Value};
use crate::base::preference::StoragePreference;
use crate::dmu::Dmu;
use crate::run::{EntryRef, Kind};
use std::ops::ControlFlow;

#[derive(Debug)]
enum Base {
    None,
    Inline(Value),
    Large(LargeValue),
}

fn panicked(action: &Action) -> TreeError {
    TreeError::ActionPanicked { name: action.name().to_owned() }
}

/// Collects versions until the value is known.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Versions older than this are deleted by a range delete.
    deleted_before: u64,
    base: Base,
    /// Newest first.
    upserts: Vec<Vec<u8>>,
    /// The newest one that says something.
    preference: StoragePreference,
    error: Option<TreeError>,
    done: bool,
}

impl Resolver {
    pub fn new() -> Self {
        Self {
            deleted_before: 0,
            base: Base::None,
            upserts: Vec::new(),
            preference: StoragePreference::NONE,
            error: None,
            done: false,
        }
    }

    /// A range delete of this sequence covers the key.
    pub fn delete_before(&mut self, sequence: u64) {
        self.deleted_before = self.deleted_before.max(sequence);
    }

    /// Takes the next older version; breaks when no older one matters.
    pub fn push(&mut self, entry: EntryRef<'_>) -> ControlFlow<()> {
        if entry.sequence < self.deleted_before {
            self.done = true;
            return ControlFlow::Break(());
        }
        self.preference = self.preference.or(entry.preference);
        match entry.kind {
            Kind::Upsert => {
                self.upserts.push(entry.payload.to_vec());
                return ControlFlow::Continue(());
            }
            Kind::Put => self.base = Base::Inline(Value::from(entry.payload)),
            Kind::Delete => {}
            Kind::PutLarge => match LargeValue::decode(entry.payload) {
                Ok(pointer) => self.base = Base::Large(pointer),
                Err(error) => self.error = Some(error.into()),
            },
        }
        self.done = true;
        ControlFlow::Break(())
    }

    /// Whether no older version matters.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Where the value was asked to go: the newest preference among the versions that make it.
    pub fn preference(&self) -> StoragePreference {
        self.preference
    }

    /// Bytes of the large value below, 0 without one.
    pub fn large_bytes(&self) -> usize {
        if let Base::Large(pointer) = &self.base { pointer.length as usize } else { 0 }
    }

    /// Whether the value depends on the message action.
    pub fn needs_action(&self) -> bool {
        !self.upserts.is_empty()
    }

    /// The large value below, without which there is nothing to be read.
    pub fn large(&self) -> Option<&LargeValue> {
        if let Base::Large(pointer) = &self.base { Some(pointer) } else { None }
    }

    /// The same, when nothing else is wanted.
    pub fn into_large(self) -> Option<LargeValue> {
        if let Base::Large(pointer) = self.base { Some(pointer) } else { None }
    }

    /// The value of `key`.
    pub fn finish(
        self,
        key: &[u8],
        dmu: &Dmu,
        action: Option<&Action>,
        action_name: &str,
        caching: impl FnOnce(&LargeValue) -> Caching,
    ) -> Result<Option<Value>, TreeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.upserts.is_empty() {
            return match self.base {
                Base::None => Ok(None),
                Base::Inline(value) => Ok(Some(value)),
                Base::Large(pointer) => Ok(Some(pointer.read_value(dmu, caching(&pointer))?)),
            };
        }
        let Some(action) = action else {
            return Err(TreeError::ActionMissing { name: action_name.to_owned() });
        };
        let mut value = match self.base {
            Base::None => None,
            Base::Inline(value) => Some(value.to_vec()),
            Base::Large(pointer) => Some(pointer.read(dmu, caching(&pointer))?),
        };
        for message in self.upserts.iter().rev() {
            action.apply(key, message, &mut value).map_err(|_| panicked(action))?;
        }
        Ok(value.map(Value::from))
    }

    /// Brings what is below the messages of `length` bytes from byte `offset` into the cache; the messages are in memory.
    /// Whether a device was asked for it.
    pub fn read_ahead(self, dmu: &Dmu, offset: u64, length: usize) -> Result<bool, TreeError> {
        match (self.error, self.base) {
            (Some(error), _) => Err(error),
            (None, Base::Large(pointer)) => pointer.read_ahead(dmu, offset, length),
            (None, Base::None | Base::Inline(_)) => Ok(false),
        }
    }

    /// The part of the value of `key` from byte `offset` that fits into `out`.
    pub fn finish_part(
        mut self,
        key: &[u8],
        dmu: &Dmu,
        action: Option<&Action>,
        action_name: &str,
        offset: u64,
        out: &mut [u8],
    ) -> Result<Option<PartRead>, TreeError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let length = match &self.base {
            Base::None => None,
            Base::Inline(value) => Some(value.len() as u64),
            Base::Large(pointer) => Some(u64::from(pointer.length)),
        };
        if self.needs_action() && action.is_none() {
            return Err(TreeError::ActionMissing { name: action_name.to_owned() });
        }
        if self.needs_action() {
            out.fill(0);
        }
        let mut part = ValuePart::new(offset, out, length);
        for message in self.upserts.iter().rev() {
            let Some(action) = action else { break };
            if !action.apply_to_part(key, message, &mut part).map_err(|_| panicked(action))? {
                let value = self.finish(key, dmu, Some(action), action_name, LargeValue::caching)?;
                return Ok(value.and_then(|value| {
                    let mut part = ValuePart::new(offset, out, None);
                    part.replace(&value);
                    part.finish()
                }));
            }
        }
        part.fill_gaps(length.unwrap_or(0), |at, place| match &self.base {
            Base::None => Ok(()),
            Base::Inline(value) => {
                place.copy_from_slice(&value[at as usize..at as usize + place.len()]);
                Ok(())
            }
            Base::Large(pointer) => pointer.read_part(dmu, at as usize, place, Caching::of_part(place.len())),
        })?;
        Ok(part.finish())
    }
}
