//! How much memory building an index takes, so that it is neither slow for want of it nor given more than it uses.

use super::definition::{IndexMethod, usual_lists};

/// Below this PostgreSQL would give a build no second worker: it wants 32 MiB for each.
const LEAST: f64 = 64.0 * 1024.0 * 1024.0;

/// An element of pgvector's graph beside its vector and its links, and what the allocator adds to them.
const ELEMENT: f64 = 200.0;
/// A link of the graph in memory.
const LINK: f64 = 16.0;

/// Bytes for `maintenance_work_mem`: what the data takes, 64 MiB at least and `most` at most.
pub(super) fn maintenance_memory(method: IndexMethod, rows: f64, dimensions: u16, most: u64) -> u64 {
    let vector = 4.0 * f64::from(dimensions) + 8.0;
    let bytes = match method {
        IndexMethod::Hnsw { m, .. } => {
            let m = f64::from(m);
            // 2 m links in the lowest layer, m in each that an element reaches beyond; one of m elements reaches the next.
            let links = LINK * (2.0 * m + m / (m - 1.0));
            // A graph that does not fit is built several times slower, so some more than that.
            1.25 * rows * (ELEMENT + vector + links)
        }
        IndexMethod::Ivfflat { lists } => {
            let lists = f64::from(lists.unwrap_or_else(|| usual_lists(rows)));
            let samples = (50.0 * lists).max(10_000.0);
            // The samples, the centres in three forms, and the bounds between them.
            1.25 * (samples * (vector + 4.0 * lists) + 3.0 * lists * vector + 4.0 * lists * lists)
        }
    };
    (bytes.max(LEAST) as u64).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn memory_grows_with_the_rows_within_its_limits() {
        let hnsw = IndexMethod::Hnsw { m: 16, ef_construction: 64 };
        let memory = |rows, dimensions| maintenance_memory(hnsw, rows, dimensions, 1024 * MIB) / MIB;
        assert_eq!(memory(0.0, 384), 64);
        assert_eq!(memory(100_000.0, 384), 270);
        assert_eq!(memory(100_000.0, 1536), 820);
        assert_eq!(memory(1e9, 1536), 1024);
        let lists = IndexMethod::Ivfflat { lists: Some(1_000) };
        assert!(maintenance_memory(lists, 1e6, 384, 4096 * MIB) > 300 * MIB);
    }
}
