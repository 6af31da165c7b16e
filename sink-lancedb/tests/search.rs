//! The vector index, and searching with and without it.

use sink_lancedb::{Error, IndexMethod, IndexSpec, Metric, Overwrite, TableSpec, VectorReader, VectorTable};

use crate::support::{Owned, dataset, folder, rows, run, spec, tight};

fn distance(one: &[f32], other: &[f32]) -> f64 {
    let squares = one.iter().zip(other).map(|(one, other)| (f64::from(*one) - f64::from(*other)).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn without_an_index_the_nearest_rows_are_exact_and_the_plan_says_so() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let given: Vec<Owned> = (0..100).map(|number| Owned::new(format!("k{number}"), number)).collect();
        table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
        let mut reader = VectorReader::open(&locked.reading(), "docs").await.expect("opened");
        let wanted = &given[42].0.embedding;
        let found = reader.nearest(wanted, 5, Metric::L2).await.expect("found");
        assert!(!found.used_index);
        let mut all: Vec<f64> = given.iter().map(|row| distance(&row.0.embedding, wanted)).collect();
        all.sort_by(f64::total_cmp);
        let distances: Vec<f64> = found.neighbours.iter().map(|neighbour| neighbour.distance).collect();
        assert!(distances.iter().zip(&all).all(|(one, other)| (one - other).abs() < 1e-9), "{distances:?}");
        assert_eq!(found.neighbours[0].row, given[42].0);
        let error = reader.nearest(&[0.0], 5, Metric::L2).await.expect_err("one dimension");
        assert!(matches!(error, Error::Row { .. }), "{error}");
    });
}

#[test]
fn the_first_rows_are_those_of_the_first_keys_whatever_came_first() {
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, spec("docs")).await.expect("made");
        let mut reader = VectorReader::open(&locked.reading(), "docs").await.expect("opened");
        assert_eq!(reader.first(3).await.expect("read"), []);
        let given: Vec<Owned> =
            (0..50).map(|number| Owned::new(format!("k{:02}", number * 17 % 50), number)).collect();
        for part in given.chunks(20) {
            table.upsert(&rows(part), Overwrite::Always).await.expect("written");
        }
        let mut sorted: Vec<_> = given.iter().map(|row| row.0.clone()).collect();
        sorted.sort_by(|one, other| one.id.cmp(&other.id));
        for limit in [0, 1, 7, 49, 50, 51] {
            let found = reader.first(limit).await.expect("read");
            assert_eq!(found, sorted[..limit.min(50)], "{limit}");
        }
    });
}

#[test]
fn each_kind_of_index_is_built_once_there_are_rows_refreshed_and_used() {
    run(async {
        for method in [IndexMethod::IvfHnswSq, IndexMethod::IvfPq, IndexMethod::IvfFlat] {
            let folder = folder();
            let locked = dataset(&folder).lock().expect("locked");
            let index = Some(IndexSpec { method, metric: Metric::Cosine, min_rows: 500 });
            let wanted = TableSpec { index, upkeep: tight(1, 5, 10_000), ..spec("docs") };
            let mut table = VectorTable::open(&locked, wanted).await.expect("made");
            let given: Vec<Owned> =
                (1..=600).map(|number| Owned::new(format!("k{number}"), number)).collect();
            table.upsert(&rows(&given[..400]), Overwrite::Always).await.expect("written");
            table.upkeep().await.expect("tidied").expect("it was due");
            assert_eq!(table.stats().await.expect("read").vector_index, None, "too few rows");
            table.upsert(&rows(&given[400..550]), Overwrite::Always).await.expect("written");
            table.upkeep().await.expect("tidied").expect("it was due");
            let found = table.stats().await.expect("read").vector_index.expect("it is built");
            assert_eq!((found.rows_indexed, found.rows_unindexed), (550, 0), "{found:?}");
            assert_eq!(found.metric, Some(Metric::Cosine));
            table.upsert(&rows(&given[550..]), Overwrite::Always).await.expect("written");
            let found = table.stats().await.expect("read").vector_index.expect("it is there");
            assert_eq!(found.rows_unindexed, 50, "{found:?}");

            let mut reader = VectorReader::open(&locked.reading(), "docs").await.expect("opened");
            for refreshed in [false, true] {
                if refreshed {
                    table.upkeep().await.expect("tidied").expect("it was due");
                    let found = table.stats().await.expect("read").vector_index.expect("it is there");
                    assert_eq!(found.rows_unindexed, 0, "{found:?}");
                }
                // One from the index, one from what came later.
                for place in [17, 580] {
                    let near =
                        reader.nearest(&given[place].0.embedding, 10, Metric::Cosine).await.expect("found");
                    assert!(near.used_index, "{method:?}");
                    assert_eq!(near.neighbours.len(), 10);
                    let nearest = &near.neighbours[0];
                    assert_eq!(nearest.row, given[place].0, "{method:?} {refreshed} {place}");
                    assert!(nearest.distance.abs() < 1e-12, "of the embedding, not of its abbreviation");
                    assert!(near.neighbours.is_sorted_by_key(|neighbour| neighbour.distance));
                }
            }
            let other = reader.nearest(&given[17].0.embedding, 1, Metric::L2).await.expect("found");
            assert_eq!(other.neighbours[0].row, given[17].0);
            assert!(!other.used_index, "it is made for another metric");
        }
    });
}
