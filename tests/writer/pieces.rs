//! Batches that take longer than a statement may.

use super::*;

/// Every row takes `pg_sleep` a while, as one does that goes into a vector index on a slow disk.
const SLOW: &str = "
create function slow() returns trigger language plpgsql as $$
begin
  perform pg_sleep(0.01);
  return new;
end $$;
create trigger slow before insert or update on first for each row execute function slow()";

const ROWS: usize = 100;

fn records(names: &[String], text: &str) -> Vec<(i64, &'static str, Option<String>)> {
    let payload =
        |name: &str| Some(format!(r#"{{"id": "{name}", "text": "{text}", "embedding": [1, 2, 3]}}"#));
    names.iter().enumerate().map(|(at, name)| (at as i64, "key", payload(name))).collect()
}

/// Gives a batch again as long as it takes too long; returns how often it did.
async fn write_in_time(writer: &mut PostgresWriter, batch: &Batch) -> (u32, Effect) {
    let mut tries = 0;
    loop {
        match writer.write(batch).await {
            Ok(Written::Durable(receipt)) => return (tries, receipt.effect()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.disposition(), Disposition::Retry, "{error}"),
        }
        tries += 1;
        assert!(tries < 10, "the pieces do not get smaller");
    }
}

#[tokio::test]
async fn a_batch_that_takes_longer_than_a_statement_may_is_written_in_pieces_and_in_one_transaction() {
    let stage = Stage::set().await;
    run(&stage.outside, SLOW).await;
    // The whole batch takes a second.
    let statement_timeout = Duration::from_millis(400);
    let options = ConnectOptions { statement_timeout, ..options(&stage.database, stage.database.port()) };
    let mut writer = stage.writer_with("connector", options);
    let holding = Holding::take(&mut writer, 0).await;
    let names: Vec<String> = (0..ROWS).map(|number| format!("r{number:03}")).collect();
    let batch = stage.batch(1, &holding, &records(&names, "one"));
    let (tries, effect) = write_in_time(&mut writer, &batch).await;
    assert!(tries > 0, "at first it takes too long");
    assert_eq!(effect, Effect { upserted: ROWS as u64, ..Effect::default() });
    assert_eq!(stage.rows().await.len(), ROWS);
    assert_eq!(stage.position(&holding.partition).await, ROWS as i64);
    let transactions: i64 = stage.one("select count(distinct transaction) from audit").await;
    assert_eq!(transactions, 1);

    // The next one need not find out again, or at most by one step on a machine that has got slower.
    let others: Vec<String> = (0..ROWS).map(|number| format!("s{number:03}")).collect();
    let second: Vec<_> = records(&others, "two")
        .into_iter()
        .map(|(offset, key, payload)| (offset + ROWS as i64, key, payload))
        .collect();
    let batch = stage.batch(2, &holding.at(ROWS as i64), &second);
    let (tries, effect) = write_in_time(&mut writer, &batch).await;
    assert!(tries < 2, "{tries} tries");
    assert_eq!(effect.upserted, ROWS as u64);
}

#[tokio::test]
async fn rows_that_are_refused_are_found_in_a_batch_that_is_written_in_pieces() {
    let stage = Stage::set().await;
    run(&stage.outside, SLOW).await;
    run(&stage.outside, "alter table first add constraint no check (id not in ('r005', 'r095'))").await;
    let statement_timeout = Duration::from_millis(400);
    let options = ConnectOptions { statement_timeout, ..options(&stage.database, stage.database.port()) };
    let mut writer = stage.writer_with("connector", options);
    let holding = Holding::take(&mut writer, 0).await;
    let names: Vec<String> = (0..ROWS).map(|number| format!("r{number:03}")).collect();
    let mut batch = stage.batch(1, &holding, &records(&names, "one"));
    let mut tries = 0;
    let effect = loop {
        match writer.write(&batch).await {
            Ok(Written::Durable(receipt)) => break receipt.effect(),
            Ok(Written::Refused(refusals)) => batch.refuse(refusals),
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.disposition(), Disposition::Retry, "{error}"),
        }
        tries += 1;
        assert!(tries < 20, "the pieces do not get smaller");
    };
    assert_eq!((effect.upserted, effect.dead_lettered), (ROWS as u64 - 2, 2));
    let mut refused: Vec<i64> = batch.rejected().map(|rejected| rejected.offset).collect();
    refused.sort_unstable();
    assert_eq!(refused, [5, 95]);
}
