//! Fluvio's own vocabulary, for whoever has written a Fluvio connector.
//!
//! The framework's library, `fluvio-connector-common`, is published only as a git repository, so a
//! crate from the registry cannot depend on it. This room stands in for it, under the same names:
//!
//! | here | there | goes further |
//! |---|---|---|
//! | [`config`] | `fluvio_connector_common::config` | unknown keys are errors; `strategy: auto` is refused |
//! | [`secret`] | `fluvio_connector_common::secret` | put in after the YAML is parsed; not serialisable |
//! | [`consumer`] | `fluvio_connector_common::consumer` | one stream per partition, resumed by itself; commits any offset |
//! | [`smartmodule`] | `fluvio_connector_common::smartmodule` | a record keeps its offset; nothing of it is logged |
//! | [`monitoring`] | `fluvio_connector_common::monitoring` | health and sink figures; clients cannot harm it |
//!
//! Draining on a stop, which the framework's macro does not do, is [`lifecycle`](crate::lifecycle)'s.

pub mod config;
#[cfg(feature = "fluvio")]
pub mod consumer;
pub mod monitoring;
pub mod secret;
#[cfg(feature = "fluvio")]
pub mod smartmodule;
