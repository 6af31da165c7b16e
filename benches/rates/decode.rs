//! Decoding and encoding on one core: the way of a record without broker and database.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::BytesMut;
use embedsink::batch::{Batch, Place};
use embedsink::decode::{Change, decode};
use embedsink::route::{Router, TableId, TableLimits};
use embedsink::source::{Headers, Partition, SourceRecord, Tenure};

use crate::encode::copy_row;
use crate::report::Report;
use crate::row::VectorRow;
use crate::sample::{Rows, Version};
use crate::scale::Scale;

/// Records of a batch, as the connector makes them by default.
const BATCH: usize = 2_000;
/// More bytes than a cache holds.
const RECORDS: usize = 8_000;
/// How long one measurement takes.
const LENGTH: Duration = Duration::from_millis(1_000);

/// What is done with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each is decoded.
    Decode,
    /// Each is decoded, routed and gathered; of each batch the last one per key is encoded.
    DecodeAndEncode,
}

impl Way {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Decode, Self::DecodeAndEncode];

    /// Records of a pass.
    pub(crate) const COUNTED: usize = 500;

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::DecodeAndEncode => "decode-and-encode",
        }
    }

    /// Goes so often through the same records.
    pub(crate) fn pass(self, passes: u64) -> Result<()> {
        let payloads = payloads(Self::COUNTED);
        for _ in 0..passes {
            std::hint::black_box(self.go(&payloads)?);
        }
        Ok(())
    }

    fn go(self, payloads: &[Vec<u8>]) -> Result<usize> {
        match self {
            Self::Decode => decode_alone(payloads),
            Self::DecodeAndEncode => decode_and_encode(payloads),
        }
    }
}

/// Measures it, at 384 dimensions.
pub(crate) fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let payloads = payloads(RECORDS);
    let bytes = payloads.iter().map(Vec::len).sum::<usize>() as f64 / RECORDS as f64;
    report.add("record_bytes", bytes);
    for _ in 0..scale.rounds {
        report.add("decode_alone_mb_per_s", rate(&payloads, Way::Decode)? * bytes / 1e6);
        let rate = rate(&payloads, Way::DecodeAndEncode)?;
        report.add("decode_mb_per_s", rate * bytes / 1e6);
        report.add("decode_records_per_s", rate);
    }
    Ok(())
}

fn payloads(records: usize) -> Vec<Vec<u8>> {
    let rows = Rows::new(384);
    let payload = |number| {
        let mut payload = Vec::new();
        rows.row(number, Version::default()).render(&mut payload);
        payload
    };
    (0..records).map(payload).collect()
}

/// Records a second.
fn rate(payloads: &[Vec<u8>], way: Way) -> Result<f64> {
    let (since, mut records) = (Instant::now(), 0);
    while since.elapsed() < LENGTH {
        for batch in payloads.chunks(BATCH) {
            std::hint::black_box(way.go(batch)?);
            records += batch.len();
        }
    }
    Ok(records as f64 / since.elapsed().as_secs_f64())
}

fn decode_alone(payloads: &[Vec<u8>]) -> Result<usize> {
    let (mut vector, mut numbers) = (Vec::new(), 0);
    for payload in payloads {
        if decode(&record(0, payload), &mut vector).is_err() {
            bail!("a record cannot be decoded");
        }
        numbers += vector.len();
    }
    Ok(numbers)
}

/// Decodes records, routes them, gathers them in a batch, takes the last one per key, and encodes the rows in binary.
fn decode_and_encode(payloads: &[Vec<u8>]) -> Result<usize> {
    let router = Router::new(vec![TableLimits {
        name: "embeddings".to_owned(),
        dimensions: 384,
        max_id_chars: Some(255),
        max_source_chars: Some(255),
        skip_stale: false,
    }]);
    let partition = Partition::new("embeddings", 0);
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    let (mut batch, mut vector) = (Batch::new(0, &router), Vec::new());
    for (offset, payload) in payloads.iter().enumerate() {
        let record = record(offset as i64, payload);
        let Ok(Change::Upsert(embedding)) = decode(&record, &mut vector) else {
            bail!("a record cannot be decoded");
        };
        let Ok(table) = router.route(&embedding, vector.len()) else { bail!("a record has no table") };
        batch.upsert(&place, &record, table, &embedding, &vector);
    }
    let mut out = BytesMut::with_capacity(batch.bytes());
    for row in batch.changes(TableId(0)).upserts {
        let row = VectorRow {
            id: row.id,
            text: row.text,
            embedding: row.embedding,
            timestamp: row.timestamp,
            source: row.source,
            metadata: row.metadata,
        };
        copy_row(&row, &mut out)?;
    }
    Ok(out.len())
}

fn record(offset: i64, payload: &[u8]) -> SourceRecord<'_> {
    SourceRecord {
        offset,
        timestamp: None,
        key: None,
        payload: Some(payload),
        headers: Headers::default(),
        omitted: 0,
    }
}
