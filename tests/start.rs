//! Promise 1 at the moment at which a partition begins to be read.

use crate::support::audit;
use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::model::assert_fold_of_all;
use crate::support::postgres::Database;
use crate::support::random::Random;
use crate::support::record::Generator;
use crate::support::turn::alone;

use crate::support::stage::MIXED;

/// An earlier source placed partitions at the end of the log before it moved them to the stored offset; librdkafka
/// sometimes came back to the end by itself half a second later, and what had been produced in between was skipped.
#[tokio::test]
async fn records_produced_while_partitions_begin_are_never_skipped() {
    const STARTS: usize = 15;
    const RECORDS: usize = 400;
    let _alone = alone().await;
    let mut generator = Generator::new(Random::new("start"), MIXED);
    let log = generator.records(STARTS * RECORDS);
    let (database, topic) = (Database::create().await, Topic::create(MIXED.partitions).await);
    let connector = Connector::restless(&topic, &database, &MIXED);
    connector.migrate().await;
    let client = database.connect().await;
    audit::install(&client, &MIXED).await;

    for (start, records) in log.chunks(RECORDS).enumerate() {
        let mut process = connector.start();
        process.logs(MIXED.partitions as usize, "partition begins").await;
        topic.produce(records);
        process.settles(&client, (start + 1) * RECORDS).await;
        process.stop().await;
    }
    assert_fold_of_all(&client, &MIXED, topic.name(), &log).await;
    audit::assert_exactly_once(&client, &topic.ends().unwrap()).await;
}
