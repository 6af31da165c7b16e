//! Files that are cut, full of something else, or gone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sink_lancedb::{
    Class, Deletion, Error, IndexMethod, IndexSpec, Metric, Overwrite, TableSpec, VectorReader, VectorTable,
};

use crate::support::{Folder, Owned, dataset, folder, rows, run, spec};

fn wanted() -> TableSpec {
    let index = IndexSpec { method: IndexMethod::IvfFlat, metric: Metric::L2, min_rows: 256 };
    TableSpec { index: Some(index), ..spec("docs") }
}

/// A table with rows, deleted rows and an index.
async fn table() -> Folder {
    let folder = folder();
    let mut table =
        VectorTable::open(&dataset(&folder).lock().expect("locked"), wanted()).await.expect("made");
    let given: Vec<Owned> = (0..300).map(|number| Owned::new(format!("k{number}"), number)).collect();
    table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
    table.tidy().await.expect("tidied");
    table.delete(&[Deletion { id: "k7", timestamp: None }], Overwrite::Always).await.expect("deleted");
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What whoever reads and writes the table is told.
async fn told(folder: &Folder) -> Vec<Error> {
    let mut errors = Vec::new();
    let read = async {
        let mut reader = VectorReader::open(&dataset(folder), "docs").await?;
        reader.first(1_000).await?;
        reader.nearest(&[0.5; 8], 3, Metric::L2).await.map(drop)
    };
    errors.extend(read.await.err());
    let write = async {
        let mut table = VectorTable::open(&dataset(folder).lock()?, wanted()).await?;
        table.upsert(&rows(&[Owned::new("k3", 1_000)]), Overwrite::Always).await?;
        table.tidy().await.map(drop)
    };
    errors.extend(write.await.err());
    errors
}

#[test]
fn a_damaged_or_missing_file_is_told_as_such_and_not_tried_again() {
    run(async {
        for part in ["data", "_deletions", "_indices", "_versions"] {
            for how in ["gone", "empty", "cut", "other"] {
                let folder = table().await;
                for file in files(&folder.path().join("docs.lance").join(part)) {
                    let bytes = fs::read(&file).expect("read");
                    match how {
                        "gone" => fs::remove_file(&file).expect("removed"),
                        "empty" => fs::write(&file, "").expect("written"),
                        "cut" => fs::write(&file, &bytes[..bytes.len() / 2]).expect("written"),
                        _ => fs::write(&file, vec![0x5A; bytes.len()]).expect("written"),
                    }
                }
                let errors = told(&folder).await;
                assert!(!errors.is_empty(), "{part} {how}");
                for error in &errors {
                    let text = error.to_string();
                    let is_told = match how {
                        "gone" => {
                            error.class() == Class::Configuration
                                && (text.contains("is not there")
                                    || text.contains("there is no LanceDB table"))
                        }
                        // LanceDB takes the footer of such an index for that of an older kind.
                        "other" if part == "_indices" => error.class() == Class::Fatal,
                        _ => error.class() == Class::Fatal && text.contains("is damaged"),
                    };
                    assert!(is_told, "{part} {how}: {:?} {text}", error.class());
                }
            }
        }
    });
}
