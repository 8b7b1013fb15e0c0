//! What a command prints: data on standard output, everything else on standard error.

use crate::args::Global;
use crate::failure::{self, Failure};
use crate::text::{self, Encoding};
use clap::ColorChoice;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Version of the JSON that every command writes. A new field raises the minor number, any other change the major one.
const JSON_VERSION: (u32, u32) = (1, 3);

/// How to print.
#[derive(Debug)]
pub struct Output {
    /// One JSON document instead of text.
    pub json: bool,
    /// Tabs and no header instead of columns for people.
    pub plain: bool,
    /// Numbers to the byte.
    pub exact: bool,
    /// Whether progress may be drawn.
    pub progress: bool,
    quiet: bool,
    color: bool,
    command: String,
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub enum Cell {
    /// A word, escaped already.
    Text(String),
    /// A number of things.
    Count(u64),
    /// A number of bytes.
    Bytes(u64),
    /// A share, 0.0 to 1.0.
    Share(f64),
}

impl Output {
    /// Printing as the command line and the terminal ask for; `command` is `kv list`, say.
    pub fn new(global: &Global, command: String) -> Self {
        let on_terminal = io::stderr().is_terminal();
        let color = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self {
            json: global.json,
            plain: global.no_header,
            exact: global.parsable,
            progress: on_terminal && !global.no_progress && !global.quiet,
            quiet: global.quiet,
            color,
            command,
        }
    }

    /// Whether messages are coloured.
    pub fn has_color(&self) -> bool {
        self.color
    }

    /// Standard output, buffered. Nothing is lost only after [`Sink::finish`].
    pub fn sink(&self) -> Sink {
        Sink { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// Prints one value: its bytes as they are, with a line break for a terminal, or a line in another encoding.
    pub fn value(&self, value: &[u8], encoding: Encoding) -> anyhow::Result<()> {
        let mut sink = self.sink();
        match encoding {
            Encoding::Utf8 => {
                sink.bytes(value)?;
                if io::stdout().is_terminal() {
                    sink.line("")?;
                }
            }
            encoding => sink.line(&encoding.text(value))?,
        }
        sink.finish()
    }

    /// A size of a table or message.
    pub fn size(&self, bytes: u64) -> String {
        text::size(bytes, self.exact)
    }

    /// Prints a table, or `data` with `--json`.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<Cell>>, data: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            return self.data(data);
        }
        let mut sink = self.sink();
        if self.plain {
            for row in rows {
                let cells: Vec<String> = row.iter().map(|cell| self.cell(cell)).collect();
                sink.line(&cells.join("\t"))?;
            }
            return sink.finish();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        for (index, cell) in rows.first().into_iter().flatten().enumerate() {
            let right = !matches!(cell, Cell::Text(_));
            if let Some(column) = table.column_mut(index)
                && right
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &rows {
            table.add_row(row.iter().map(|cell| self.cell(cell)));
        }
        for line in table.lines() {
            // Without a border, the padding of the first column would indent everything.
            sink.line(line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        sink.finish()
    }

    fn cell(&self, cell: &Cell) -> String {
        match cell {
            Cell::Text(text) => text.clone(),
            Cell::Count(count) => count.to_string(),
            Cell::Bytes(bytes) => self.size(*bytes),
            Cell::Share(share) if self.exact => format!("{share:.4}"),
            Cell::Share(share) => format!("{:.0} %", share * 100.0),
        }
    }

    /// Prints names and values, one pair per line, or `data` with `--json`.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn pairs(&self, pairs: &[(&str, Cell)], data: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            return self.data(data);
        }
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut sink = self.sink();
        for (name, cell) in pairs {
            let cell = self.cell(cell);
            if self.plain {
                sink.line(&format!("{name}\t{cell}"))?;
            } else {
                sink.line(format!("{name:width$}  {cell}").trim_end())?;
            }
        }
        sink.finish()
    }

    /// Prints `data` as the one JSON document of this command.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn data(&self, data: &impl Serialize) -> anyhow::Result<()> {
        let mut sink = self.sink();
        sink.json(&Envelope { output_version: self.version(), data })?;
        sink.line("")?;
        sink.finish()
    }

    /// What a command without data prints: nothing, or `null` with `--json`.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn nothing(&self) -> anyhow::Result<()> {
        if self.json { self.data(&()) } else { Ok(()) }
    }

