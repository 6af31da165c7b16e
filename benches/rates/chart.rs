//! The figure: groups of bars, each group with a scale of its own.

use std::fmt::Write;

use crate::report::Report;
use crate::shape::Shape;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 48.0;
const BAR: f64 = 18.0;
const STEP: f64 = 25.0;
const HEAD: f64 = 26.0;
const GAP: f64 = 20.0;
const OURS: &str = "#1f6f8b";
const THEIRS: &str = "#b8bfc6";
const CEILING: &str = "#5d6d7e";

struct Bar {
    label: String,
    figure: String,
    colour: &'static str,
}

impl Bar {
    fn new(label: &str, figure: &str, colour: &'static str) -> Self {
        Self { label: label.to_owned(), figure: figure.to_owned(), colour }
    }
}

struct Group {
    title: &'static str,
    bars: Vec<Bar>,
}

fn groups() -> Vec<Group> {
    let mut shapes = vec![
        Bar::new("binary COPY, rows already encoded", "copy_rows_per_s", CEILING),
        Bar::new("embedsink, from Kafka", "end_to_end_rows_per_s", OURS),
    ];
    shapes.extend(
        Shape::ALL.iter().map(|shape| Bar::new(shape.title(), &format!("shapes.{}", shape.key()), THEIRS)),
    );
    let kinds = [("384 dimensions", ""), ("768", "_768"), ("1536", "_1536")];
    let mut backlogs = Vec::new();
    for (length, suffix) in kinds {
        for (kind, name) in [
            ("COPY", "copy_rows_per_s"),
            ("fresh", "end_to_end_rows_per_s"),
            ("unchanged", "replay_rows_per_s"),
            ("half changed", "half_changed_rows_per_s"),
            ("metadata only", "metadata_only_rows_per_s"),
        ] {
            let colour = if kind == "COPY" { CEILING } else { OURS };
            backlogs.push(Bar::new(&format!("{kind}, {length}"), &format!("{name}{suffix}"), colour));
        }
    }
    vec![
        Group { title: "Fresh rows of 384 dimensions, rows/s (grey: fed from memory)", bars: shapes },
        Group { title: "From Kafka, records/s", bars: backlogs },
        Group {
            title: "New metadata below an HNSW index, rows/s",
            bars: vec![
                Bar::new("embedsink, 384 dimensions", "metadata_only_hnsw_rows_per_s", OURS),
                Bar::new("blind upsert, 384 dimensions", "blind_hnsw_rows_per_s", THEIRS),
                Bar::new("embedsink, 768 dimensions", "metadata_only_hnsw_rows_per_s_768", OURS),
                Bar::new("blind upsert, 768 dimensions", "blind_hnsw_rows_per_s_768", THEIRS),
            ],
        },
        Group {
            title: "An empty table until it is searchable by HNSW, seconds",
            bars: vec![
                Bar::new("COPY, then the index by hand", "load_then_index_seconds", CEILING),
                Bar::new("embedsink, index deferred", "backfill_seconds", OURS),
                Bar::new("embedsink, index from the beginning", "backfill_incremental_seconds", THEIRS),
            ],
        },
        Group {
            title: "Produced to visible at 500 records/s, milliseconds",
            bars: vec![
                Bar::new("half of the records", "p50_visible_ms", OURS),
                Bar::new("99 of 100", "p99_visible_ms", OURS),
                Bar::new("the slowest", "max_visible_ms", OURS),
            ],
        },
    ]
}

/// Draws what was measured, as SVG.
pub(crate) fn draw(report: &Report, title: &str) -> String {
    let mut groups = groups();
    for group in &mut groups {
        group.bars.retain(|bar| report.median(&bar.figure).is_some());
    }
    groups.retain(|group| !group.bars.is_empty());
    let height = TOP + groups.iter().map(|group| HEAD + STEP * group.bars.len() as f64 + GAP).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, (20.0, 28.0), "start", 15, title);
    let mut top = TOP;
    for group in &groups {
        text(&mut svg, (20.0, top + 16.0), "start", 13, group.title);
        top += HEAD;
        let most = group
            .bars
            .iter()
            .filter_map(|bar| report.range(&bar.figure))
            .map(|(_, most)| most)
            .fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
        for bar in &group.bars {
            draw_bar(&mut svg, report, bar, top, x);
            top += STEP;
        }
        top += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

/// A bar up to the median, with a line from the least to the most.
fn draw_bar(svg: &mut String, report: &Report, bar: &Bar, top: f64, x: impl Fn(f64) -> f64) {
    let (Some(median), Some((least, most))) = (report.median(&bar.figure), report.range(&bar.figure)) else {
        return;
    };
    let (middle, end) = (top + BAR / 2.0, x(median));
    text(svg, (LEFT - 8.0, middle + 4.0), "end", 12, &bar.label);
    let (width, colour) = ((end - LEFT).max(1.0), bar.colour);
    writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
    )
    .unwrap();
    if most > least {
        let (from, to) = (x(least), x(most));
        writeln!(
            svg,
            "<path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8\" stroke=\"#222\" fill=\"none\"/>",
            middle - 4.0,
            middle - 4.0
        )
        .unwrap();
    }
    text(svg, (x(most).max(end) + 8.0, middle + 4.0), "start", 12, &crate::report::readable(median));
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, size: u32, text: &str) {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
    )
    .unwrap();
}
