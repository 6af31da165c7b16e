//! What the configuration says of a new topic, in the client's types.

use fluvio::metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, SegmentBasedPolicy, TopicSpec, TopicStorageConfig,
};

use crate::framework::config::{Compression, TopicSettings};

/// A topic as the cluster is asked to make it.
pub(super) fn topic_spec(topic: &TopicSettings) -> TopicSpec {
    let mut spec =
        TopicSpec::new_computed(topic.partitions, topic.replication, Some(topic.ignore_rack_assignment));
    if let Some(retention) = topic.retention {
        let time_in_seconds = u32::try_from(retention.as_secs()).unwrap_or(u32::MAX);
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds }));
    }
    if topic.segment_size.is_some() || topic.max_partition_size.is_some() {
        let (segment_size, max_partition_size) = (topic.segment_size, topic.max_partition_size);
        spec.set_storage(TopicStorageConfig { segment_size, max_partition_size });
    }
    if let Some(compression) = topic.compression {
        spec.set_compression_type(match compression {
            Compression::Any => CompressionAlgorithm::Any,
            Compression::None => CompressionAlgorithm::None,
            Compression::Gzip => CompressionAlgorithm::Gzip,
            Compression::Snappy => CompressionAlgorithm::Snappy,
            Compression::Lz4 => CompressionAlgorithm::Lz4,
            Compression::Zstd => CompressionAlgorithm::Zstd,
        });
    }
    spec
}