    /// Starts the JSON document of a command whose data is a list that is made while it is printed.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn json_list(&self) -> anyhow::Result<JsonList> {
        let mut sink = self.sink();
        let version = serde_json::to_string(&self.version())?;
        sink.bytes(format!("{{\"output_version\":{version},\"data\":[").as_bytes())?;
        Ok(JsonList { sink, first: true })
    }

    /// As [`Output::json_list`]; the list is the field `entries`, and behind it comes where it goes on.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn json_entries(&self) -> anyhow::Result<JsonEntries> {
        let mut sink = self.sink();
        let version = serde_json::to_string(&self.version())?;
        sink.bytes(format!("{{\"output_version\":{version},\"data\":{{\"entries\":[").as_bytes())?;
        Ok(JsonEntries(JsonList { sink, first: true }))
    }

    fn version(&self) -> OutputVersion {
        OutputVersion {
            command: format!("bectl {}", self.command),
            major: JSON_VERSION.0,
            minor: JSON_VERSION.1,
        }
    }

    /// Tells what was done, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            to_stderr(text);
        }
    }

    /// Tells what should be looked at.
    pub fn warn(&self, text: &str) {
        if self.color {
            to_stderr(&format!("\x1b[1;33mwarning:\x1b[0m {text}"));
        } else {
            to_stderr(&format!("warning: {text}"));
        }
    }

    /// Tells why the command failed; a JSON document with `--json`.
    pub fn fail(&self, error: &anyhow::Error) {
        let (exit, code) = failure::exit_code(error);
        let message = failure::message(error);
        if self.json {
            let error = JsonError { code, exit, message };
            let document = ErrorEnvelope { output_version: self.version(), error };
            // Strings and numbers always have a JSON form.
            to_stderr(&serde_json::to_string(&document).unwrap_or_default());
        } else if self.color {
            to_stderr(&format!("\x1b[1;31merror:\x1b[0m {message}"));
        } else {
            to_stderr(&format!("error: {message}"));
        }
    }
}

/// Writes a line; when standard error is gone, there is nobody left to tell.
pub fn to_stderr(text: &str) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

#[derive(Serialize)]
struct OutputVersion {
    command: String,
    major: u32,
    minor: u32,
}

#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    output_version: OutputVersion,
    data: &'a T,
}

#[derive(Serialize)]
struct JsonError {
    code: &'static str,
    exit: u8,
    message: String,
}

#[derive(Serialize)]
struct ErrorEnvelope {
    output_version: OutputVersion,
    error: JsonError,
}

/// Standard output. That its reader has gone is [`Failure::OutputClosed`].
#[derive(Debug)]
pub struct Sink {
    out: BufWriter<StdoutLock<'static>>,
}

impl Sink {
    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes).map_err(output_error)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes `value` as JSON on one line, without the line end.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(|error| output_error(error.into()))
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush().map_err(output_error)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What a failed write to standard output means.
pub fn output_error(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::OutputClosed.into();
    }
    anyhow::Error::from(error).context("writing the output")
}

/// A list in the JSON document of a command.
#[derive(Debug)]
pub struct JsonList {
    sink: Sink,
    first: bool,
}

impl JsonList {
    /// Adds an element.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn push(&mut self, element: &impl Serialize) -> anyhow::Result<()> {
        let separator: &[u8] = if std::mem::take(&mut self.first) { b"\n" } else { b",\n" };
        self.sink.bytes(separator)?;
        self.sink.json(element)
    }

    /// Ends the document.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.sink.line("]}")?;
        self.sink.finish()
    }
}

/// A list that may be a part of a longer one.
#[derive(Debug)]
pub struct JsonEntries(JsonList);

impl JsonEntries {
    /// Adds an element.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn push(&mut self, element: &impl Serialize) -> anyhow::Result<()> {
        self.0.push(element)
    }

    /// Ends the document with the field `next`.
    ///
    /// # Errors
    /// Standard output fails.
    pub fn finish(self, next: Option<String>) -> anyhow::Result<()> {
        let mut sink = self.0.sink;
        sink.bytes(b"],\"next\":")?;
        sink.json(&next)?;
        sink.line("}}")?;
        sink.finish()
    }
}
