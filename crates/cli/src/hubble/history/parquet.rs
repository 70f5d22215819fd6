// SPDX-License-Identifier: Apache-2.0
//! Flows as a table in a Parquet file, which needs no seeking: it may be a pipe. Rows are written in groups, so that memory does not
//! grow with their number.

use super::columns::{COLUMNS, Column};
use anyhow::{Context, Result};
use hubble::proto::flow::Flow;
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use std::io::Write;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Rows of a group: some ten megabytes while they are collected.
const GROUP: usize = 16 * 1024;
/// Under this key the file says how many events were lost, which are no rows.
const LOST: &str = "hubble.lost_events";

/// A file that is being written.
pub(super) struct Table<W: Write + Send> {
    file: SerializedFileWriter<W>,
    chunks: Vec<Chunk>,
    rows: usize,
    lost: u64,
}

impl<W: Write + Send> Table<W> {
    pub(super) fn new(out: W) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_created_by(format!("cilium-rs hubble version {}", env!("CARGO_PKG_VERSION")))
            .build();
        let file = SerializedFileWriter::new(out, schema()?, Arc::new(properties))?;
        Ok(Self { file, chunks: COLUMNS.iter().map(|(_, column)| Chunk::of(column)).collect(), rows: 0, lost: 0 })
    }

    /// Adds a row.
    pub(super) fn push(&mut self, flow: &Flow) -> Result<()> {
        self.chunks.iter_mut().for_each(|chunk| chunk.push(flow));
        self.rows += 1;
        if self.rows == GROUP { self.flush() } else { Ok(()) }
    }

    /// Counts events that would have been rows.
    pub(super) fn push_lost(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }

    /// Writes what remains, and what makes it a file.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file.append_key_value_metadata(KeyValue::new(LOST.to_owned(), self.lost.to_string()));
        self.file.close().context("end of the table")?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for chunk in &mut self.chunks {
            let mut writer = group.next_column()?.context("a column of the schema")?;
            chunk.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

/// The table's, in the format's own words.
fn schema() -> Result<Arc<Type>> {
    let columns = COLUMNS.iter().map(|(name, column)| {
        let (kind, annotation) = match column {
            Column::Time(_) => ("OPTIONAL INT64", "(TIMESTAMP(NANOS,true))"),
            Column::Number(_) => ("OPTIONAL INT32", "(INTEGER(32,false))"),
            Column::Long(_) => ("OPTIONAL INT64", "(INTEGER(64,false))"),
            Column::Flag(_) => ("OPTIONAL BOOLEAN", ""),
            Column::Text(_) => ("OPTIONAL BYTE_ARRAY", "(STRING)"),
            Column::Texts(_) => ("REPEATED BYTE_ARRAY", "(STRING)"),
        };
        format!("{kind} {name} {annotation};")
    });
    let text = format!("message flow {{ {} }}", columns.collect::<Vec<_>>().join(" "));
    Ok(Arc::new(parse_message_type(&text).context("the table's schema")?))
}

/// The values of one column of the group that is being collected, and how they are read.
enum Chunk {
    Time(fn(&Flow) -> Option<i64>, Values<Int64Type>),
    Number(fn(&Flow) -> Option<u32>, Values<Int32Type>),
    Long(fn(&Flow) -> Option<u64>, Values<Int64Type>),
    Flag(fn(&Flow) -> Option<bool>, Values<BoolType>),
    Text(fn(&Flow) -> Option<String>, Values<ByteArrayType>),
    Texts(fn(&Flow) -> Vec<String>, Values<ByteArrayType>, Vec<i16>),
}

/// Those that are there, and for each place whether it is.
struct Values<T: DataType> {
    there: Vec<T::T>,
    levels: Vec<i16>,
}

impl Chunk {
    fn of(column: &Column) -> Self {
        match *column {
            Column::Time(read) => Self::Time(read, Values::new()),
            Column::Number(read) => Self::Number(read, Values::new()),
            Column::Long(read) => Self::Long(read, Values::new()),
            Column::Flag(read) => Self::Flag(read, Values::new()),
            Column::Text(read) => Self::Text(read, Values::new()),
            Column::Texts(read) => Self::Texts(read, Values::new(), Vec::new()),
        }
    }

    fn push(&mut self, flow: &Flow) {
        match self {
            Self::Time(read, values) => values.push(read(flow)),
            // The format has signed numbers, and the schema says how they are meant.
            Self::Number(read, values) => values.push(read(flow).map(u32::cast_signed)),
            Self::Long(read, values) => values.push(read(flow).map(u64::cast_signed)),
            Self::Flag(read, values) => values.push(read(flow)),
            Self::Text(read, values) => values.push(read(flow).map(bytes)),
            Self::Texts(read, values, repeats) => {
                let texts = read(flow);
                // A row begins with 0, and goes on with 1.
                repeats.extend((0..texts.len().max(1)).map(|index| i16::from(index > 0)));
                if texts.is_empty() {
                    values.push(None);
                }
                texts.into_iter().for_each(|text| values.push(Some(bytes(text))));
            }
        }
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<()> {
        match self {
            Self::Time(_, values) | Self::Long(_, values) => values.write(writer, None),
            Self::Number(_, values) => values.write(writer, None),
            Self::Flag(_, values) => values.write(writer, None),
            Self::Text(_, values) => values.write(writer, None),
            Self::Texts(_, values, repeats) => {
                values.write(writer, Some(repeats))?;
                repeats.clear();
                Ok(())
            }
        }
    }
}

impl<T: DataType> Values<T> {
    fn new() -> Self {
        Self { there: Vec::new(), levels: Vec::new() }
    }

    fn push(&mut self, value: Option<T::T>) {
        self.levels.push(value.is_some().into());
        self.there.extend(value);
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>, repeats: Option<&[i16]>) -> Result<()> {
        writer.typed::<T>().write_batch(&self.there, Some(&self.levels), repeats)?;
        self.there.clear();
        self.levels.clear();
        Ok(())
    }
}

fn bytes(text: String) -> ByteArray {
    text.into_bytes().into()
}
