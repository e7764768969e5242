//! Avro object container files of transactions.

use std::io::BufReader;
use std::marker::PhantomData;

use millrace_schemas::codec::check_writer;
use millrace_schemas::{Invalid, Transaction, Wire};
use serde_avro_fast::de::read::ReaderRead;
use serde_avro_fast::object_container_file_encoding::Reader;

use super::{Broken, Bytes, Item, Unreadable};

/// The longest text of a record, far more than a transaction may have: a length that claims more is
/// not believed, or a broken file could ask for any amount of memory.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// The records of a file, counted from 1. One that cannot be decoded ends the file: where the next
/// begins is not known.
pub(crate) struct Records {
    reader: Reader<ReaderRead<BufReader<Bytes>>>,
    number: u64,
}

impl Records {
    /// Reads the file's header.
    pub(crate) fn new(input: Bytes) -> Result<Self, String> {
        let mut input = ReaderRead::new(BufReader::new(input));
        input.max_alloc_size = TEXT_BYTES_MAX;
        let reader = Reader::new(input).map_err(|error| error.to_string())?;
        check_writer(reader.schema().json()).map_err(|error| format!("its schema: {error}"))?;
        Ok(Self { reader, number: 0 })
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Unreadable> {
        self.number += 1;
        let line = self.number;
        // Read from a stream, nothing is borrowed: every text is its own.
        let wire = PhantomData::<Wire<'static>>;
        let wire = self.reader.deserialize_seed_next(wire);
        let wire = wire.map_err(|error| Unreadable {
            unit: "record",
            line,
            problem: error.to_string(),
        })?;
        Ok(wire.map(|wire| Item::new(line, Transaction::try_from(wire).map_err(broken))))
    }
}

fn broken((wire, invalid): (Wire<'static>, Invalid)) -> Broken {
    Broken {
        refusal: invalid.into(),
        raw: format!("{wire:?}"),
    }
}
