//! `bectl obj STORE meta`: custom metadata of an object.

use super::Target;
use crate::args::{Bytes, MetaCommand};
use crate::failure::{Failure, quoted};
use crate::lines::JsonEntry;
use crate::output::Sink;
use crate::text::{Encoding, JsonBytes};
use anyhow::Context as _;
use betree::METADATA_VALUE_BYTES_MAX;
use std::io::Read as _;

impl Target<'_> {
    pub(super) fn metadata(&self, command: &MetaCommand) -> anyhow::Result<()> {
        match command {
            MetaCommand::Get { name, key } => self.get_metadata(name, key),
            MetaCommand::Set { name, key, value } => {
                let (name, key) = (self.name(name)?, self.value("key", key)?);
                let value = match value {
                    Some(value) => self.value("value", value)?,
                    None => self.read_value()?,
                };
                self.change_object(&name, |object| Ok(object.set_metadata(key, value)?))
            }
            MetaCommand::Del { name, key } => {
                let (name, key) = (self.name(name)?, self.value("key", key)?);
                self.change_object(&name, |object| {
                    if object.get_metadata(&key)?.is_none() {
                        return Err(self.no_metadata(&name, &key));
                    }
                    Ok(object.delete_metadata(&key)?)
                })
            }
            MetaCommand::List { name } => self.list_metadata(name),
        }
    }

    fn value(&self, what: &str, value: &Bytes) -> Result<Vec<u8>, Failure> {
        self.values.decode_argument(what, &value.0)
    }

    fn read_value(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // In hexadecimal a value has two digits for each byte, and perhaps a line end.
        let most = METADATA_VALUE_BYTES_MAX as u64 * 2 + 2;
        let read = self.context.interrupt.stdin()?.take(most).read_to_end(&mut bytes);
        self.context.interrupt.check()?;
        read.context("reading the value from standard input")?;
        if self.values != Encoding::Utf8 {
            bytes.truncate(bytes.trim_ascii_end().len());
        }
        Ok(self.values.decode_argument("value", &bytes)?)
    }

    fn no_metadata(&self, name: &[u8], key: &[u8]) -> anyhow::Error {
        let key = match self.values {
            Encoding::Utf8 => quoted(key).into_owned(),
            encoding => encoding.text(key),
        };
        Failure::NotFound(format!("object {} has no custom metadata {key}", quoted(name))).into()
    }

    fn get_metadata(&self, name: &Bytes, key: &Bytes) -> anyhow::Result<()> {
        let (name, key) = (self.name(name)?, self.value("key", key)?);
        let value = self.object(&name)?.get_metadata(&key)?.ok_or_else(|| self.no_metadata(&name, &key))?;
        let output = &self.context.output;
        if output.json {
            let value = Some(JsonBytes(&value, self.values));
            return output.data(&JsonEntry { key: JsonBytes(&key, self.values), value });
        }
        output.value(&value, self.values)
    }

    fn list_metadata(&self, name: &Bytes) -> anyhow::Result<()> {
        let object = self.object(&self.name(name)?)?;
        let output = &self.context.output;
        if output.json {
            let mut list = output.json_list()?;
            for entry in object.iter_metadata() {
                let (key, value) = entry?;
                let value = Some(JsonBytes(&value, self.values));
                list.push(&JsonEntry { key: JsonBytes(&key, self.values), value })?;
            }
            return list.finish();
        }
        let mut sink = output.sink();
        for entry in object.iter_metadata() {
            let (key, value) = entry?;
            self.metadata_line(&mut sink, "", &key, &value)?;
        }
        sink.finish()
    }

    pub(super) fn metadata_line(
        &self,
        sink: &mut Sink,
        indent: &str,
        key: &[u8],
        value: &[u8],
    ) -> anyhow::Result<()> {
        let separator = if self.context.output.plain { "\t" } else { " -> " };
        sink.line(&format!("{indent}{}{separator}{}", self.values.text(key), self.values.text(value)))
    }
}
