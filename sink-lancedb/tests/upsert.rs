//! Rows in, rows replaced, rows out.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lancedb::query::ExecutableQuery;
use proptest::prelude::*;
use sink_lancedb::{Class, Deletion, Error, Overwrite, StoredRow, VectorRow, VectorTable};

use crate::support::{DIMENSIONS, Model, Owned, Random, contents, dataset, folder, rows, run, spec};

#[test]
fn rows_are_read_back_as_they_were_given() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let row = |id: &str| StoredRow {
            id: id.to_owned(),
            text: None,
            embedding: vec![0.0; usize::from(DIMENSIONS)],
            timestamp: None,
            source: None,
            metadata: None,
        };
        let odd = vec![-0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, f32::MIN, 1.0e-30, 1.0, 0.1, -1.5];
        let given = [
            row(""),
            row("it's \"quoted\" \\ % _ \n\0 and  longer than most"),
            StoredRow { text: Some(String::new()), source: Some(String::new()), ..row("empty") },
            StoredRow { text: Some("日本語 e\u{301} \u{1F980}".to_owned()), ..row("\u{1F980}ключ") },
            StoredRow { embedding: odd.clone(), ..row("numbers") },
            StoredRow { timestamp: Some(*VectorRow::TIMESTAMPS.start()), ..row("earliest") },
            StoredRow { timestamp: Some(*VectorRow::TIMESTAMPS.end()), ..row("latest") },
            StoredRow {
                timestamp: Some(-1),
                metadata: Some("{\"a\": [1, null]}".to_owned()),
                ..row("before")
            },
            StoredRow { text: Some("x".repeat(1 << 20)), ..row(&"k".repeat(300)) },
        ]
        .map(Owned);
        let done = table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
        assert_eq!((done.changed, done.unchanged, done.stale), (9, 0, 0));
        let found = contents(&locked.reading(), "docs").await;
        for Owned(row) in &given {
            assert_eq!(found.get(&row.id), Some(row));
        }
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found["numbers"].embedding), bits(&odd));

        let before = table.stats().await.expect("read").version;
        let done = table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
        assert_eq!((done.changed, done.unchanged, done.stale), (0, 9, 0));
        assert_eq!(
            table.stats().await.expect("read").version,
            before,
            "nothing changed, so nothing is committed"
        );
    });
}

#[test]
fn a_new_key_twice_in_one_call_is_refused_and_never_inserted_twice() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let twice = [Owned::new("a", 1), Owned::new("b", 1), Owned::new("a", 2)];
        for _ in 0..2 {
            let error = table.upsert(&rows(&twice), Overwrite::Always).await.expect_err("a is there twice");
            assert!(matches!(error, Error::SameKey { first: 0, second: 2, .. }), "{error}");
            let keys = [Deletion { id: "b", timestamp: None }; 2];
            let error = table.delete(&keys, Overwrite::Always).await.expect_err("b is there twice");
            assert!(matches!(error, Error::SameKey { first: 0, second: 1, .. }), "{error}");
            table.upsert(&rows(&twice[..1]), Overwrite::Always).await.expect("written");
        }
        assert_eq!(contents(&locked.reading(), "docs").await.len(), 1);
    });
}

#[test]
fn a_key_that_somebody_else_has_stored_twice_is_told_and_not_written_a_third_time() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        table.upsert(&rows(&[Owned::new("a", 1)]), Overwrite::Always).await.expect("written");
        let connection =
            lancedb::connect(folder.path().to_str().expect("text")).execute().await.expect("connected");
        let other = connection.open_table("docs").execute().await.expect("opened");
        let copy: Vec<_> = other.query().execute().await.expect("read").try_collect().await.expect("read");
        other.add(copy).execute().await.expect("added");
        let error = table.upsert(&rows(&[Owned::new("a", 2)]), Overwrite::Always).await.expect_err("twice");
        assert!(error.to_string().contains("holds some key more than once"), "{error}");
        assert_eq!(error.class(), Class::Configuration);
    });
}

#[test]
fn a_row_that_cannot_be_stored_is_named_and_the_others_wait() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let good = || Owned::new("good", 1);
        let long = Owned::sized("bad", 1, DIMENSIONS + 1);
        let mut infinite = Owned::new("bad", 1);
        infinite.0.embedding[3] = f32::NAN;
        let mut late = Owned::new("bad", 1);
        late.0.timestamp = Some(VectorRow::TIMESTAMPS.end() + 1);
        let mut early = Owned::new("bad", 1);
        early.0.timestamp = Some(VectorRow::TIMESTAMPS.start() - 1);
        for (bad, part) in [(long, "dimension"), (infinite, "finite"), (late, "2262"), (early, "1677")] {
            let error = table.upsert(&rows(&[good(), bad]), Overwrite::Always).await.expect_err("it is bad");
            assert_eq!((error.class(), error.row()), (Class::Data, Some(1)), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(contents(&locked.reading(), "docs").await.is_empty());
    });
}

