//! Promise 2 for records that cannot be used: each is kept as it was, and every other is written.

use crate::support::connector::Connector;
use crate::support::damage;
use crate::support::kafka::Topic;
use crate::support::model::assert_fold_of_all;
use crate::support::postgres::{Database, one};
use crate::support::random::Random;
use crate::support::record::{Draft, Generator, Record, Shape};
use crate::support::turn::alone;

const WILD: Shape =
    Shape { tables: &[("embeddings", 8), ("wide", 384)], partitions: 4, ids: 0, tombstones: 0, damaged: 0 };

#[tokio::test]
async fn ten_thousand_damaged_records_are_kept_and_every_good_one_is_written() {
    let _alone = alone().await;
    let mut generator = Generator::new(Random::new("damaged"), WILD);
    let mut log = Vec::new();
    for number in 0..20_000 {
        let mut draft = generator.new_draft();
        log.push(match number % 20 {
            0..=7 => generator.damaged(draft, damage::pick),
            8 => cut(&mut generator, draft),
            9..=10 => flipped(&mut generator, draft),
            11 => {
                let strange = generator.random.pick(damage::STRANGE);
                strange(&mut draft, &mut generator.random);
                generator.good(draft)
            }
            _ => generator.good(draft),
        });
    }
    for _ in 0..2 {
        let draft = generator.new_draft();
        log.push(enormous(&mut generator, draft));
    }
    let good = generator.new_draft();
    log.push(generator.good(good));

    let (database, topic) = (Database::create().await, Topic::create(WILD.partitions).await);
    topic.produce(&log);
    let mut connector = Connector::new(&topic, &database, &WILD);
    // The default would cut the largest.
    connector.more = "errors: {max-payload: 128MiB}".to_owned();
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, log.len()).await;
    let text = process.stop().await;
    assert!(!text.contains("panicked"), "{text}");
    assert_fold_of_all(&client, &WILD, topic.name(), &log).await;
    let kept: i64 = one(&client, "select count(*) from embedsink.dead_letters").await;
    assert!(kept > 10_000, "{kept} dead letters");
}

/// The payload ends somewhere, in the middle of a character maybe.
fn cut(generator: &mut Generator, draft: Draft) -> Record {
    let mut payload = draft.render();
    payload.truncate(generator.random.below(payload.len()));
    generator.open(draft, payload)
}

/// Some bits are not what they were. This may leave the record good, with another text say.
fn flipped(generator: &mut Generator, draft: Draft) -> Record {
    let mut payload = draft.render();
    for _ in 0..=generator.random.below(3) {
        let at = generator.random.below(payload.len());
        payload[at] ^= 1 << generator.random.below(8);
    }
    generator.open(draft, payload)
}

/// A record of 64 MB, well formed.
fn enormous(generator: &mut Generator, draft: Draft) -> Record {
    generator.damaged(draft, |_| damage::Damage {
        reason: "too_large",
        make: |draft, _| {
            draft.set("text", format!("\"{}\"", "0123456789abcdef".repeat(4 << 20)));
            Some(draft.render())
        },
    })
}
