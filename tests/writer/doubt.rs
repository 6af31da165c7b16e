//! Commits whose answer is lost, and connections that are lost anywhere in a write.

use super::*;
use crate::support::proxy::{Loss, Proxy};

/// What one batch of [`records_of_all_kinds`] does, when it is applied once.
const APPLIED_ONCE: &[(&str, i64)] = &[
    ("dead_letters topic/4 INSERT", 1),
    ("first a INSERT", 1),
    ("first gone DELETE", 1),
    ("first gone INSERT", 1),
    ("offsets topic/0 UPDATE", 2),
    ("second b INSERT", 1),
];

fn records_of_all_kinds() -> Vec<(i64, &'static str, Option<String>)> {
    vec![
        (1, "a", payload("one")),
        (2, "b", payload_for("second", "two")),
        (3, "gone", None),
        (4, "bad", Some("no JSON".to_owned())),
    ]
}

fn counts(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
    counts.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_in_the_ledger() {
    let stage = Stage::set().await;
    let proxy = Proxy::before(stage.database.port()).await;
    let mut writer = stage.writer_of("connector", proxy.port());
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "gone", payload("x"))])).await);

    let batch = stage.batch(2, &holding.at(1), &records_of_all_kinds());
    proxy.lose_at("select; commit", Loss::Answer);
    assert_eq!(disposition(writer.write(&batch).await), Disposition::Retry);
    assert!(proxy.has_lost());
    assert_eq!(stage.happened().await, counts(APPLIED_ONCE), "the server had committed");

    let receipt = receipt(writer.write(&batch).await);
    assert_eq!(
        receipt.effect(),
        Effect { upserted: 2, unchanged: 0, deleted: 1, stale: 0, dead_lettered: 1 }
    );
    assert_eq!(batch.settle(&receipt).next_offsets(), [(holding.partition.clone(), 5)]);
    // However often it is given again.
    durable(writer.write(&batch).await);
    assert_eq!(stage.happened().await, counts(APPLIED_ONCE));
    // A writer that was not there finds it, too.
    durable(stage.writer().write(&batch).await);
    assert_eq!(stage.happened().await, counts(APPLIED_ONCE));
}

#[tokio::test]
async fn a_connection_lost_anywhere_in_a_write_leaves_all_of_the_batch_or_nothing() {
    let stage = Stage::set().await;
    let proxy = Proxy::before(stage.database.port()).await;
    let mut writer = stage.writer_of("connector", proxy.port());
    let mut holding = Holding::take(&mut writer, 0).await;
    let places = [
        "begin isolation",
        "update embedsink.offsets",
        "insert into",
        "delete from",
        "embedsink.dead_letters",
        "select; commit",
    ];
    let mut id = 0;
    for _ in 0..10 {
        for place in places {
            for loss in [Loss::Before, Loss::Behind, Loss::Answer] {
                let from = holding.taken.next_offset;
                let key = format!("key {from}");
                let records = [
                    (from, key.as_str(), payload("one")),
                    (from + 1, "same", payload(&format!("{from}"))),
                    (from + 2, "gone", payload("x")),
                    (from + 3, "nothing", None),
                    (from + 4, "bad", Some("no JSON".to_owned())),
                ];
                id += 1;
                let batch = stage.batch(id, &holding, &records);
                proxy.lose_at(place, loss);
                let first = writer.write(&batch).await;
                if proxy.has_lost() {
                    assert_eq!(disposition(first), Disposition::Retry, "{place} {loss:?}");
                    // A server that was cut off may still be at it; its locks make us wait for the end.
                    durable(writer.write(&batch).await);
                } else {
                    // The statement is prepared already, so its text is not sent any more.
                    durable(first);
                    proxy.cut();
                }
                holding = holding.at(from + 5);
                assert_eq!(stage.position(&holding.partition).await, from + 5);
            }
        }
    }
    let most: i64 = stage
        .one(
            "select max(times) from (select count(*) as times from audit where key like 'key %' \
              or relation = 'dead_letters' group by relation, key) as counted",
        )
        .await;
    assert_eq!(most, 1, "nothing was applied twice");
    let written: i64 = stage.one("select count(*) from first where id like 'key %'").await;
    let letters: i64 = stage.one("select count(*) from embedsink.dead_letters").await;
    assert_eq!((written, letters), (i64::try_from(id).unwrap(), i64::try_from(id).unwrap()));
}

