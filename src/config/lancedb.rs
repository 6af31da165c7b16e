//! `embedsink.sink.lancedb`, and what a table's index means there.

use std::collections::BTreeMap;
use std::path::Path;

use super::field::{Field, Key};
use super::problem::{Report, quote};
use super::section::Section;
use super::settings::{LanceIndexMethod, LanceIndexSettings, LanceMetric, LanceSettings};
use crate::framework::secret::Secret;

/// The dataset's own tables begin so.
const RESERVED: &str = "embedsink_";

/// Object stores, and the feature of this build that each needs.
const STORES: &[(&str, &str, bool)] = &[
    ("s3", "aws", cfg!(feature = "aws")),
    ("gs", "gcs", cfg!(feature = "gcs")),
    ("az", "azure", cfg!(feature = "azure")),
    ("abfss", "azure", cfg!(feature = "azure")),
];

/// Reads the section. Relative paths start at `folder`.
pub(super) fn read(lancedb: &Section<'_>, folder: &Path, report: &mut Report) -> Option<LanceSettings> {
    let uri = read_uri(lancedb, folder, report);
    let storage_options = match lancedb.get("storage-options") {
        Some(field) => read_options(field, report),
        None => Some(BTreeMap::new()),
    };
    let sole_writer = match lancedb.get("sole-writer") {
        Some(field) => field.boolean(report),
        None => Some(false),
    };
    let (uri, storage_options, sole_writer) = (uri?, storage_options?, sole_writer?);
    let is_store = uri.contains("://");
    if is_store && !sole_writer {
        let what = "missing: an object store has no lock that keeps a second writer away";
        let fix = "give `sole-writer: true` if nothing else writes there, and see to it that nothing does";
        report.add(lancedb.at, &format!("{}.sole-writer", lancedb.path), what, fix);
        return None;
    }
    if !is_store {
        let mut good = true;
        let given = [lancedb.get("storage-options"), lancedb.get("sole-writer").filter(|_| sole_writer)];
        for field in given.into_iter().flatten() {
            field.complain_at_key(
                report,
                "it is for object stores; a folder is locked, and has none",
                "remove it",
            );
            good = false;
        }
        if !good {
            return None;
        }
    }
    Some(LanceSettings { uri, storage_options, sole_writer })
}

fn read_uri(lancedb: &Section<'_>, folder: &Path, report: &mut Report) -> Option<String> {
    let field =
        lancedb.require("uri", "name a folder, such as `./data`, or an object store's URI", report)?;
    let text = field.text(report)?;
    let path = match text.split_once("://") {
        None => match plain_complaint(text) {
            None => text,
            Some((what, fix)) => {
                field.complain(report, what, fix);
                return None;
            }
        },
        Some(("file", path)) => path,
        Some((scheme, _)) => {
            let Some((_, feature, is_built)) = STORES.iter().find(|(name, ..)| *name == scheme) else {
                let what = format!("{} is no store that LanceDB knows", quote(&format!("{scheme}://")));
                field.complain(report, what, "give a folder, or a URI with s3, gs, az or abfss");
                return None;
            };
            if text.contains('@') && scheme != "abfss" {
                let what = "the URI holds a `@`, and may hold a password";
                field.complain(report, what, "give credentials as `storage-options`");
                return None;
            }
            if !is_built {
                let what = format!("this build has no {} in it", quote(&format!("{scheme}://")));
                let fix = format!("build with `cargo build --release --features {feature}`");
                field.complain(report, what, fix);
                return None;
            }
            return Some(text.to_owned());
        }
    };
    if path.is_empty() {
        field.complain(report, "it names no folder", "name one, such as `./data`");
        return None;
    }
    // `./` in the middle would only be in the way of whoever reads it in a message.
    let short = path.strip_prefix("./").filter(|short| plain_complaint(short).is_none());
    let path = folder.join(short.unwrap_or(path));
    Some(path.to_string_lossy().into_owned())
}

/// What is wrong with a folder that is given without a scheme, and how to write what was meant.
fn plain_complaint(text: &str) -> Option<(String, String)> {
    let named = format!("or {} for a folder of that name", quote(&format!("./{text}")));
    if text.starts_with('~') {
        return Some(("`~` stands for nothing here".to_owned(), format!("write the whole path, {named}")));
    }
    let (scheme, rest) = text.split_once(':')?;
    // One letter is a drive of Windows.
    let is_scheme =
        scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then(|| {
        let what = format!("{} needs `//` behind it", quote(&format!("{scheme}:")));
        let fix = match scheme {
            // It may hold a password.
            _ if rest.contains('@') => "write the scheme with `//`".to_owned(),
            "file" => format!("write {}, {named}", quote(rest)),
            _ => format!("write {}, {named}", quote(&format!("{scheme}://{}", rest.trim_start_matches('/')))),
        };
        (what, fix)
    })
}

fn read_options(field: &Field<'_>, report: &mut Report) -> Option<BTreeMap<String, Secret>> {
    let mut options = BTreeMap::new();
    let mut good = true;
    for (name, field) in field.entries(Key::Free, report)? {
        match field.hide().scalar("one value", report) {
            Some(scalar) => drop(options.insert(name, Secret::new(&scalar.text))),
            None => good = false,
        }
    }
    good.then_some(options)
}

/// What is wrong with the name of a table.
pub(super) fn name_complaint(name: &str) -> Option<(String, &'static str)> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() {
        Some(("a table needs a name".to_owned(), "give one"))
    } else if !name.chars().all(is_good) || name.contains("..") {
        let what = format!("LanceDB has no table {}", quote(name));
        Some((what, "name it with ASCII letters, digits, `_`, `-` and single `.` only"))
    } else if name.starts_with(RESERVED) {
        let what = format!("{} is among the connector's own tables in the dataset", quote(name));
        Some((what, "give a name that does not begin with `embedsink_`"))
    } else {
        None
    }
}

/// Reads a table's index. `Some(None)` for no index.
pub(super) fn read_index(field: &Field<'_>, report: &mut Report) -> Option<Option<LanceIndexSettings>> {
    let index = Section::open(field.node, &field.path, field.key_at, "embedsink.tables.*.index", report)?;
    let words = [
        ("hnsw", Some(LanceIndexMethod::HnswSq)),
        ("ivfpq", Some(LanceIndexMethod::Pq)),
        ("ivfflat", Some(LanceIndexMethod::Flat)),
        ("none", None),
    ];
    let method = match index.get("kind") {
        Some(field) => field.choice(&words, report)?,
        None => Some(LanceIndexMethod::HnswSq),
    };
    let words =
        [("cosine", LanceMetric::Cosine), ("l2", LanceMetric::L2), ("inner-product", LanceMetric::Dot)];
    let metric = match index.get("metric") {
        Some(field) => field.choice(&words, report),
        None => Some(LanceMetric::Cosine),
    };
    let mut good = true;
    for key in ["m", "ef-construction", "lists", "build", "maintenance-memory", "workers"] {
        if let Some(field) = index.get(key) {
            field.complain_at_key(
                report,
                "it is for pgvector; LanceDB sizes its index by itself",
                "remove it",
            );
            good = false;
        }
    }
    let metric = metric?;
    good.then_some(method.map(|method| LanceIndexSettings { method, metric }))
}
