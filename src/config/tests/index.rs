//! `embedsink.tables.*.index`.

use sink_postgres_vector::{IndexMethod, IndexSpec, Metric};

use super::*;

fn with_index(keys: &str) -> String {
    changed(&[("dimensions: 384", &format!("dimensions: 384, index: {{{keys}}}"))])
}

fn index(keys: &str) -> Option<IndexSettings> {
    read(&with_index(keys)).unwrap().tables[0].index
}

#[test]
fn an_index_is_hnsw_by_cosine_when_the_backlog_is_written_unless_the_file_says_otherwise() {
    let usual = IndexSettings {
        spec: IndexSpec { method: IndexMethod::Hnsw { m: 16, ef_construction: 64 }, metric: Metric::Cosine },
        build: IndexBuildTime::Deferred,
        maintenance_memory: 1 << 30,
        workers: None,
    };
    assert_eq!(index(""), Some(usual));
    let keys =
        "metric: l1, m: 8, ef-construction: 16, build: immediate, maintenance-memory: 2GiB, workers: 0";
    let spec = IndexSpec { method: IndexMethod::Hnsw { m: 8, ef_construction: 16 }, metric: Metric::L1 };
    let other = IndexSettings {
        spec,
        build: IndexBuildTime::Immediate,
        maintenance_memory: 2 << 30,
        workers: Some(0),
    };
    assert_eq!(index(keys), Some(other));
    let lists = |lists| IndexSpec { method: IndexMethod::Ivfflat { lists }, metric: Metric::L2 };
    assert_eq!(index("kind: ivfflat, metric: l2").map(|index| index.spec), Some(lists(None)));
    assert_eq!(index("kind: ivfflat, metric: l2, lists: 10").map(|index| index.spec), Some(lists(Some(10))));
    assert_eq!(index("kind: none"), None);
    assert_eq!(read(MINIMAL).unwrap().tables[0].index, None);
}

#[test]
fn what_pgvector_does_not_build_is_refused_with_a_sentence() {
    let large = changed(&[("dimensions: 384", "dimensions: 3072, index: {}")]);
    let pooled = |keys: &str| with_index(keys).replace(POSTGRES, &format!("{POSTGRES}, prepared: false"));
    assert!(read(&pooled("build: immediate")).is_ok());
    for (text, part) in [
        (large, "pgvector indexes vectors of at most 2000 dimensions, and these have 3072"),
        (pooled(""), "a deferred build needs a session of its own"),
        (with_index("kind: ivfflat, build: immediate"), "before the first there are none"),
        (with_index("kind: ivfflat, metric: l1"), "pgvector has no `ivfflat` for `l1`"),
        (with_index("kind: ivfflat, m: 8"), "only an index of the kind `hnsw` has it"),
        (with_index("lists: 8"), "only an index of the kind `ivfflat` has it"),
        (with_index("m: 40"), "`ef-construction` is 64, and pgvector wants twice `m` at least"),
        (with_index("m: 1"), "pgvector gives an element of the graph 2 to 100 links"),
        (with_index("metric: cosin"), "did you mean `cosine`?"),
    ] {
        let problems = problems(&text);
        assert!(problems.len() == 1 && problems[0].contains(part), "{text}{problems:?}");
    }
}
