//! `bectl send` and `bectl receive`: snapshots as streams on standard output and input.

use super::owner::Owner;
use super::readable::{check_no_snapshot, check_no_store_snapshot};
use crate::args::{Bytes, Receive, Send, SnapshotName};
use crate::context::Context;
use crate::failure::{Failure, quoted};
use crate::interrupt::Interrupt;
use crate::output::{Cell, Sink};
use crate::progress::Progress;
use crate::text::{self, Encoding, JsonBytes};
use betree::{
    Database, Error, ErrorKind, ReceiveOptions, ReceiveReport, SendOptions, SendPart, Snapshot,
    StoreSnapshot, StreamError, StreamInfo, StreamKind, Unfinished,
};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Read, Write};

/// Writes to standard output and says how far it is. Ctrl-C ends it.
struct Sending<'a> {
    sink: Sink,
    progress: Progress,
    interrupt: &'a Interrupt,
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.interrupt.is_set() {
            // Not `ErrorKind::Interrupted`, at which writers try again.
            return Err(io::Error::other(Failure::Interrupted));
        }
        let written = self.sink.write(bytes)?;
        self.progress.advance(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Reads standard input and says how far it is.
struct Receiving<R> {
    input: R,
    progress: Progress,
}

impl<R: Read> Read for Receiving<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.progress.advance(length as u64);
        Ok(length)
    }
}

/// What Ctrl-C ended is no matter of the stream.
fn explained(context: &Context, error: Error) -> anyhow::Error {
    match &error {
        Error::Stream(StreamError::Read(_) | StreamError::Write(_)) if context.interrupt.is_set() => {
            Failure::Interrupted.into()
        }
        _ => error.into(),
    }
}

/// The snapshot that a stream for `snapshot` starts from: `@NAME` is one of the same dataset or store.
fn from_name(snapshot: &SnapshotName, from: &[u8]) -> Result<SnapshotName, Failure> {
    let wanted = || Failure::Usage("-i wants DATASET@NAME or STORE@NAME, or @NAME of the same one".into());
    let full = match from.strip_prefix(b"@") {
        Some(name) => SnapshotName { dataset: snapshot.dataset.clone(), name: name.to_vec() },
        None => SnapshotName::parse(from).ok_or_else(wanted)?,
    };
    if full.name.is_empty() {
        return Err(wanted());
    }
    Ok(full)
}

/// A snapshot, and the one before.
enum Opened {
    Dataset(Snapshot, Option<Snapshot>),
    Store(StoreSnapshot, Option<StoreSnapshot>),
}

impl Opened {
    /// Opens the snapshot `name`, and the one that its stream starts from.
    fn open(
        database: &Database,
        name: &SnapshotName,
        from: Option<&[u8]>,
        store: bool,
    ) -> anyhow::Result<Self> {
        let from = from.map(|from| from_name(name, from)).transpose()?;
        let from = from.as_ref();
        Ok(match Owner::open(database, &name.dataset, store)? {
            Owner::Dataset(dataset) => {
                let open =
                    |from: &SnapshotName| database.open_dataset(&from.dataset)?.open_snapshot(&from.name);
                Self::Dataset(dataset.open_snapshot(&name.name)?, from.map(open).transpose()?)
            }
            Owner::Store(store) => {
                let open = |from: &SnapshotName| {
                    database.open_object_store(&from.dataset)?.open_snapshot(&from.name)
                };
                Self::Store(store.open_snapshot(&name.name)?, from.map(open).transpose()?)
            }
        })
    }

    fn part(&self) -> SendPart<'_> {
        match self {
            Self::Dataset(snapshot, from) => SendPart::Dataset { snapshot, from: from.as_ref() },
            Self::Store(snapshot, from) => SendPart::ObjectStore { snapshot, from: from.as_ref() },
        }
    }
}

/// An estimate, in JSON.
#[derive(Serialize)]
struct Estimate<'a> {
    snapshot: JsonBytes<'a>,
    /// Bytes of blocks that are read, at most, and that the stream has, about.
    bytes: u64,
}

/// Writes snapshots to standard output.
pub fn send(context: &Context, options: &Send) -> anyhow::Result<()> {
    let output = &context.output;
    if !options.dry_run {
        if output.json {
            return Err(Failure::Usage("a stream is no JSON; with --dry-run, there is some".into()).into());
        }
        if io::stdout().is_terminal() {
            let why = "a stream is not for terminals: give it to a file or to another command";
            return Err(Failure::Usage(why.into()).into());
        }
    }
    let from = options.from.as_ref().map(|from| &from.0[..]);
    if from.is_some_and(|from| !from.starts_with(b"@")) && options.snapshots.len() > 1 {
        return Err(
            Failure::Usage("with several snapshots, -i wants @NAME: one of each of them".into()).into()
        );
    }
    let database = context.open_read_only()?;
    let open = |name| Opened::open(&database, name, from, options.store);
    let opened = options.snapshots.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let parts: Vec<SendPart<'_>> = opened.iter().map(Opened::part).collect();
    if options.dry_run {
        return estimate(context, &database, options, &parts);
    }
    let sending = SendOptions { compression: options.compression, resume: options.resume.as_ref() };
    let progress = Progress::start(output, "sending", None);
    let mut out = Sending { sink: output.sink(), progress, interrupt: &context.interrupt };
    let report = database.send(&parts, &sending, &mut out).map_err(|error| explained(context, error))?;
    drop(out);
    let (sent, read) = (output.size(report.bytes), output.size(report.read));
    output.note(&format!("sent {}, {sent}; {read} were read", changes(report.puts, report.deletes)));
    Ok(())
}

