//! Hundreds of commits within the stated bounds.

use std::{fs, time::Duration};

use sink_lancedb::{
    Class, Deletion, IndexMethod, IndexSpec, Metric, Overwrite, TableSpec, Upkeep, VectorTable,
};

use crate::support::{Model, Owned, Random, contents, dataset, folder, rows, run, spec, tight};

#[test]
fn after_hundreds_of_commits_versions_files_and_disk_are_within_their_bounds() {
    const EVERY: u64 = 20;
    const KEEP: u64 = 10;
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let wanted = TableSpec { upkeep: tight(EVERY as u32, KEEP as u32, 2_000), ..spec("docs") };
        let mut table = VectorTable::open(&locked, wanted).await.expect("made");
        let mut random = Random(7);
        let mut model = Model::new();
        let mut peak = (0, 0, 0);
        for commit in 0..320_u64 {
            // Keys come again, so that fragments fill with deleted rows.
            let mut given = std::collections::BTreeMap::new();
            for _ in 0..50 {
                let key = format!("key {}", random.below(3_000));
                given.insert(key.clone(), Owned::new(key, random.next() >> 20));
            }
            let given: Vec<Owned> = given.into_values().collect();
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
            model.extend(given.into_iter().map(|Owned(row)| (row.id.clone(), row)));
            if commit % 10 == 0 {
                let key = format!("key {}", random.below(3_000));
                table
                    .delete(&[Deletion { id: &key, timestamp: None }], Overwrite::Always)
                    .await
                    .expect("deleted");
                model.remove(&key);
            }
            let tidied = table.upkeep().await.expect("tidied").is_some();
            if tidied || commit % 50 == 49 {
                let stats = table.stats().await.expect("read");
                let disk = stats.on_disk.expect("a folder");
                peak = (peak.0.max(stats.versions), peak.1.max(disk.files), peak.2.max(disk.bytes));
                assert_eq!(stats.rows, model.len() as u64);
                let since = if tidied { 0 } else { EVERY };
                assert!(stats.versions <= KEEP + 1 + 2 * since, "{stats:?}");
                assert!(stats.fragments <= 2 * stats.rows / 2_000 + 1 + since, "{stats:?}");
                // What is kept of each version: a manifest, its transaction, a deletion file for each fragment, its rows.
                assert!(disk.files <= 6 * (KEEP + 2 * since) + 20, "{stats:?}");
                assert!(disk.bytes <= 4 * stats.bytes + 1_000_000, "{stats:?}");
            }
        }
        println!("at most {} versions, {} files, {} bytes", peak.0, peak.1, peak.2);
        assert_eq!(contents(&locked.reading(), "docs").await, model);
    });
}

#[test]
fn a_key_index_is_made_once_the_table_is_not_tiny_and_upserts_go_on() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let wanted = TableSpec { upkeep: tight(1, 3, 100_000), ..spec("docs") };
        let mut table = VectorTable::open(&locked, wanted).await.expect("made");
        let mut model = Model::new();
        for round in 0..5_u64 {
            let given: Vec<Owned> = (0..4_000)
                .map(|key| Owned::new(format!("k{}", round * 2_500 + key), round * 10_000 + key))
                .collect();
            let there = given.iter().filter(|row| model.contains_key(&row.0.id)).count();
            assert_eq!(there, if round == 0 { 0 } else { 1_500 });
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
            model.extend(given.into_iter().map(|Owned(row)| (row.id.clone(), row)));
            table.upkeep().await.expect("tidied").expect("it was due");
            assert_eq!(table.stats().await.expect("read").key_index, model.len() >= 10_000);
            assert_eq!(contents(&locked.reading(), "docs").await, model);
        }
    });
}

#[test]
fn a_key_gets_its_index_once_there_are_rows_enough_whenever_upkeep_is_due() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let given: Vec<Owned> = (0..12_000).map(|key| Owned::new(format!("k{key}"), key)).collect();
        for (part, has_index) in [(&given[..9_000], false), (&given[9_000..], true)] {
            table.upsert(&rows(part), Overwrite::Always).await.expect("written");
            assert_eq!(table.upkeep().await.expect("looked after"), None, "two commits are no reason yet");
            assert_eq!(table.stats().await.expect("read").key_index, has_index);
        }
        let versions = table.stats().await.expect("read").versions;
        table.upkeep().await.expect("looked after");
        assert_eq!(table.stats().await.expect("read").versions, versions, "once is enough");
    });
}

