//! The Kafka source alone, against rdkafka's mock cluster.