#[test]
fn an_earlier_row_or_deletion_leaves_a_later_row_alone_if_told_so() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let at = |id: &str, timestamp: Option<i64>, number: u64| {
            let mut row = Owned::new(id, number);
            row.0.timestamp = timestamp;
            row
        };
        let first = [at("a", Some(10), 1), at("b", Some(10), 1), at("c", None, 1)];
        table.upsert(&rows(&first), Overwrite::NotNewer).await.expect("written");
        let second = [at("a", Some(9), 2), at("b", Some(10), 2), at("c", Some(1), 2), at("d", None, 2)];
        let done = table.upsert(&rows(&second), Overwrite::NotNewer).await.expect("written");
        assert_eq!((done.changed, done.unchanged, done.stale), (3, 0, 1));
        let found = contents(&locked.reading(), "docs").await;
        let expected: Model = [&first[0], &second[1], &second[2], &second[3]]
            .map(|Owned(row)| (row.id.clone(), row.clone()))
            .into_iter()
            .collect();
        assert_eq!(found, expected);
        let keys = [("a", Some(9)), ("b", Some(11)), ("d", None), ("none", None)]
            .map(|(id, timestamp)| Deletion { id, timestamp });
        let done = table.delete(&keys, Overwrite::NotNewer).await.expect("deleted");
        assert_eq!((done.deleted, done.stale), (2, 1));
        let left: Vec<String> = contents(&locked.reading(), "docs").await.into_keys().collect();
        assert_eq!(left, ["a", "c"]);
    });
}

#[test]
fn a_write_that_is_cut_off_at_any_moment_and_done_again_inserts_nothing_twice() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let mut random = Random(3);
        let mut cut = 0;
        // A write is as slow as the disk is.
        let mut whole = Duration::ZERO;
        for number in [1_000, 1_001] {
            let given: Vec<Owned> = (0..20).map(|key| Owned::new(format!("k{key}"), number)).collect();
            let began = Instant::now();
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
            whole = began.elapsed();
        }
        for round in 0..60_u64 {
            let given: Vec<Owned> =
                (0..20).map(|key| Owned::new(format!("k{}", round * 15 + key), round + 1)).collect();
            let patience = whole.mul_f64(random.below(3_000) as f64 / 1_000.0);
            let borrowed = rows(&given);
            let write = table.upsert(&borrowed, Overwrite::Always);
            match tokio::time::timeout(patience, write).await {
                Ok(done) => assert!(done.expect("written").changed > 0),
                Err(_) => cut += 1,
            }
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
            let found = contents(&locked.reading(), "docs").await;
            assert_eq!(found.len() as u64, round * 15 + 20);
            assert!(given.iter().all(|row| found.get(&row.0.id) == Some(&row.0)));
        }
        assert!((1..60).contains(&cut), "{cut} of 60 were cut off");
    });
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(Vec<(u8, u64)>),
    Delete(Vec<u8>),
    Tidy,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let unique = |mut rows: Vec<(u8, u64)>| {
        rows.sort_unstable();
        rows.dedup_by_key(|(key, _)| *key);
        rows
    };
    prop_oneof![
        4 => proptest::collection::vec((0..40_u8, 0..6_u64), 0..15).prop_map(unique).prop_map(Step::Upsert),
        2 => proptest::collection::btree_set(0..40_u8, 0..10).prop_map(|keys| Step::Delete(keys.into_iter().collect())),
        1 => Just(Step::Tidy),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_equals_the_fold_of_what_was_written_to_it(steps in proptest::collection::vec(step(), 1..12)) {
        run(async {
            let folder = folder();
            let locked = dataset(&folder).lock().expect("locked");
            let open = || VectorTable::open(&locked, spec("docs"));
            let mut table = open().await.expect("made");
            let mut model = Model::new();
            for step in steps {
                match step {
                    Step::Upsert(given) => {
                        let given: Vec<Owned> =
                            given.into_iter().map(|(key, number)| Owned::new(format!("k{key}"), number)).collect();
                        let same = given.iter().filter(|Owned(row)| model.get(&row.id) == Some(row)).count() as u64;
                        let done = table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
                        assert_eq!((done.unchanged, done.changed), (same, given.len() as u64 - same));
                        model.extend(given.into_iter().map(|Owned(row)| (row.id.clone(), row)));
                    }
                    Step::Delete(keys) => {
                        let keys: Vec<String> = keys.into_iter().map(|key| format!("k{key}")).collect();
                        let there = keys.iter().filter(|key| model.remove(*key).is_some()).count() as u64;
                        let keys: Vec<Deletion<'_>> = keys.iter().map(|id| Deletion { id, timestamp: None }).collect();
                        assert_eq!(table.delete(&keys, Overwrite::Always).await.expect("deleted").deleted, there);
                    }
                    Step::Tidy => drop(table.tidy().await.expect("tidied")),
                    Step::Reopen => table = open().await.expect("opened"),
                }
                assert_eq!(&contents(&locked.reading(), "docs").await, &model);
            }
        });
    }
}
