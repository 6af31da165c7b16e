//! The transforms of the configuration, which records of a file go through as those of the topic do.

#[cfg(feature = "fluvio")]
use fluvio::dataplane::record::Record;

use crate::config::Settings;
#[cfg(feature = "fluvio")]
use crate::config::SourceSettings;
#[cfg(feature = "fluvio")]
use crate::framework::consumer::{Consumer, Fault};
#[cfg(feature = "fluvio")]
use crate::framework::smartmodule::Chain;
use crate::source::{SourceError, SourceRecord};

/// What a transform leaves of a record: its key and its payload.
pub(super) type Left = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A chain of SmartModules.
#[derive(Debug)]
pub(crate) struct Transforms {
    #[cfg(feature = "fluvio")]
    chain: Chain,
    /// Nobody makes one.
    #[cfg(not(feature = "fluvio"))]
    none: std::convert::Infallible,
}

#[cfg(feature = "fluvio")]
impl Transforms {
    /// Loads them from the cluster, if the configuration has any.
    pub(crate) async fn load(settings: &Settings) -> Result<Option<Self>, SourceError> {
        let SourceSettings::Fluvio(fluvio) = &settings.source else { return Ok(None) };
        if fluvio.transforms.is_empty() {
            return Ok(None);
        }
        let consumer = Consumer::new(fluvio, &settings.connector).map_err(|reason| {
            SourceError::refused(
                reason,
                "Look at `fluvio profile`, and at source.fluvio.profile in the configuration",
            )
        })?;
        let chain = consumer.chain().await.map_err(refused)?;
        Ok(chain.map(|chain| Self { chain }))
    }

    #[cfg(test)]
    pub(super) fn of(chain: Chain) -> Self {
        Self { chain }
    }

    /// What becomes of a record; `None` when it is dropped.
    pub(super) fn apply(&mut self, record: &SourceRecord<'_>) -> Result<Option<Left>, SourceError> {
        let value = Record::new(record.payload.unwrap_or_default());
        let timestamp = record.timestamp.unwrap_or_default();
        let applied = self.chain.apply(&value, record.offset, timestamp).map_err(refused)?;
        Ok(applied.map(|record| {
            let key: Option<&[u8]> = record.key().map(AsRef::as_ref);
            let value: &[u8] = record.value().as_ref();
            // As for a record of a topic, an empty value stands for a tombstone.
            let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
            (key.and_then(some), some(value))
        }))
    }
}

#[cfg(feature = "fluvio")]
fn refused(fault: Fault) -> SourceError {
    match fault {
        Fault::Refused { reason, remedy } => SourceError::refused(reason, remedy),
        fault => SourceError::refused(
            format!("the transforms cannot be loaded: {fault}"),
            "Check that the Fluvio cluster that they come from can be reached",
        ),
    }
}

#[cfg(not(feature = "fluvio"))]
impl Transforms {
    /// There are none without Fluvio.
    pub(crate) fn load(_: &Settings) -> std::future::Ready<Result<Option<Self>, SourceError>> {
        std::future::ready(Ok(None))
    }

    pub(super) fn apply(&mut self, _: &SourceRecord<'_>) -> Result<Option<Left>, SourceError> {
        match self.none {}
    }
}