#[test]
fn upkeep_is_due_some_time_after_a_commit_however_few_there_were() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let at_once = Upkeep { within: Duration::ZERO, ..tight(20, 1, 10_000) };
        let mut table =
            VectorTable::open(&locked, TableSpec { upkeep: at_once, ..spec("docs") }).await.expect("made");
        assert_eq!(table.upkeep().await.expect("looked after"), None, "nothing was committed");
        for number in 0..2 {
            table.upsert(&rows(&[Owned::new("a", number)]), Overwrite::Always).await.expect("written");
            table.upkeep().await.expect("tidied").expect("it was due");
            assert_eq!(table.upkeep().await.expect("looked after"), None);
        }
    });
}

#[test]
fn what_many_short_lives_leave_is_joined_by_a_later_one() {
    run(async {
        let folder = folder();
        let upkeep = Upkeep { within: Duration::ZERO, ..tight(10, 2, 10_000) };
        let mut most = 0;
        for life in 0..12 {
            let locked = dataset(&folder).lock().expect("locked");
            let wanted = TableSpec { upkeep, ..spec("docs") };
            let mut table = VectorTable::open(&locked, wanted).await.expect("opened");
            for number in 0..4 {
                let row = Owned::new(format!("k{life} {number}"), number);
                table.upsert(&rows(&[row]), Overwrite::Always).await.expect("written");
                table.upkeep().await.expect("tidied").expect("it was due");
            }
            most = most.max(table.stats().await.expect("read").fragments);
        }
        assert!(
            (11..=1 + 10 + 4).contains(&most),
            "not joined in each life, and not never: {most} fragments"
        );
    });
}

#[test]
fn an_index_that_is_wanted_is_built_by_whoever_opens_a_full_table() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let given: Vec<Owned> = (1..=600).map(|number| Owned::new(format!("k{number}"), number)).collect();
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
        drop(table);
        let index = Some(IndexSpec { method: IndexMethod::IvfFlat, metric: Metric::L2, min_rows: 500 });
        let mut table =
            VectorTable::open(&locked, TableSpec { index, ..spec("docs") }).await.expect("opened");
        assert!(table.builds_index().await.expect("asked"));
        table.upkeep().await.expect("tidied").expect("it was due");
        assert!(table.stats().await.expect("read").vector_index.is_some());
        assert!(!table.builds_index().await.expect("asked") && !table.lacks_index().await.expect("asked"));
    });
}

#[test]
fn an_index_that_cannot_be_built_keeps_no_old_version_and_no_fragment() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let index = Some(IndexSpec { method: IndexMethod::IvfFlat, metric: Metric::L2, min_rows: 256 });
        let wanted = TableSpec { index, upkeep: tight(5, 3, 10_000), ..spec("docs") };
        let mut table = VectorTable::open(&locked, wanted).await.expect("made");
        let given: Vec<Owned> = (0..300).map(|number| Owned::new(format!("k{number}"), number)).collect();
        table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
        // A file where LanceDB wants a folder.
        let in_the_way = folder.path().join("docs.lance/_indices");
        fs::write(&in_the_way, "").expect("written");
        let mut failures = 0;
        for number in 0..20 {
            let given = [Owned::new(format!("new{number}"), number)];
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
            match table.upkeep().await {
                Ok(None) => continue,
                Ok(Some(tidied)) => assert!(tidied.rests, "{tidied:?}"),
                Err(error) => {
                    failures += 1;
                    assert!(error.to_string().starts_with("could not build the vector index"), "{error}");
                    assert_ne!(error.class(), Class::Data);
                }
            }
            let stats = table.stats().await.expect("read");
            assert!(stats.versions <= 4 && stats.fragments == 1, "{stats:?}");
        }
        assert_eq!(failures, 1, "it rests in between");
        fs::remove_file(in_the_way).expect("removed");
        assert!(!table.tidy().await.expect("tidied").rests);
        assert!(table.stats().await.expect("read").vector_index.is_some());
    });
}

#[test]
fn old_versions_beyond_the_bounds_can_be_removed_alone() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let wanted = TableSpec { upkeep: tight(1_000, 3, 10_000), ..spec("docs") };
        let mut table = VectorTable::open(&locked, wanted).await.expect("made");
        for number in 0..10 {
            let given: Vec<Owned> = (0..50).map(|key| Owned::new(format!("k{key}"), number)).collect();
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
        }
        let before = table.stats().await.expect("read");
        assert!(table.prune().await.expect("pruned") > 0);
        let after = table.stats().await.expect("read");
        assert!(after.versions <= 4 && before.versions > 10, "{before:?} {after:?}");
        assert_eq!((after.version, after.fragments), (before.version, before.fragments));
        assert!(after.on_disk.expect("a folder").bytes < before.on_disk.expect("a folder").bytes);
    });
}
