//! Tables made, checked, refused; folders that cannot be used.

use std::sync::Arc;

use lancedb::arrow::arrow_schema::{DataType, Field, Schema};
use sink_lancedb::{Class, Dataset, DatasetOptions, Error, VectorReader, VectorTable};

use crate::support::{DIMENSIONS, Folder, Owned, contents, dataset, folder, rows, run, spec};

async fn make_foreign(folder: &Folder, name: &str, fields: Vec<Field>) {
    let connection =
        lancedb::connect(folder.path().to_str().expect("text")).execute().await.expect("connected");
    let schema = Arc::new(Schema::new(fields));
    connection.create_empty_table(name, schema).execute().await.expect("made");
}

#[test]
fn a_table_is_made_with_the_columns_a_user_of_python_expects_and_taken_again() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        table.upsert(&rows(&[Owned::new("a", 1)]), sink_lancedb::Overwrite::Always).await.expect("written");
        drop(table);
        VectorTable::open(&locked, spec("docs")).await.expect("taken again");
        let connection =
            lancedb::connect(folder.path().to_str().expect("text")).execute().await.expect("connected");
        let schema =
            connection.open_table("docs").execute().await.expect("opened").schema().await.expect("read");
        let found: Vec<String> =
            schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let vector = DataType::FixedSizeList(item, i32::from(DIMENSIONS));
        assert_eq!(
            found,
            [
                "id Utf8",
                "text Utf8",
                &format!("embedding {vector}"),
                "timestamp Timestamp(ns)",
                "source Utf8",
                "metadata Utf8"
            ]
        );
        assert_eq!(contents(&locked.reading(), "docs").await.len(), 1);
    });
}

#[test]
fn a_foreign_table_is_refused_and_each_differing_column_named() {
    run(async {
        let folder = folder();
        let columns =
            vec![Field::new("id", DataType::Int64, true), Field::new("vector", DataType::Utf8, true)];
        make_foreign(&folder, "docs", columns).await;
        let locked = dataset(&folder).lock().expect("locked");
        let error = VectorTable::open(&locked, spec("docs")).await.expect_err("it is foreign");
        assert_eq!(error.class(), Class::Configuration);
        let Error::Mismatches { mismatches, .. } = &error else { panic!("{error}") };
        let text = error.to_string();
        for part in
            ["id is int64", "no column text", "no column embedding", "a column vector that nothing fills"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(mismatches.len(), 7);
        let error = VectorReader::open(&locked.reading(), "docs").await.expect_err("nor is it read");
        assert!(matches!(error, Error::Mismatches { .. }), "{error}");
    });
}

#[test]
fn a_table_of_another_dimension_is_refused_with_both_numbers() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        drop(VectorTable::open(&locked, spec("docs")).await.expect("made"));
        let other = sink_lancedb::TableSpec { dimensions: 16, ..spec("docs") };
        let error = VectorTable::open(&locked, other).await.expect_err("it has 8").to_string();
        assert!(error.contains("[8], not fixed_size_list<float32>[16]"), "{error}");
        assert!(error.contains("If its 8 dimensions are right"), "{error}");
    });
}

#[test]
fn a_column_that_takes_no_nulls_is_refused_before_a_record_without_it_comes() {
    run(async {
        let folder = folder();
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let nanos = DataType::Timestamp(lancedb::arrow::arrow_schema::TimeUnit::Nanosecond, None);
        let columns = vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("text", DataType::Utf8, false),
            Field::new("embedding", DataType::FixedSizeList(item, i32::from(DIMENSIONS)), false),
            Field::new("timestamp", nanos, true),
            Field::new("source", DataType::Utf8, true),
            Field::new("metadata", DataType::Utf8, true),
        ];
        make_foreign(&folder, "docs", columns).await;
        let locked = dataset(&folder).lock().expect("locked");
        let error = VectorTable::open(&locked, spec("docs")).await.expect_err("it takes no nulls");
        let text = error.to_string();
        assert!(text.contains("Its column text takes no nulls"), "{text}");
        assert_eq!(text.lines().count(), 2, "an embedding and an id every row has: {text}");
    });
}

#[test]
fn a_table_made_by_somebody_else_with_other_order_and_nulls_is_taken() {
    run(async {
        let folder = folder();
        let item = Arc::new(Field::new("l", DataType::Float32, false));
        let columns = vec![
            Field::new("metadata", DataType::Utf8, true),
            Field::new("embedding", DataType::FixedSizeList(item, i32::from(DIMENSIONS)), false),
            Field::new("text", DataType::Utf8, true),
            Field::new("id", DataType::Utf8, true),
            Field::new(
                "timestamp",
                DataType::Timestamp(lancedb::arrow::arrow_schema::TimeUnit::Nanosecond, None),
                true,
            ),
            Field::new("source", DataType::Utf8, true),
        ];
        make_foreign(&folder, "docs", columns).await;
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("taken");
        let given = [Owned::new("a", 1), Owned::new("b", 2)];
        for number in 0..3 {
            let given = [Owned::new("a", number), Owned::new("b", 2)];
            table.upsert(&rows(&given), sink_lancedb::Overwrite::Always).await.expect("written");
        }
        let found = contents(&locked.reading(), "docs").await;
        assert_eq!(found["a"], Owned::new("a", 2).0);
        assert_eq!(found["b"], given[1].0);
    });
}

#[test]
fn what_is_no_folder_or_cannot_be_written_is_named() {
    run(async {
        let folder = folder();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("written");
        let open = |uri: &str| Dataset::open(DatasetOptions::new(uri));
        let error = open(file.to_str().expect("text")).expect_err("it is a file");
        assert!(error.to_string().ends_with("file as a LanceDB dataset: it is not a folder"), "{error}");
        assert_eq!(error.class(), Class::Configuration);
        let below = file.join("below");
        let error =
            open(below.to_str().expect("text")).expect("nothing is there").lock().expect_err("below a file");
        assert!(error.to_string().contains("it cannot be made: Not a directory"), "{error}");
        assert!(error.remedy().is_some());
        // Nobody may write there, whoever runs this.
        let error =
            open("/proc/self/data").expect("nothing is there").lock().expect_err("it is not to be written");
        assert!(error.to_string().contains("it cannot be made"), "{error}");
        assert_eq!(error.class(), Class::Configuration);
    });
}

#[test]
fn an_object_store_says_what_it_needs() {
    let open = |uri: &str| Dataset::open(DatasetOptions::new(uri));
    let error = open("ftp://host/folder").expect_err("no such store").to_string();
    assert!(error.contains("`ftp://` is none of file, s3, gs, az, abfss"), "{error}");
    if !cfg!(feature = "aws") {
        let error = open("s3://bucket/folder").expect_err("not built in").to_string();
        assert!(error.contains("built without the feature `aws`"), "{error}");
    }
    open("file:///tmp/folder").expect("a folder, too");
}

#[test]
fn what_is_not_there_is_not_made_by_reading() {
    run(async {
        let folder = folder();
        let missing = folder.path().join("missing");
        let reading = Dataset::open(DatasetOptions::new(missing.to_str().expect("text"))).expect("opened");
        assert_eq!(reading.table_names().await.expect("listed"), [""; 0]);
        let error = VectorReader::open(&reading, "docs").await.expect_err("no table");
        assert!(matches!(error, Error::NoTable { .. }), "{error}");
        assert!(!missing.exists());
    });
}

#[test]
fn a_name_that_no_table_can_have_is_the_operator_s_to_correct() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let error = VectorTable::open(&locked, spec("a/b")).await.expect_err("it is a path");
        assert_eq!(error.class(), Class::Configuration, "{error}");
    });
}
