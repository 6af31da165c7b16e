//! Which vector index is the connector's, and what becomes of another.

use lancedb::index::{Index, vector::IvfFlatIndexBuilder};
use sink_lancedb::{
    IndexFit, IndexMethod, IndexSpec, Metric, Overwrite, TableSpec, VectorReader, VectorTable,
};

use crate::support::{Folder, Owned, dataset, folder, rows, run, spec, tight};

const FLAT: IndexSpec = IndexSpec { method: IndexMethod::IvfFlat, metric: Metric::L2, min_rows: 256 };

/// Upkeep is never due by its commits alone.
async fn opened(folder: &Folder, index: IndexSpec) -> VectorTable {
    let wanted = TableSpec { index: Some(index), upkeep: tight(1_000, 5, 10_000), ..spec("docs") };
    VectorTable::open(&dataset(folder).lock().expect("locked"), wanted).await.expect("opened")
}

async fn fit(table: &mut VectorTable, index: IndexSpec) -> IndexFit {
    table.stats().await.expect("read").vector_index.expect("there is one").fit(index)
}

async fn connected(folder: &Folder) -> lancedb::Table {
    let connection =
        lancedb::connect(folder.path().to_str().expect("text")).execute().await.expect("connected");
    connection.open_table("docs").execute().await.expect("opened")
}

async fn fill(table: &mut VectorTable) -> Vec<Owned> {
    let given: Vec<Owned> = (1..=300).map(|number| Owned::new(format!("k{number}"), number)).collect();
    table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
    given
}

#[test]
fn an_index_of_another_kind_or_metric_is_replaced_and_the_same_one_stays() {
    run(async {
        let folder = folder();
        let mut table = opened(&folder, FLAT).await;
        let given = fill(&mut table).await;
        table.tidy().await.expect("tidied");
        assert_eq!(fit(&mut table, FLAT).await, IndexFit::Same);
        let built = connected(&folder).await.list_indices().await.expect("listed");
        drop(table);

        let mut table = opened(&folder, FLAT).await;
        assert_eq!(table.upkeep().await.expect("nothing fails"), None, "it is the one");
        table.tidy().await.expect("tidied");
        let found = connected(&folder).await.list_indices().await.expect("listed");
        assert_eq!(found[0].index_uuid, built[0].index_uuid);
        drop(table);

        let cosine = IndexSpec { metric: Metric::Cosine, ..FLAT };
        for wanted in [cosine, IndexSpec { method: IndexMethod::IvfHnswSq, ..cosine }] {
            let mut table = opened(&folder, wanted).await;
            assert_eq!(fit(&mut table, wanted).await, IndexFit::Replaced);
            table.upkeep().await.expect("tidied").expect("another index makes it due");
            assert_eq!(fit(&mut table, wanted).await, IndexFit::Same);
            assert_eq!(connected(&folder).await.list_indices().await.expect("listed").len(), 1);
            let mut reader = VectorReader::open(&dataset(&folder), "docs").await.expect("opened");
            let found = reader.nearest(&given[7].0.embedding, 3, Metric::Cosine).await.expect("found");
            assert!(found.used_index);
        }
    });
}

#[test]
fn an_index_that_somebody_has_named_is_left_alone_and_none_is_built_beside_it() {
    run(async {
        let folder = folder();
        let mut table = opened(&folder, FLAT).await;
        fill(&mut table).await;
        let index =
            Index::IvfFlat(IvfFlatIndexBuilder::default().distance_type(lancedb::DistanceType::Cosine));
        let by_hand = connected(&folder).await;
        by_hand.create_index(&["embedding"], index).name("mine".to_owned()).execute().await.expect("built");
        drop(table);

        let mut table = opened(&folder, FLAT).await;
        table.tidy().await.expect("tidied");
        assert_eq!(fit(&mut table, FLAT).await, IndexFit::ByHand);
        let found = connected(&folder).await.list_indices().await.expect("listed");
        assert_eq!(found.iter().map(|index| index.name.as_str()).collect::<Vec<_>>(), ["mine"]);
    });
}