/// So many keys, for a sentence.
fn changes(puts: u64, deletes: u64) -> String {
    let noun = if puts == 1 { "entry" } else { "entries" };
    match deletes {
        0 => format!("{puts} {noun}"),
        1 => format!("{puts} {noun} and 1 deleted key"),
        _ => format!("{puts} {noun} and {deletes} deleted keys"),
    }
}

fn estimate(
    context: &Context,
    database: &Database,
    options: &Send,
    parts: &[SendPart<'_>],
) -> anyhow::Result<()> {
    let output = &context.output;
    let names = options.snapshots.iter().map(SnapshotName::bytes);
    let estimates: Vec<_> = names.zip(database.estimate_send(parts)?).collect();
    let json = estimates
        .iter()
        .map(|(name, bytes)| Estimate { snapshot: JsonBytes(name, Encoding::Utf8), bytes: *bytes });
    let json: Vec<_> = json.collect();
    let rows =
        estimates.iter().map(|(name, bytes)| vec![Cell::Text(text::escaped(name)), Cell::Bytes(*bytes)]);
    output.table(&["SNAPSHOT", "ABOUT"], rows.collect(), &json)
}

/// A snapshot that was received, in JSON.
#[derive(Serialize)]
struct Received<'a> {
    #[serde(flatten)]
    of: Named<'a>,
    snapshot: JsonBytes<'a>,
    /// Whether the dataset or store is new.
    created: bool,
}

/// A dataset or object store, in JSON.
#[derive(Serialize)]
struct Named<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<JsonBytes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<JsonBytes<'a>>,
}

impl<'a> Named<'a> {
    fn new(kind: StreamKind, name: &'a [u8]) -> Self {
        let is_store = kind == StreamKind::ObjectStore;
        let name = || JsonBytes(name, Encoding::Utf8);
        Self { dataset: (!is_store).then(name), store: is_store.then(name) }
    }
}

/// What was received, or would be, in JSON.
#[derive(Serialize)]
struct Arrived<'a> {
    received: Vec<Received<'a>>,
    puts: u64,
    deletes: u64,
    bytes: u64,
}

/// A stream that was interrupted, in JSON.
#[derive(Serialize)]
struct Waiting<'a> {
    into: Vec<Named<'a>>,
    snapshot: JsonBytes<'a>,
    bytes: u64,
    token: String,
}

/// Makes datasets and object stores of a stream on standard input, or looks after those that were interrupted.
pub fn receive(context: &Context, options: &Receive) -> anyhow::Result<()> {
    if options.status {
        return status(context, options.names.first());
    }
    let Some(first) = options.names.first() else {
        return Err(Failure::Usage("the name of a dataset or object store is missing".into()).into());
    };
    if options.abort {
        let database = context.open()?;
        abort(&database, &first.0, options.store)?;
        database.close()?;
        return context.output.nothing();
    }
    if io::stdin().is_terminal() {
        let why = "a stream is not typed: it comes from a file or from another command";
        return Err(Failure::Usage(why.into()).into());
    }
    let input = context.interrupt.stdin()?;
    let progress = Progress::start(&context.output, "receiving", None);
    // A frame is read in two pieces.
    let mut input = Receiving { input: io::BufReader::with_capacity(1 << 20, input), progress };
    if options.dry_run {
        return look(context, options, &mut input);
    }
    let database = context.open()?;
    let names: Vec<&[u8]> = options.names.iter().map(|name| &name.0[..]).collect();
    // What of the two it is, only the stream says.
    names.iter().try_for_each(|name| check_no_snapshot(&database, name))?;
    names.iter().try_for_each(|name| check_no_store_snapshot(&database, name))?;
    let done = database.receive_all(&names, &ReceiveOptions { force: options.force }, &mut input);
    let left = if done.is_err() { kept(&database, &names) } else { None };
    let behind = done.is_ok() && input.read(&mut [0]).unwrap_or(0) > 0;
    drop(input);
    let closed = database.close();
    if let Some(left) = left {
        let name = quoted(names[0]);
        context.output.note(&format!(
            "{} of the stream are kept: `bectl send --resume {} …` goes on there, `bectl receive --abort {name}` gives them \
             back",
            context.output.size(left.bytes),
            left.token
        ));
    }
    let report = done.map_err(|error| explained(context, error))?;
    closed?;
    if behind {
        context.output.warn("more follows the end of the stream on standard input; it was not read");
    }
    arrived(context, &report)
}

