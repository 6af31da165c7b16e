//! Rows that only Postgres refuses, and how they go into a table that was empty.

use super::*;
use crate::support::random::Random;

/// Writes a batch as a lane does, making dead letters of what is refused. Returns the offsets of these.
async fn write_sparing(writer: &mut PostgresWriter, mut batch: Batch) -> Vec<i64> {
    loop {
        match writer.write(&batch).await.unwrap() {
            Written::Durable(_) => break,
            Written::Refused(refusals) => {
                assert!(!refusals.is_empty(), "every attempt finds somebody to blame");
                batch.refuse(refusals);
            }
            Written::Fenced(lost) => panic!("fenced: {lost:?}"),
        }
    }
    let mut offsets: Vec<i64> = batch.rejected().map(|rejected| rejected.offset).collect();
    offsets.sort_unstable();
    offsets
}

#[tokio::test]
async fn a_refused_record_is_one_dead_letter_and_all_others_of_the_batch_are_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table second add constraint no check (text <> 'c4nary')").await;
    let records = [
        (0, "good", payload("fine")),
        (1, "c4nary", payload_for("second", "c4nary")),
        (2, "letter", Some("c4nary".to_owned())),
    ];
    let batch = stage.batch(1, &holding, &records);
    let Written::Refused(refusals) = writer.write(&batch).await.unwrap() else { panic!("not refused") };
    let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
    assert_eq!(refusal.reject.sqlstate.as_deref(), Some("23514"));
    assert!(!format!("{refusal:?}").contains("c4nary"), "{refusal:?}");
    assert_eq!(stage.happened().await, BTreeMap::new(), "an attempt that finds culprits writes nothing");
    assert_eq!(write_sparing(&mut writer, batch).await, [1, 2]);
    assert_eq!(stage.rows().await, rows(&[("first/good", "fine")]));
    assert_eq!(stage.position(&holding.partition).await, 3);
    let whole = "select convert_from(payload, 'utf8') || reason || sqlstate || table_name || tries \
                 from embedsink.dead_letters where \"offset\" = 1";
    let wanted = payload_for("second", "c4nary").unwrap() + "refused23514second1";
    assert_eq!(stage.one::<String>(whole).await, wanted);
}

#[tokio::test]
async fn what_only_the_commit_would_refuse_is_found_too() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint late unique (text) deferrable initially deferred")
        .await;
    let records = [(0, "b", payload("same")), (1, "a", payload("same")), (2, "c", payload("other"))];
    let batch = stage.batch(1, &holding, &records);
    // The later one of the log gives way, whatever the keys are.
    assert_eq!(write_sparing(&mut writer, batch).await, [1]);
    assert_eq!(stage.rows().await, rows(&[("first/b", "same"), ("first/c", "other")]));
}

#[tokio::test]
async fn rows_are_copied_into_an_empty_table_until_a_key_comes_twice() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let first =
        [(0, "a", payload("one")), (1, "b", payload("two")), (2, "c", payload_for("second", "three"))];
    assert_eq!(durable(writer.write(&stage.batch(1, &holding, &first)).await).upserted, 3);
    // One key that is there, one that is new, one that is deleted.
    let second = [(3, "b", payload("newer")), (4, "d", payload("new")), (5, "a", None)];
    let effect = durable(writer.write(&stage.batch(2, &holding.at(3), &second)).await);
    assert_eq!(effect, Effect { upserted: 2, deleted: 1, ..Effect::default() });
    let third = [(6, "b", payload("newer")), (7, "d", payload("newest"))];
    let effect = durable(writer.write(&stage.batch(3, &holding.at(6), &third)).await);
    assert_eq!(effect, Effect { upserted: 1, unchanged: 1, ..Effect::default() });
    assert_eq!(
        stage.rows().await,
        rows(&[("first/b", "newer"), ("first/d", "newest"), ("second/c", "three")])
    );
}

