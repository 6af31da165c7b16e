//! Writes that are tried again, logs that are read again: each row ends as the log has it.

use super::*;
use crate::support::random::Random;

#[tokio::test]
async fn a_session_that_is_terminated_in_the_middle_of_a_write_is_tried_again() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "a", payload("first"))])).await);
    let batch = stage.batch(2, &holding.at(1), &[(1, "a", payload("second")), (2, "b", payload("third"))]);

    let other = stage.database.connect().await;
    run(&other, "begin; select from first where id = 'a' for update").await;
    let writing = tokio::spawn(async move {
        let written = writer.write(&batch).await;
        (writer, batch, written)
    });
    for pid in stage.waiting(1).await {
        stage.outside.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    }
    let (mut writer, batch, written) = writing.await.unwrap();
    assert_eq!(disposition(written), Disposition::Retry);
    run(&other, "commit").await;
    assert_eq!(stage.position(&holding.partition).await, 1);
    assert_eq!(stage.rows().await, rows(&[("first/a", "first")]));

    durable(writer.write(&batch).await);
    assert_eq!(stage.rows().await, rows(&[("first/a", "second"), ("first/b", "third")]));
}

#[tokio::test]
async fn a_row_that_somebody_holds_too_long_is_tried_again() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "a", payload("first"))])).await);
    let batch = stage.batch(2, &holding.at(1), &[(1, "a", payload("second"))]);

    let other = stage.database.connect().await;
    run(&other, "begin; select from first where id = 'a' for update").await;
    let error = writer.write(&batch).await.expect_err("the lock is held");
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(error.to_string().contains("55P03"), "{error}");
    assert_eq!(stage.position(&holding.partition).await, 1);
    run(&other, "commit").await;
    durable(writer.write(&batch).await);
    assert_eq!(stage.position(&holding.partition).await, 2);
}

#[tokio::test]
async fn writers_that_lock_the_same_rows_in_another_order_break_no_promise() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let both = [(0, "a", payload("first")), (1, "b", payload("first"))];
    durable(writer.write(&stage.batch(1, &holding, &both)).await);
    let batch = stage.batch(2, &holding.at(2), &[(2, "a", payload("second")), (3, "b", payload("second"))]);

    // Somebody who locks b before a, while we hold a and want b.
    let other = stage.database.connect().await;
    run(&other, "set deadlock_timeout = '1h'; begin; update first set text = 'other' where id = 'b'").await;
    let writing = tokio::spawn(async move {
        let written = writer.write(&batch).await;
        (writer, batch, written)
    });
    stage.waiting(1).await;
    let theirs = tokio::spawn(async move {
        run(&other, "update first set text = 'other' where id = 'a'; commit").await;
    });
    let (mut writer, batch, written) = writing.await.unwrap();
    let error = written.expect_err("a deadlock");
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    theirs.await.unwrap();
    durable(writer.write(&batch).await);
    assert_eq!(stage.rows().await, rows(&[("first/a", "second"), ("first/b", "second")]));
}

#[tokio::test]
async fn reading_a_log_again_leaves_every_row_as_it_is() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let records = [
        (
            0,
            "a",
            Some(
                r#"{"text": "t", "embedding": [0.1, -0.0, 1e-45], "metadata": {"b": 1, "a": [null]}}"#
                    .to_owned(),
            ),
        ),
        (1, "b", Some(r#"{"embedding": [1, 2, 3], "source": "s", "timestamp": 1}"#.to_owned())),
        (2, "gone", payload("x")),
        (3, "gone", None),
    ];
    durable(writer.write(&stage.batch(1, &holding, &records)).await);
    let versions = "select string_agg(id || xmin || ctid, ',' order by id) from first";
    let before: String = stage.one(versions).await;

    let mut again = stage.writer_of("connector 2", stage.database.port());
    let holding = Holding::take(&mut again, 0).await;
    let effect = durable(again.write(&stage.batch(1, &holding, &records)).await);
    assert_eq!(effect, Effect { unchanged: 2, ..Effect::default() });
    assert_eq!(stage.one::<String>(versions).await, before);
}

#[tokio::test]
async fn a_batch_that_does_not_go_on_from_the_stored_position_is_not_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let early = stage.batch(1, &holding, &[(0, "a", payload("early")), (1, "b", payload("early"))]);
    let late = stage.batch(2, &holding.at(2), &[(2, "a", payload("late")), (3, "b", None)]);
    assert_eq!(fenced(writer.write(&late).await), [holding.lost()], "there is a gap before it");
    durable(writer.write(&early).await);
    durable(writer.write(&late).await);
    assert_eq!(fenced(writer.write(&early).await), [holding.lost()], "it was written before");
    let overlapping =
        stage.batch(3, &holding.at(1), &[(1, "a", payload("early")), (2, "a", payload("early"))]);
    assert_eq!(fenced(writer.write(&overlapping).await), [holding.lost()]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "late")]));
    run(&stage.outside, "delete from embedsink.offsets").await;
    assert_eq!(fenced(writer.write(&late).await), [holding.lost()], "the operator has removed the position");
}

#[tokio::test]
async fn whatever_is_replayed_or_taken_over_an_earlier_record_never_overwrites_a_later_one() {
    let stage = Stage::set().await;
    let mut random = Random::new("an earlier record never overwrites a later one");
    let keys = ["a", "b", "c"];
    // The log of one partition, and what is true after each of its records.
    let log: Vec<(i64, &str, Option<String>)> = (0..300)
        .map(|offset| {
            let text = (!random.chance(25)).then(|| payload(&format!("{offset}"))).flatten();
            (offset, random.pick(&keys), text)
        })
        .collect();
    let mut writers: Vec<PostgresWriter> = (0..3).map(|_| stage.writer()).collect();
    let mut holdings = Vec::new();
    for writer in &mut writers {
        holdings.push(Holding::take(writer, 0).await);
    }
    let mut batches: Vec<(usize, Batch)> = Vec::new();
    let mut id = 0;
    loop {
        let who = random.below(writers.len());
        if random.chance(10) {
            holdings[who] = Holding::take(&mut writers[who], 0).await;
        } else if random.chance(30) && !batches.is_empty() {
            // Something from before, once more.
            let (whose, batch) = &batches[random.below(batches.len())];
            drop(writers[*whose].write(batch).await.unwrap());
        } else {
            let from = holdings[who].taken.next_offset;
            let to = (from + 1 + random.below(12) as i64).min(log.len() as i64);
            if from < to {
                id += 1;
                let batch = stage.batch(id, &holdings[who], &log[from as usize..to as usize]);
                match writers[who].write(&batch).await.unwrap() {
                    Written::Durable(_) => holdings[who] = holdings[who].at(to),
                    Written::Fenced(_) => holdings[who] = Holding::take(&mut writers[who], 0).await,
                    Written::Refused(refusals) => panic!("refused: {refusals:?}"),
                }
                batches.push((who, batch));
            }
        }
        let position = stage.position(&Partition::new("topic", 0)).await as usize;
        let mut wanted = BTreeMap::new();
        for (offset, key, text) in &log[..position] {
            match text {
                Some(_) => drop(wanted.insert(format!("first/{key}"), Some(offset.to_string()))),
                None => drop(wanted.remove(&format!("first/{key}"))),
            }
        }
        assert_eq!(stage.rows().await, wanted, "after {position} records");
        if position == log.len() {
            return;
        }
    }
}