/// Gives back what is there of a stream into the dataset `name`, else into the object store.
fn abort(database: &Database, name: &[u8], store: bool) -> betree::Result<()> {
    if store {
        return database.abort_store_receive(name);
    }
    match database.abort_receive(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => match database.abort_store_receive(name) {
            Err(other) if other.kind() == ErrorKind::NotFound => Err(error),
            aborted => aborted,
        },
        aborted => aborted,
    }
}

/// What is there of a stream into one of `names`.
fn kept(database: &Database, names: &[&[u8]]) -> Option<Unfinished> {
    let all = database.unfinished_receives().ok()?;
    all.into_iter().find(|one| one.names.iter().any(|(_, name)| names.contains(&&name[..])))
}

fn arrived(context: &Context, report: &ReceiveReport) -> anyhow::Result<()> {
    let output = &context.output;
    let utf8 = |bytes| JsonBytes(bytes, Encoding::Utf8);
    if output.json {
        let received = report.received.iter().map(|one| Received {
            of: Named::new(one.kind, &one.name),
            snapshot: utf8(&one.snapshot),
            created: one.created,
        });
        let (puts, deletes, bytes) = (report.puts, report.deletes, report.bytes);
        return output.data(&Arrived { received: received.collect(), puts, deletes, bytes });
    }
    let names: Vec<_> = report
        .received
        .iter()
        .map(|one| SnapshotName { dataset: one.name.clone(), name: one.snapshot.clone() })
        .map(|name| quoted(&name.bytes()).into_owned())
        .collect();
    let (what, size) = (changes(report.puts, report.deletes), output.size(report.bytes));
    output.note(&format!("received {}: {what}, {size}", names.join(", ")));
    Ok(())
}

/// Reads a stream to its end and says what it is.
fn look(context: &Context, options: &Receive, input: &mut impl Read) -> anyhow::Result<()> {
    let info = StreamInfo::read(input).map_err(|error| explained(context, error))?;
    if info.parts.len() != options.names.len() {
        let (parts, names) = (info.parts.len(), options.names.len());
        let why = format!("the stream has {parts} datasets and object stores, and there are {names} names");
        return Err(Failure::Usage(why).into());
    }
    let output = &context.output;
    let utf8 = |bytes| JsonBytes(bytes, Encoding::Utf8);
    if output.json {
        let received = info.parts.iter().zip(&options.names).map(|(part, name)| Received {
            of: Named::new(part.kind, &name.0),
            snapshot: utf8(&part.snapshot),
            created: part.base.is_none(),
        });
        let (puts, deletes, bytes) = (info.puts, info.deletes, info.bytes);
        return output.data(&Arrived { received: received.collect(), puts, deletes, bytes });
    }
    for (part, name) in info.parts.iter().zip(&options.names) {
        let name = quoted(&SnapshotName { dataset: name.0.clone(), name: part.snapshot.clone() }.bytes())
            .into_owned();
        let from = match &part.base {
            Some((base, _)) => format!("what changed since \"@{}\"", text::escaped(base)),
            None => String::from("all of it"),
        };
        output.note(&format!("would receive {} {name}: {from}", part.kind.noun()));
    }
    let (what, size) = (changes(info.puts, info.deletes), output.size(info.bytes));
    output.note(&format!("the stream is whole: {what}, {size}"));
    Ok(())
}

fn status(context: &Context, name: Option<&Bytes>) -> anyhow::Result<()> {
    let database = context.open_read_only()?;
    let mut all = database.unfinished_receives()?;
    if let Some(name) = name {
        all.retain(|one| one.names.iter().any(|(_, into)| *into == name.0));
    }
    let utf8 = |bytes| JsonBytes(bytes, Encoding::Utf8);
    let json: Vec<_> = all
        .iter()
        .map(|one| Waiting {
            into: one.names.iter().map(|(kind, name)| Named::new(*kind, name)).collect(),
            snapshot: utf8(&one.snapshot),
            bytes: one.bytes,
            token: one.token.to_string(),
        })
        .collect();
    let rows = all.iter().map(|one| {
        let names: Vec<String> = one.names.iter().map(|(_, name)| text::escaped(name)).collect();
        vec![
            Cell::Text(names.join(",")),
            Cell::Text(text::escaped(&one.snapshot)),
            Cell::Bytes(one.bytes),
            Cell::Text(one.token.to_string()),
        ]
    });
    context.output.table(&["NAME", "SNAPSHOT", "RECEIVED", "TOKEN"], rows.collect(), &json)
}
