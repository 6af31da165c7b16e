//! Tables of the caller's own columns.

use sink_lancedb::{Class, Error, KeyedReader, KeyedRow, KeyedSpec, KeyedTable, Kind, Value};

use crate::support::{dataset, folder, run, tight};

fn spec() -> KeyedSpec {
    let columns = [
        ("topic", Kind::Text),
        ("next_offset", Kind::Integer),
        ("payload", Kind::Bytes),
        ("at", Kind::Timestamp),
    ];
    KeyedSpec {
        name: "_positions".to_owned(),
        columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(),
        upkeep: tight(10, 5, 1_000),
    }
}

fn row(key: &str, offset: i64) -> KeyedRow {
    let values = vec![
        Value::Text("a.b/c ü".to_owned()),
        Value::Integer(offset),
        if offset % 2 == 0 { Value::Null } else { Value::Bytes(vec![0, 255, 7]) },
        Value::Timestamp(-offset),
    ];
    KeyedRow { key: key.to_owned(), values }
}

#[test]
fn rows_are_put_read_removed_and_put_only_if_missing() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = KeyedTable::open(&locked, spec()).await.expect("made");
        table.put(&[row("a", 1), row("b", i64::MAX)]).await.expect("put");
        table.put(&[row("a", 2)]).await.expect("put");
        assert_eq!(table.reader().get(&["a", "none"]).await.expect("read"), [row("a", 2)]);
        assert_eq!(table.put_missing(&[row("a", 3), row("c", 3)]).await.expect("put"), 1);
        assert_eq!(table.put_missing(&[row("a", 3), row("c", 3)]).await.expect("put"), 0);
        let mut all = KeyedReader::open(&dataset(&folder), spec())
            .await
            .expect("opened")
            .all(None)
            .await
            .expect("read");
        all.sort_by(|one, other| one.key.cmp(&other.key));
        assert_eq!(all, [row("a", 2), row("b", i64::MAX), row("c", 3)]);
        assert_eq!(table.remove(&["b", "none"]).await.expect("removed"), 1);
        assert_eq!(table.reader().count().await.expect("counted"), 2);
        assert_eq!(table.reader().all(Some(1)).await.expect("read").len(), 1);
    });
}

#[test]
fn a_key_twice_or_a_value_of_another_kind_is_refused() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = KeyedTable::open(&locked, spec()).await.expect("made");
        let error = table.put_missing(&[row("a", 1), row("a", 2)]).await.expect_err("twice");
        assert!(matches!(error, Error::SameKey { .. }), "{error}");
        let mut bad = row("b", 1);
        bad.values[1] = Value::Text("1".to_owned());
        let error = table.put(&[row("a", 1), bad]).await.expect_err("text for a number");
        assert_eq!((error.class(), error.row()), (Class::Data, Some(1)));
        let error =
            table.put(&[KeyedRow { key: "c".to_owned(), values: Vec::new() }]).await.expect_err("no values");
        assert_eq!(error.row(), Some(0));
        assert_eq!(table.reader().count().await.expect("counted"), 0);
        drop(table);
        let other = KeyedSpec { columns: vec![("topic".to_owned(), Kind::Integer)], ..spec() };
        let error = KeyedTable::open(&locked, other).await.expect_err("another shape");
        assert!(error.to_string().contains("column topic is string, not int64"), "{error}");
    });
}

#[test]
fn a_table_written_with_every_batch_stays_small() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = KeyedTable::open(&locked, spec()).await.expect("made");
        for offset in 0..60 {
            table.put(&[row("a", offset), row("b", offset)]).await.expect("put");
            table.upkeep().await.expect("tidied");
        }
        let stats = table.reader().stats().await.expect("read");
        assert_eq!(stats.rows, 2);
        assert!(stats.versions <= 5 + 1 + 10, "{stats:?}");
        assert!(stats.on_disk.expect("a folder").files < 100, "{stats:?}");
    });
}
