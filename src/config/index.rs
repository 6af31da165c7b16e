//! `embedsink.tables.*.index`.

use sink_postgres_vector::{IndexMethod, IndexSpec, Metric};

use super::field::Field;
use super::problem::Report;
use super::quantity::Limits;
use super::section::Section;
use super::settings::{IndexBuildTime, IndexSettings};

const M: Limits<u16> =
    Limits { least: 2, most: 100, why: "pgvector gives an element of the graph 2 to 100 links" };
const EF_CONSTRUCTION: Limits<u16> =
    Limits { least: 4, most: 1000, why: "pgvector looks at 4 to 1000 candidates" };
const LISTS: Limits<u32> = Limits { least: 1, most: 32_768, why: "pgvector makes 1 to 32768 lists" };
const MEMORY: Limits<usize> =
    Limits { least: 64 << 20, most: 1 << 40, why: "it is what the server may take to build an index" };
const WORKERS: Limits<u16> = Limits { least: 0, most: 1024, why: "PostgreSQL has at most 1024 workers" };

/// pgvector indexes a `vector` of no more.
const MOST_DIMENSIONS: u16 = 2_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hnsw,
    Ivfflat,
    None,
}

/// What else in the file an index depends on.
#[derive(Clone, Copy)]
pub(super) struct Surroundings {
    /// `None` where they could not be read.
    pub(super) dimensions: Option<u16>,
    /// Whether statements have sessions of their own: `sink.postgres.prepared`.
    pub(super) prepared: bool,
}

/// Reads the block. `Some(None)` for no index.
pub(super) fn read(
    field: &Field<'_>,
    around: Surroundings,
    report: &mut Report,
) -> Option<Option<IndexSettings>> {
    let index = Section::open(field.node, &field.path, field.key_at, "embedsink.tables.*.index", report)?;
    let kind = match index.get("kind") {
        Some(field) => {
            let words = [("hnsw", Kind::Hnsw), ("ivfflat", Kind::Ivfflat), ("none", Kind::None)];
            field.choice(&words, report)?
        }
        None => Kind::Hnsw,
    };
    if kind == Kind::None {
        return Some(None);
    }
    let metric = read_metric(&index, kind, report);
    let method = read_method(&index, kind, report);
    let build = read_build(&index, kind, around.prepared, report);
    let maintenance_memory = match index.get("maintenance-memory") {
        Some(field) => field.size(&MEMORY, report),
        None => Some(1 << 30),
    };
    let workers = match index.get("workers") {
        Some(field) => field.count(&WORKERS, report).map(Some),
        None => Some(None),
    };
    if let Some(dimensions) = around.dimensions.filter(|dimensions| *dimensions > MOST_DIMENSIONS) {
        let what = format!(
            "pgvector indexes vectors of at most {MOST_DIMENSIONS} dimensions, and these have {dimensions}"
        );
        report.add(
            field.key_at,
            &field.path,
            what,
            "remove it, and build an index by hand over a shorter form: `embedding::halfvec(n)`",
        );
        return None;
    }
    Some(Some(IndexSettings {
        spec: IndexSpec { method: method?, metric: metric? },
        build: build?,
        maintenance_memory: maintenance_memory?,
        workers: workers?,
    }))
}

fn read_metric(index: &Section<'_>, kind: Kind, report: &mut Report) -> Option<Metric> {
    let Some(field) = index.get("metric") else { return Some(Metric::Cosine) };
    let words = [
        ("cosine", Metric::Cosine),
        ("l2", Metric::L2),
        ("inner-product", Metric::InnerProduct),
        ("l1", Metric::L1),
    ];
    let metric = field.choice(&words, report)?;
    if metric == Metric::L1 && kind == Kind::Ivfflat {
        field.complain(report, "pgvector has no `ivfflat` for `l1`", "give `kind: hnsw`, or another metric");
        return None;
    }
    Some(metric)
}

fn read_method(index: &Section<'_>, kind: Kind, report: &mut Report) -> Option<IndexMethod> {
    let foreign: &[&'static str] = match kind {
        Kind::Hnsw => &["lists"],
        Kind::Ivfflat | Kind::None => &["m", "ef-construction"],
    };
    let mut good = true;
    for field in foreign.iter().filter_map(|key| index.get(key)) {
        let other = if kind == Kind::Hnsw { "ivfflat" } else { "hnsw" };
        field.complain(
            report,
            format!("only an index of the kind `{other}` has it"),
            "remove it, or change `kind`",
        );
        good = false;
    }
    if kind == Kind::Ivfflat {
        let lists = match index.get("lists") {
            Some(field) => Some(field.count(&LISTS, report)?),
            None => None,
        };
        return good.then_some(IndexMethod::Ivfflat { lists });
    }
    let m = index.get("m").map_or(Some(16), |field| field.count(&M, report));
    let given = index.get("ef-construction");
    let ef_construction = given.map_or(Some(64), |field| field.count(&EF_CONSTRUCTION, report));
    let (m, ef_construction) = (m?, ef_construction?);
    if ef_construction < 2 * m {
        let field = given.or(index.get("m"))?;
        let what = format!("`ef-construction` is {ef_construction}, and pgvector wants twice `m` at least");
        field.complain(report, what, format!("give `ef-construction: {}` or more", 2 * m));
        return None;
    }
    good.then_some(IndexMethod::Hnsw { m, ef_construction })
}

fn read_build(
    index: &Section<'_>,
    kind: Kind,
    prepared: bool,
    report: &mut Report,
) -> Option<IndexBuildTime> {
    let words = [("deferred", IndexBuildTime::Deferred), ("immediate", IndexBuildTime::Immediate)];
    let field = index.get("build");
    let build = match field {
        Some(field) => field.choice(&words, report)?,
        None => IndexBuildTime::Deferred,
    };
    let complaint = match build {
        IndexBuildTime::Immediate if kind == Kind::Ivfflat => Some((
            "an `ivfflat` index is made from the rows that are there, and before the first there are none",
            "remove it, or give `kind: hnsw`",
        )),
        IndexBuildTime::Deferred if !prepared => Some((
            "a deferred build needs a session of its own, and `prepared: false` says that there is none",
            "give `build: immediate`, or connect to the server directly and remove `prepared`",
        )),
        IndexBuildTime::Immediate | IndexBuildTime::Deferred => None,
    };
    if let Some((what, fix)) = complaint {
        match field {
            Some(field) => field.complain(report, what, fix),
            None => report.add(index.at, &index.path, what, fix),
        }
        return None;
    }
    Some(build)
}