#[tokio::test]
async fn a_commit_in_doubt_of_which_a_part_was_taken_meanwhile_is_still_applied_once() {
    let stage = Stage::set().await;
    let proxy = Proxy::before(stage.database.port()).await;
    for (round, loss) in [Loss::Answer, Loss::Before].into_iter().enumerate() {
        run(&stage.outside, "truncate audit, first, second, embedsink.offsets").await;
        let (mut writer, mut other) = (stage.writer_of("connector", proxy.port()), stage.writer());
        let kept = Holding::take(&mut writer, 0).await;
        let lost = Holding::take(&mut writer, 1).await;
        let mut batch = stage.batch(round as u64, &kept, &[(0, "a", payload("kept"))]);
        stage.fill(&mut batch, &lost, &[(0, "b", payload("lost"))]);
        proxy.lose_at("select; commit", loss);
        assert_eq!(disposition(writer.write(&batch).await), Disposition::Retry);

        let heir = Holding::take(&mut other, 1).await;
        let was_committed = loss == Loss::Answer;
        assert_eq!(heir.taken.next_offset, i64::from(was_committed));
        assert_eq!(fenced(writer.write(&batch).await), [lost.lost()]);
        assert!(batch.drop_tenures(&[lost.lost()]));
        let receipt = receipt(writer.write(&batch).await);
        assert_eq!(batch.settle(&receipt).next_offsets(), [(kept.partition.clone(), 1)]);
        if !was_committed {
            durable(other.write(&stage.batch(9, &heir, &[(0, "b", payload("lost"))])).await);
        }
        let once = [
            ("first a INSERT", 1),
            ("first b INSERT", 1),
            ("offsets topic/0 UPDATE", 1),
            ("offsets topic/1 UPDATE", 1),
        ];
        assert_eq!(stage.happened().await, counts(&once), "{loss:?}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_batch_is_written_when_a_part_of_it_was_lost() {
    let stage = Stage::set().await;
    let (mut writer, mut other) = (stage.writer(), stage.writer());
    let kept = Holding::take(&mut writer, 0).await;
    let lost = Holding::take(&mut writer, 1).await;
    let mut batch = stage.batch(1, &kept, &[(0, "a", payload("kept"))]);
    stage.fill(
        &mut batch,
        &lost,
        &[(0, "a", payload("lost")), (1, "b", payload("lost")), (2, "x", Some("{".into()))],
    );
    Holding::take(&mut other, 1).await;

    assert_eq!(fenced(writer.write(&batch).await), [lost.lost()]);
    assert_eq!(stage.happened().await, BTreeMap::new(), "no part of it is written alone");
    assert!(batch.drop_tenures(&[lost.lost()]));
    let receipt = receipt(writer.write(&batch).await);
    assert_eq!(receipt.effect(), Effect { upserted: 1, ..Effect::default() });
    assert_eq!(batch.settle(&receipt).next_offsets(), [(kept.partition.clone(), 1)]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "kept")]));
    assert_eq!(stage.position(&lost.partition).await, 0);
}

#[tokio::test]
async fn a_batch_that_meets_one_partition_under_two_tenures_is_durable_only_when_it_is_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let before = Holding::take(&mut writer, 0).await;
    let after = Holding::take(&mut writer, 0).await;
    let mut batch = stage.batch(1, &before, &[(0, "a", payload("before")), (1, "b", payload("before"))]);
    stage.fill(
        &mut batch,
        &after,
        &[(0, "a", payload("after")), (1, "b", payload("after")), (2, "c", payload("after"))],
    );

    assert_eq!(fenced(writer.write(&batch).await), [before.lost()]);
    assert_eq!(stage.position(&after.partition).await, 0);
    assert!(batch.drop_tenures(&[before.lost()]));
    durable(writer.write(&batch).await);
    assert_eq!(stage.position(&after.partition).await, 3);
    assert_eq!(stage.rows().await, rows(&[("first/a", "after"), ("first/b", "after"), ("first/c", "after")]));
}