#[tokio::test]
async fn a_row_that_is_refused_for_itself_does_not_end_the_copying() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint no check (text <> 'refused')").await;
    let first = [(0, "a", payload("good")), (1, "b", payload("refused"))];
    assert_eq!(write_sparing(&mut writer, stage.batch(1, &holding, &first)).await, [1]);
    // The one behind a refused batch is written with care; then rows are copied again.
    durable(writer.write(&stage.batch(2, &holding.at(2), &[(2, "c", payload("good"))])).await);
    run(
        &stage.outside,
        "create table seen (query text);
         create function look() returns trigger language plpgsql as
         $$ begin insert into seen values (current_query()); return null; end $$;
         create trigger look after insert on first execute function look()",
    )
    .await;
    durable(writer.write(&stage.batch(3, &holding.at(3), &[(3, "d", payload("good"))])).await);
    let seen: String = stage.one("select query from seen").await;
    assert!(seen.starts_with("copy "), "{seen}");
}

#[tokio::test]
async fn a_key_that_is_taken_from_an_empty_table_stops_the_copying_and_nothing_moves() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "a", payload("one"))])).await);
    run(&stage.outside, "alter table first drop constraint first_pkey").await;
    let batch = stage.batch(2, &holding.at(1), &[(1, "b", payload("two"))]);
    let error = writer.write(&batch).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Stop, "{error}");
    assert_eq!(stage.rows().await, rows(&[("first/a", "one")]));
    assert_eq!(stage.position(&holding.partition).await, 1);
}

#[tokio::test]
async fn all_refused_versions_of_one_key_are_found_in_one_attempt() {
    const VERSIONS: i64 = 300;
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint no check (text <> 'refused')").await;
    let mut records = vec![(0, "hot", payload("good"))];
    records.extend((1..=VERSIONS).map(|offset| (offset, "hot", payload("refused"))));
    records.push((VERSIONS + 1, "cold", payload("good too")));
    let mut batch = stage.batch(1, &holding, &records);
    let Written::Refused(refusals) = writer.write(&batch).await.unwrap() else { panic!("not refused") };
    assert_eq!(refusals.len() as i64, VERSIONS);
    batch.refuse(refusals);
    durable(writer.write(&batch).await);
    let refused: Vec<i64> = batch.dead_letters().map(|letter| letter.record.offset).collect();
    assert_eq!(refused, (1..=VERSIONS).rev().collect::<Vec<_>>());
    assert_eq!(stage.rows().await, rows(&[("first/hot", "good"), ("first/cold", "good too")]));
}

#[tokio::test]
async fn where_nearly_all_is_refused_no_more_is_looked_for_than_it_takes_to_know() {
    let stage = Stage::set().await;
    let mut writer = stage.writer().with_max_refused(500);
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint no check (text <> 'refused')").await;
    let names: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
    let records: Vec<_> =
        names.iter().enumerate().map(|(at, name)| (at as i64, name.as_str(), payload("refused"))).collect();
    let mut batch = stage.batch(1, &holding, &records);
    let Written::Refused(refusals) = writer.write(&batch).await.unwrap() else { panic!("not refused") };
    assert_eq!(refusals.len(), 101, "one more than half of them");
    batch.refuse(refusals);
    assert_eq!(write_sparing(&mut writer, batch).await.len(), 200, "the rest is found if it is asked for");
    assert_eq!(stage.rows().await, rows(&[]));
}

#[tokio::test]
async fn a_deletion_that_is_refused_by_one_table_is_done_in_none() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let both = [(0, "a", payload("one")), (1, "a", payload_for("second", "two")), (2, "b", payload("three"))];
    assert!(write_sparing(&mut writer, stage.batch(1, &holding, &both)).await.is_empty());
    run(
        &stage.outside,
        "create table child (id varchar(255) references second); insert into child values ('a')",
    )
    .await;
    let deletions = [(3, "a", None), (4, "b", None)];
    let batch = stage.batch(2, &holding.at(3), &deletions);
    assert_eq!(write_sparing(&mut writer, batch).await, [3]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "one"), ("second/a", "two")]));
    assert_eq!(stage.position(&holding.partition).await, 5);
}

