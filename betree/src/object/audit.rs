//! Whether the two datasets of a store say the same: what a check and a verification ask.

use super::chunk::chunk_count;
use super::format::{
    CUSTOM, NAMES, ObjectRecord, STAGED, TICKETS, chunk_key, key_chunk, key_custom, key_staged,
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something that the store knows of its objects cannot be right.
    Record,
    /// Chunks or custom metadata of no object: space that nobody gives back.
    Orphan,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub kind: Kind,
    pub object: String,
    pub expected: &'static str,
    pub found: String,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    id: u64,
    /// `None` for an object that is being made.
    size: Option<u64>,
    has_metadata: bool,
}

/// What is known of a store so far. First it is told of the metadata, in the order of the keys; then it says where chunks must
/// not be.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    known: Vec<Known>,
    /// Objects with custom metadata.
    custom: Vec<u64>,
    /// The highest ticket that was taken, and those that were not.
    highest: u64,
    bound: u64,
}

fn flaw(kind: Kind, object: String, expected: &'static str, found: String) -> Flaw {
    Flaw { kind, object, expected, found }
}

impl Audit {
    /// Objects, those being made included.
    pub fn objects(&self) -> u64 {
        self.known.len() as u64
    }

    /// Takes an entry of the metadata.
    pub fn metadata(&mut self, key: &[u8], value: &[u8]) -> Result<(), Flaw> {
        let damaged = |expected, found: String| flaw(Kind::Record, shown(key), expected, found);
        match key.first() {
            Some(&NAMES) if key.len() > 1 => {
                let record = ObjectRecord::decode(value);
                let record = record.map_err(|error| damaged("an object record", error.to_string()))?;
                let ObjectRecord { id, size, has_metadata, version, .. } = record;
                self.highest = self.highest.max(id).max(version);
                self.known.push(Known { id, size: Some(size), has_metadata });
            }
            Some(&CUSTOM) => {
                let (id, _) = key_custom(key).ok_or_else(|| damaged("a key of metadata", shown(key)))?;
                if self.custom.last() != Some(&id) {
                    self.custom.push(id);
                }
            }
            Some(&STAGED) => {
                let id = key_staged(key).ok_or_else(|| damaged("an object being made", shown(key)))?;
                self.highest = self.highest.max(id);
                self.known.push(Known { id, size: None, has_metadata: true });
            }
            Some(&TICKETS) if key.len() == 1 => {
                let bytes = value
                    .try_into()
                    .map_err(|_| damaged("a number of 8 bytes", format!("{} bytes", value.len())))?;
                self.bound = u64::from_le_bytes(bytes);
            }
            _ => return Err(damaged("a key of the metadata of objects", shown(key))),
        }
        Ok(())
    }

    /// All metadata was told: what of it is wrong.
    pub fn judge(&mut self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        self.known.sort_unstable_by_key(|known| known.id);
        for pair in self.known.windows(2).filter(|pair| pair[0].id == pair[1].id) {
            let found = String::from("that of two");
            flaws.push(flaw(Kind::Record, named(pair[0].id), "a number of one object", found));
        }
        for id in &self.custom {
            let at = self.known.binary_search_by_key(id, |known| known.id);
            match at.ok().and_then(|at| self.known.get(at)) {
                Some(known) if known.has_metadata => {}
                Some(_) => {
                    let found = String::from("some that the record does not know of");
                    flaws.push(flaw(Kind::Record, named(*id), "no custom metadata", found));
                }
                None => {
                    let found = String::from("some of an object that is not there");
                    flaws.push(flaw(Kind::Orphan, named(*id), "no custom metadata", found));
                }
            }
        }
        if !self.known.is_empty() && self.highest >= self.bound {
            let found = format!("{} in use, {} the next", self.highest, self.bound);
            let object = String::from("tickets");
            flaws.push(flaw(Kind::Record, object, "numbers below the next one", found));
        }
        flaws
    }

    /// The ranges of keys in which there must be no chunk: behind the end of each object, up to the next one.
    pub fn gaps(&self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        let first = self.known.first().map(|known| chunk_key(known.id, 0));
        let behind = self.known.iter().enumerate().map(|(at, known)| {
            let low = match known.size {
                Some(size) => chunk_key(known.id, chunk_count(size)),
                None => chunk_key(known.id.saturating_add(1), 0),
            };
            (low, self.known.get(at + 1).map(|next| chunk_key(next.id, 0)))
        });
        let all = behind.filter(|(low, high)| high.as_ref().is_none_or(|high| low < high));
        std::iter::once((Vec::new(), first)).chain(all)
    }

