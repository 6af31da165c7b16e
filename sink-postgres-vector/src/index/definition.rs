//! What an index is like, and its SQL, as pure functions of names.

use sha2::{Digest, Sha256};

use crate::ident::Ident;

/// PostgreSQL cuts longer names off.
const MAX_BYTES: usize = 63;

/// What an index is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// The access method and its options.
    pub method: IndexMethod,
    /// The distance that it finds neighbours by.
    pub metric: Metric,
}

/// An access method of pgvector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexMethod {
    /// A graph.
    Hnsw {
        /// Links of an element in each layer, 2 to 100.
        m: u16,
        /// Candidates while an element is put in, 4 to 1000 and at least `2 * m`.
        ef_construction: u16,
    },
    /// Lists around centres that are found in the rows that are there.
    Ivfflat {
        /// How many, 1 to 32,768. `None`: by the number of rows.
        lists: Option<u32>,
    },
}

/// A distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Euclidean, `<->`.
    L2,
    /// The angle's, `<=>`.
    Cosine,
    /// The negative inner product, `<#>`.
    InnerProduct,
    /// The sum of differences, `<+>`. HNSW only.
    L1,
}

impl IndexMethod {
    /// pgvector's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hnsw { .. } => "hnsw",
            Self::Ivfflat { .. } => "ivfflat",
        }
    }
}

impl Metric {
    /// The word in the operator class.
    fn word(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Cosine => "cosine",
            Self::InnerProduct => "ip",
            Self::L1 => "l1",
        }
    }

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InnerProduct => "inner product",
            metric => metric.word(),
        }
    }

    /// pgvector's operator. What it gives is smaller for what is nearer.
    pub fn operator(self) -> &'static str {
        match self {
            Self::L2 => "<->",
            Self::Cosine => "<=>",
            Self::InnerProduct => "<#>",
            Self::L1 => "<+>",
        }
    }

    /// The metric of an operator class of pgvector for the type `vector`.
    pub(crate) fn of_operator_class(class: &str) -> Option<Self> {
        [Self::L2, Self::Cosine, Self::InnerProduct, Self::L1]
            .into_iter()
            .find(|metric| metric.operator_class() == class)
    }

    pub(super) fn operator_class(self) -> String {
        format!("vector_{}_ops", self.word())
    }
}

/// The name of our index: the table's, then what it is. A name that would be too long is cut, and told from others that
/// are cut to the same by a digest.
pub(super) fn name(table: &Ident, spec: &IndexSpec) -> Ident {
    let what = format!("_embedsink_{}_{}", spec.method.as_str(), spec.metric.word());
    let table = table.as_str();
    let name = if table.len() + what.len() <= MAX_BYTES {
        format!("{table}{what}")
    } else {
        let digest = Sha256::digest(table.as_bytes());
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let room = MAX_BYTES - what.len() - digest.len() - 1;
        let cut = &table[..table.floor_char_boundary(room)];
        format!("{cut}_{digest}{what}")
    };
    Ident::new(name).expect("a name made of a name, and cut to size")
}

/// Where and how an index is made.
pub(super) struct Create<'a> {
    pub(super) schema: &'a Ident,
    pub(super) table: &'a Ident,
    pub(super) extension: &'a Ident,
    pub(super) name: &'a Ident,
    pub(super) spec: IndexSpec,
    /// For a method that takes its lists from the number of rows.
    pub(super) rows: f64,
    /// Without keeping others from writing.
    pub(super) concurrently: bool,
}

impl Create<'_> {
    pub(super) fn sql(&self) -> String {
        let Self { schema, table, extension, name, spec, rows, concurrently } = self;
        let concurrently = if *concurrently { "concurrently " } else { "" };
        let options = match spec.method {
            IndexMethod::Hnsw { m, ef_construction } => {
                format!("m = {m}, ef_construction = {ef_construction}")
            }
            IndexMethod::Ivfflat { lists } => {
                format!("lists = {}", lists.unwrap_or_else(|| usual_lists(*rows)))
            }
        };
        format!(
            "create index {concurrently}{name} on {schema}.{table} using {method} (embedding {extension}.{class}) \
             with ({options})",
            method = spec.method.as_str(),
            class = spec.metric.operator_class(),
        )
    }
}

/// What pgvector recommends: a list for each 1,000 rows up to a million, beyond that the square root.
pub(super) fn usual_lists(rows: f64) -> u32 {
    let lists = if rows <= 1e6 { rows / 1e3 } else { rows.sqrt() };
    (lists as u32).clamp(1, 32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HNSW: IndexSpec =
        IndexSpec { method: IndexMethod::Hnsw { m: 16, ef_construction: 64 }, metric: Metric::Cosine };

    fn ident(name: &str) -> Ident {
        Ident::new(name).unwrap()
    }

    #[test]
    fn a_name_is_stable_fits_and_differs_where_the_table_or_the_kind_does() {
        assert_eq!(name(&ident("embeddings"), &HNSW).as_str(), "embeddings_embedsink_hnsw_cosine");
        let long = [ident(&"x".repeat(63)), ident(&format!("{}y", "x".repeat(62))), ident(&"é".repeat(31))];
        let names: Vec<Ident> = long.iter().map(|table| name(table, &HNSW)).collect();
        assert!(names.iter().all(|name| name.as_str().len() <= MAX_BYTES), "{names:?}");
        assert_ne!(names[0], names[1]);
        assert_eq!(names[0], name(&long[0], &HNSW));
        assert!(names[0].as_str().ends_with("_embedsink_hnsw_cosine"));
        assert_ne!(names[0], name(&long[0], &IndexSpec { metric: Metric::L2, ..HNSW }));
    }

    #[test]
    fn the_statement_quotes_names_and_says_every_option() {
        let (schema, table, extension) = (ident("a\"b"), ident("T x"), ident("ext"));
        let create = Create {
            schema: &schema,
            table: &table,
            extension: &extension,
            name: &ident("i"),
            spec: HNSW,
            rows: 0.0,
            concurrently: true,
        };
        assert_eq!(
            create.sql(),
            "create index concurrently \"i\" on \"a\"\"b\".\"T x\" using hnsw (embedding \"ext\".vector_cosine_ops) \
             with (m = 16, ef_construction = 64)"
        );
        let spec = IndexSpec { method: IndexMethod::Ivfflat { lists: None }, metric: Metric::InnerProduct };
        let create = Create { spec, rows: 250_000.0, concurrently: false, ..create };
        assert_eq!(
            create.sql(),
            "create index \"i\" on \"a\"\"b\".\"T x\" using ivfflat (embedding \"ext\".vector_ip_ops) with (lists = 250)"
        );
    }

    #[test]
    fn lists_grow_with_the_rows_within_what_pgvector_takes() {
        assert_eq!([0.0, 1e5, 1e6, 4e6, 1e12].map(usual_lists), [1, 100, 1_000, 2_000, 32_768]);
    }
}
