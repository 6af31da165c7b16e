//! One writer a dataset.

use std::{fs, os::unix::fs::symlink};

use sink_lancedb::{Class, Dataset, DatasetOptions, Error, Overwrite, VectorReader, VectorTable};

use crate::support::{Owned, dataset, folder, rows, run, spec};

#[test]
fn a_second_writer_is_refused_and_told_who_the_first_is() {
    run(async {
        let folder = folder();
        let first = dataset(&folder).lock().expect("locked");
        let table = VectorTable::open(&first, spec("docs")).await.expect("made");
        let error = dataset(&folder).lock().expect_err("it is locked");
        let Error::Held { holder, .. } = &error else { panic!("{error}") };
        assert_eq!(*holder, Some(std::process::id()));
        assert_eq!(error.class(), Class::Configuration);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        dataset(&folder).lock().expect_err("the table still writes");
        drop(table);
        dataset(&folder).lock().expect("nobody writes any more");
    });
}

#[test]
fn reading_needs_no_lock_and_sees_what_was_committed() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let mut reader = VectorReader::open(&dataset(&folder), "docs").await.expect("opened");
        for number in 1..4 {
            table.upsert(&rows(&[Owned::new("a", number)]), Overwrite::Always).await.expect("written");
            let found = reader.by_id(&["a", "b"]).await.expect("read");
            assert_eq!(found, [Owned::new("a", number).0]);
        }
        assert_eq!(dataset(&folder).table_names().await.expect("listed"), ["docs"]);
    });
}

/// What the lock is for: without it both would find that the key is not there. With Lance's mark of the key, one of two
/// writers that do not know the lock is refused or comes second.
#[test]
fn two_writers_that_do_not_know_the_lock_do_not_insert_a_key_twice_either() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        table.upsert(&rows(&[Owned::new("first", 1)]), Overwrite::Always).await.expect("written");
        let uri = folder.path().to_str().expect("text");
        let merge = async |number: u64| {
            let connection = lancedb::connect(uri).execute().await.expect("connected");
            let other = connection.open_table("docs").execute().await.expect("opened");
            let schema = other.schema().await.expect("read");
            let batch = crate::arrow::batch(&schema, &[Owned::new("same", number)]);
            let mut merge = other.merge_insert(&["id"]);
            merge.when_matched_update_all(None).when_not_matched_insert_all();
            let reader = lancedb::arrow::arrow_array::RecordBatchIterator::new([Ok(batch)], schema);
            merge.execute(Box::new(reader)).await
        };
        for _ in 0..5 {
            let (one, other) = tokio::join!(merge(1), merge(2));
            assert!(one.is_ok() || other.is_ok());
            crate::support::contents(&locked.reading(), "docs").await;
            let key = [sink_lancedb::Deletion { id: "same", timestamp: None }];
            table.delete(&key, Overwrite::Always).await.expect("deleted");
        }
    });
}

#[test]
fn what_would_be_locked_in_one_folder_and_written_in_another_is_refused() {
    for (uri, fix) in [
        ("~/data", "write the folder's whole path, or ./~/data for one of that name"),
        ("~", "or ./~ for one of that name"),
        ("file:/data", "write /data, or ./file:/data"),
        ("file:data", "write data, or ./file:data"),
        ("s3:bucket/data", "write s3://bucket/data, or ./s3:bucket/data"),
    ] {
        let error = Dataset::open(DatasetOptions::new(uri)).expect_err("it is refused");
        assert_eq!(error.class(), Class::Configuration);
        assert!(error.to_string().contains(fix), "{error}");
    }
    for uri in ["./~data", "./s3:bucket", "data"] {
        let opened = Dataset::open(DatasetOptions::new(uri)).expect("it is a folder");
        assert!(std::path::Path::new(opened.uri()).is_absolute(), "{}", opened.uri());
    }
}

#[test]
fn the_folder_that_is_locked_is_the_one_that_is_written_even_behind_a_link() {
    run(async {
        let folder = folder();
        fs::create_dir_all(folder.path().join("far/inner")).expect("made");
        symlink(folder.path().join("far/inner"), folder.path().join("link")).expect("linked");
        // To the operating system this is `far/data`, and to who only looks at names `data`.
        let uri = folder.path().join("link/../data");
        let locked =
            Dataset::open(DatasetOptions::new(uri.to_str().expect("text"))).expect("it can be one").lock();
        let locked = locked.expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        table.upsert(&rows(&[Owned::new("a", 1)]), Overwrite::Always).await.expect("written");
        for name in [".writer.lock", "docs.lance"] {
            assert!(folder.path().join("far/data").join(name).exists(), "{name}");
        }
        assert!(!folder.path().join("data").exists());
    });
}