    /// What is wrong with a chunk in such a range.
    pub fn orphan(&self, key: &[u8]) -> Flaw {
        let Some((id, chunk)) = key_chunk(key) else {
            return flaw(Kind::Record, shown(key), "a key of a chunk", shown(key));
        };
        match self.known.binary_search_by_key(&id, |known| known.id) {
            Ok(_) => {
                let found = format!("chunk {chunk}");
                flaw(Kind::Orphan, named(id), "no chunk behind the end", found)
            }
            Err(_) => {
                let found = format!("chunk {chunk} of one that is not there");
                flaw(Kind::Orphan, named(id), "chunks of objects", found)
            }
        }
    }
}

fn named(id: u64) -> String {
    format!("object {id}")
}

fn shown(key: &[u8]) -> String {
    let rest = key.get(1..).unwrap_or_default().escape_ascii();
    match key.first() {
        Some(&NAMES) => format!("object {rest:?}", rest = rest.to_string()),
        _ => format!("entry {}", key.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{custom_key, name_key, staged_key};
    use super::*;
    use crate::base::preference::StoragePreference;

    fn record(id: u64, size: u64, has_metadata: bool) -> Vec<u8> {
        let preference = StoragePreference::NONE;
        ObjectRecord { id, size, modified: 0, created: 0, version: id, preference, has_metadata }.encode()
    }

    fn audit(entries: &[(Vec<u8>, Vec<u8>)]) -> (Audit, Vec<Flaw>) {
        let mut audit = Audit::default();
        let mut flaws: Vec<Flaw> =
            entries.iter().filter_map(|(key, value)| audit.metadata(key, value).err()).collect();
        flaws.extend(audit.judge());
        (audit, flaws)
    }

    #[test]
    fn chunks_belong_to_objects_that_reach_so_far() {
        let (audit, flaws) = audit(&[
            (name_key(b"a"), record(7, (128 << 10) + 1, true)),
            (name_key(b"b"), record(5, 0, false)),
            (custom_key(7, b"k"), vec![]),
            (staged_key(9), vec![]),
            (vec![TICKETS], 10_u64.to_le_bytes().to_vec()),
        ]);
        assert_eq!(flaws, []);
        let gaps: Vec<_> = audit.gaps().collect();
        assert_eq!(
            gaps,
            [
                (vec![], Some(chunk_key(5, 0))),
                (chunk_key(5, 0), Some(chunk_key(7, 0))),
                (chunk_key(7, 2), Some(chunk_key(9, 0))),
                (chunk_key(10, 0), None),
            ]
        );
        assert_eq!(audit.orphan(&chunk_key(7, 2)).expected, "no chunk behind the end");
        assert_eq!(audit.orphan(&chunk_key(6, 2)).kind, Kind::Orphan);
        assert_eq!(audit.orphan(b"x").kind, Kind::Record);
    }

    #[test]
    fn what_contradicts_itself_is_found() {
        let tickets = (vec![TICKETS], 10_u64.to_le_bytes().to_vec());
        let kinds = |entries: &[(Vec<u8>, Vec<u8>)]| {
            audit(entries).1.into_iter().map(|flaw| (flaw.kind, flaw.expected)).collect::<Vec<_>>()
        };
        let one = (name_key(b"a"), record(7, 0, false));
        assert_eq!(kinds(&[one.clone(), tickets.clone()]), []);
        assert_eq!(kinds(std::slice::from_ref(&one)), [(Kind::Record, "numbers below the next one")]);
        let twice = (name_key(b"b"), record(7, 0, false));
        assert_eq!(kinds(&[one.clone(), twice, tickets.clone()]), [(Kind::Record, "a number of one object")]);
        let stray = (custom_key(8, b""), vec![]);
        assert_eq!(kinds(&[one.clone(), stray, tickets.clone()]), [(Kind::Orphan, "no custom metadata")]);
        let unknown = (custom_key(7, b""), vec![]);
        assert_eq!(kinds(&[one, unknown, tickets]), [(Kind::Record, "no custom metadata")]);
        assert_eq!(kinds(&[(name_key(b"a"), vec![1])]), [(Kind::Record, "an object record")]);
        assert_eq!(kinds(&[(vec![9], vec![])]), [(Kind::Record, "a key of the metadata of objects")]);
        assert_eq!(kinds(&[(vec![TICKETS], vec![1])]), [(Kind::Record, "a number of 8 bytes")]);
        assert_eq!(kinds(&[(vec![STAGED, 1], vec![])]), [(Kind::Record, "an object being made")]);
        assert_eq!(kinds(&[(vec![CUSTOM, 1], vec![])]), [(Kind::Record, "a key of metadata")]);
    }
}
