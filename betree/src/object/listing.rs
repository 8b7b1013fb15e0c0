//! Lists of objects: iterators and pages.

use super::format::{NAMES, name_key};
use super::info::ObjectInfo;
use super::state::decode_record;
use crate::database::{DatasetView, Entries, Error, Result, prefix_bounds};
use crate::tree::Value;
use std::ops::{Bound, RangeBounds};

/// Names and what is known of the objects, in the order of the names, from one consistent state; `.rev()` goes backwards.
/// After an error it ends.
#[derive(Debug)]
pub struct Objects {
    entries: Entries,
}

/// The range of keys of the names in `range`.
pub(super) fn name_bounds<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let of = |bound: Bound<&K>, unbounded| match bound {
        Bound::Included(name) => Bound::Included(name_key(name.as_ref())),
        Bound::Excluded(name) => Bound::Excluded(name_key(name.as_ref())),
        Bound::Unbounded => unbounded,
    };
    let start = of(range.start_bound(), Bound::Included(vec![NAMES]));
    (start, of(range.end_bound(), Bound::Excluded(vec![NAMES + 1])))
}

impl Objects {
    pub(super) fn new(entries: Entries) -> Self {
        Self { entries }
    }
}

fn item(entry: Result<(Value, Value)>) -> Result<(Vec<u8>, ObjectInfo)> {
    let (key, value) = entry?;
    let name = key.get(1..).unwrap_or_default();
    Ok((name.to_vec(), ObjectInfo::from(&decode_record(name, &value)?)))
}

impl Iterator for Objects {
    type Item = Result<(Vec<u8>, ObjectInfo)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(item)
    }
}

impl DoubleEndedIterator for Objects {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entries.next_back().map(item)
    }
}

/// Which objects a page lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only names that start with this.
    pub prefix: Vec<u8>,
    /// Names that have this behind the prefix are not listed one by one: what they start with, up to and with the first
    /// delimiter, is listed once. Empty for none.
    pub delimiter: Vec<u8>,
    /// Only names behind this one.
    pub start_after: Vec<u8>,
    /// Where the page before ended; then `start_after` says nothing.
    pub token: Option<Vec<u8>>,
    /// Objects and prefixes on the page, at the most; 0 for 1000.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectPage {
    /// Names and what is known of the objects, in order.
    pub objects: Vec<(Vec<u8>, ObjectInfo)>,
    /// What the names with a delimiter start with, in order.
    pub prefixes: Vec<Vec<u8>>,
    /// What the next page starts with; `None` when there is none.
    pub token: Option<Vec<u8>>,
}

const LIMIT: usize = 1000;
/// First byte of a token: what follows is a name that was listed, or a prefix.
const AFTER_NAME: u8 = 0;
const AFTER_PREFIX: u8 = 1;

/// The first name that starts with none but later things than `prefix`; `None` at the end.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    prefix_bounds(prefix).1
}

fn after(name: &[u8]) -> Vec<u8> {
    [name, &[0]].concat()
}

/// Where `delimiter` begins in `bytes`; nowhere when it is empty.
fn find(bytes: &[u8], delimiter: &[u8]) -> Option<usize> {
    if delimiter.is_empty() {
        return None;
    }
    bytes.windows(delimiter.len()).position(|window| window == delimiter)
}

/// The page of `options` in the metadata that `view` has.
pub(super) fn page(view: &DatasetView, options: &ListOptions) -> Result<ObjectPage> {
    let limit = if options.limit == 0 { LIMIT } else { options.limit };
    let mut page = ObjectPage::default();
    let start = match options.token.as_deref() {
        None if options.start_after.is_empty() => Some(Vec::new()),
        None => Some(after(&options.start_after)),
        Some([AFTER_NAME, name @ ..]) => Some(after(name)),
        Some([AFTER_PREFIX, prefix @ ..]) => behind(prefix),
        Some(_) => {
            let reason = String::from("it is not one that a page ended with");
            return Err(Error::InvalidArgument { what: "token", reason });
        }
    };
    let Some(start) = start else { return Ok(page) };
    let end = behind(&options.prefix);
    let from = |start: &[u8]| {
        let low = Bound::Included(name_key(start.max(&options.prefix[..])));
        let high = end.as_ref().map_or(vec![NAMES + 1], |end| name_key(end));
        Objects::new(view.range((low, Bound::Excluded(high))))
    };
    let mut names = from(&start);
    let mut last: Option<Vec<u8>> = None;
    while let Some(object) = names.next() {
        let (name, info) = object?;
        if page.objects.len() + page.prefixes.len() == limit {
            page.token = last;
            break;
        }
        let rest = name.get(options.prefix.len()..).unwrap_or_default();
        match find(rest, &options.delimiter) {
            Some(at) => {
                let common = name[..options.prefix.len() + at + options.delimiter.len()].to_vec();
                let next = behind(&common);
                last = Some([&[AFTER_PREFIX], &common[..]].concat());
                page.prefixes.push(common);
                match next {
                    Some(next) => names = from(&next),
                    None => break,
                }
            }
            None => {
                last = Some([&[AFTER_NAME], &name[..]].concat());
                page.objects.push((name, info));
            }
        }
    }
    Ok(page)
}