#[tokio::test]
async fn keys_that_a_trigger_makes_equal_do_not_stop_the_batch_and_the_later_one_wins() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(
        &stage.outside,
        "create function fold() returns trigger language plpgsql as $$ begin new.id = lower(new.id); return new; end $$;
         create trigger fold before insert on first for each row execute function fold()",
    )
    .await;
    let records = [(0, "a", payload("first")), (1, "B", payload("alone")), (2, "A", payload("last"))];
    assert!(write_sparing(&mut writer, stage.batch(1, &holding, &records)).await.is_empty());
    assert_eq!(stage.rows().await, rows(&[("first/a", "last"), ("first/b", "alone")]));
}

#[tokio::test]
async fn for_any_poisoned_subset_the_dead_letters_are_exactly_that_and_all_else_is_applied_in_order() {
    const POISON: &str = "
        create function poison() returns trigger language plpgsql as $$ begin
          if new.text like 'poison%' then
            raise exception using errcode = (array['22023', '23514', 'P0001', '22003', '23505'])[1 + length(new.text) % 5];
          end if;
          return new;
        end $$;
        create trigger poison before insert or update on first for each row execute function poison();
        create trigger poison before insert or update on second for each row execute function poison()";
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let mut holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, POISON).await;
    let mut random = Random::new("poisoned subsets");
    let names: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
    let mut table: BTreeMap<String, Option<String>> = BTreeMap::new();
    for round in 0..60 {
        let (count, share, keys) =
            (1 + random.below(120), random.pick(&[0, 1, 5, 30, 90, 100]), 1 + random.below(200));
        let from = holding.taken.next_offset;
        let mut records = Vec::new();
        for number in 0..count {
            let key = names[random.below(keys)].as_str();
            let to = random.pick(&["first", "second"]);
            let text = match random.chance(share) {
                true => format!("poison {}", "x".repeat(random.below(5))),
                false => format!("text {round} {number}"),
            };
            let payload = (!random.chance(8)).then(|| payload_for(to, &text).unwrap());
            records.push((from + number as i64, key, payload));
        }
        // What is refused: a poisoned record, unless a later good one of its key and table, or a deletion, has
        // overtaken it within the batch.
        let mut refused = Vec::new();
        let mut settled: std::collections::BTreeSet<(String, &str)> = Default::default();
        for (offset, key, payload) in records.iter().rev() {
            let tables: Vec<&str> = match payload {
                None => vec!["first", "second"],
                Some(text) => vec![if text.contains("\"second\"") { "second" } else { "first" }],
            };
            let is_poison = payload.as_ref().is_some_and(|text| text.contains("poison"));
            for table_name in tables {
                let place = (table_name.to_owned(), *key);
                if settled.contains(&place) {
                    continue;
                }
                if is_poison {
                    refused.push(*offset);
                } else {
                    settled.insert(place);
                }
            }
        }
        refused.sort_unstable();
        for (_, key, payload) in &records {
            match payload {
                None => {
                    ["first", "second"].iter().for_each(|name| drop(table.remove(&format!("{name}/{key}"))));
                }
                Some(text) if text.contains("poison") => {}
                Some(text) => {
                    let json: serde_json::Value = serde_json::from_str(text).unwrap();
                    let place = format!("{}/{key}", json["table_name"].as_str().unwrap());
                    table.insert(place, json["text"].as_str().map(str::to_owned));
                }
            }
        }
        let batch = stage.batch(round, &holding, &records);
        assert_eq!(write_sparing(&mut writer, batch).await, refused, "round {round}");
        assert_eq!(stage.rows().await, table, "round {round}");
        holding = holding.at(from + count as i64);
        assert_eq!(stage.position(&holding.partition).await, holding.taken.next_offset);
    }
    let letters: i64 =
        stage.one("select count(*) from embedsink.dead_letters where reason = 'refused'").await;
    assert!(letters > 500, "{letters} dead letters");
}
