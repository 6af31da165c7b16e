//! The figure: a panel for each thing that is to stay flat, over one axis of commits.

use super::Look;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const PANEL: f64 = 80.0;
const GAP: f64 = 32.0;

struct Panel {
    title: &'static str,
    value: fn(&Look) -> f64,
}

const PANELS: [Panel; 6] = [
    Panel { title: "versions kept", value: |look| look.versions as f64 },
    Panel { title: "files", value: |look| look.files as f64 },
    Panel { title: "on disk, MiB", value: |look| look.disk_mib as f64 },
    Panel { title: "resident memory, MiB", value: |look| look.resident_mib as f64 },
    Panel { title: "a commit of the fifty before, ms", value: |look| look.write_ms },
    Panel { title: "a search for 10 rows, ms", value: |look| look.search_ms },
];

/// Draws it as SVG.
pub(crate) fn draw(title: &str, looks: &[Look]) -> String {
    let commits = looks.last().map_or(1, |look| look.commit.max(1)) as f64;
    let x = |commit: u64| LEFT + commit as f64 / commits * (WIDTH - LEFT - RIGHT);
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP) + 14.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    for (number, panel) in PANELS.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP);
        let bottom = top + PANEL;
        let most = looks.iter().map(panel.value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let points = looks.iter().map(|look| {
            let y = bottom - (panel.value)(look) / most * PANEL;
            format!("{:.1},{y:.1}", x(look.commit))
        });
        let points: Vec<String> = points.collect();
        let right = WIDTH - RIGHT;
        svg.push_str(&format!(
            "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n\
             <text x=\"{tick}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{tick}\" y=\"{bottom:.1}\" text-anchor=\"end\">0</text>\n\
             <path d=\"M{LEFT},{top:.1}V{bottom:.1}H{right}\" fill=\"none\" stroke=\"#999\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"1.5\"/>\n",
            top - 6.0,
            panel.title,
            top + 10.0,
            rounded(most),
            points.join(" "),
            tick = LEFT - 6.0,
        ));
    }
    svg.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">commit {commits}</text>\n</svg>\n",
        WIDTH - RIGHT,
        height - 22.0
    ));
    svg
}

/// Three digits are enough to read.
fn rounded(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
