//! The figure: four panels over one time axis, with a mark for each fault.

use std::fmt::Write;

use super::FAULTS;
use super::sample::Sample;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 84.0;
const PANEL: f64 = 120.0;
const GAP: f64 = 34.0;
/// More points than this cannot be told apart.
const POINTS: usize = 600;
const COLOURS: [&str; 7] = ["#c0392b", "#e67e22", "#8e44ad", "#16a085", "#7f8c8d", "#2471a3", "#b7950b"];

struct Panel {
    title: &'static str,
    value: fn(&Sample) -> f64,
}

const PANELS: [Panel; 4] = [
    Panel { title: "resident memory, MiB", value: |sample| sample.memory as f64 / 1024.0 },
    Panel { title: "open file descriptors", value: |sample| sample.descriptors as f64 },
    Panel { title: "lag, thousand records", value: |sample| sample.lag as f64 / 1000.0 },
    Panel { title: "settled, thousand records per second", value: |sample| sample.rate as f64 / 1000.0 },
];

/// Draws it as SVG.
pub(crate) fn draw(samples: &[Sample], faults: &[(u64, &str)]) -> String {
    let seconds = samples.last().map_or(1, |sample| sample.second.max(1)) as f64;
    let x = |second: f64| LEFT + second / seconds * (WIDTH - LEFT - RIGHT);
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP) + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">Full load for {:.0} minutes with {} faults</text>\n",
        seconds / 60.0,
        faults.len()
    );
    legend(&mut svg);
    for (number, panel) in PANELS.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP);
        let bottom = top + PANEL;
        for (second, fault) in faults {
            let (at, colour) = (x(*second as f64), colour(fault));
            line(&mut svg, (at, top), (at, bottom), &format!("stroke=\"{colour}\" stroke-opacity=\"0.55\""));
        }
        let values = thinned(samples, panel.value);
        let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let step = step(most);
        let ceiling = (most / step).ceil().max(1.0) * step;
        let y = |value: f64| bottom - value / ceiling * PANEL;
        let mut tick = 0.0;
        while tick <= ceiling + step / 2.0 {
            line(&mut svg, (LEFT, y(tick)), (WIDTH - RIGHT, y(tick)), "stroke=\"#ddd\"");
            let digits = usize::from(step < 1.0);
            text(&mut svg, (LEFT - 6.0, y(tick) + 4.0), "end", &format!("{tick:.digits$}"));
            tick += step;
        }
        text(&mut svg, (LEFT, top - 7.0), "start", panel.title);
        let points: Vec<String> =
            values.iter().map(|(second, value)| format!("{:.1},{:.1}", x(*second), y(*value))).collect();
        let points = points.join(" ");
        writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"#1a1a1a\" stroke-width=\"1.1\"/>"
        )
        .unwrap();
        line(&mut svg, (LEFT, bottom), (WIDTH - RIGHT, bottom), "stroke=\"#222\"");
    }
    let bottom = height - 20.0 - GAP;
    let minutes = step(seconds / 60.0).max(1.0 / 6.0);
    let mut tick = 0.0;
    while tick * 60.0 <= seconds {
        let label = format!("{}", (tick * 100.0_f64).round() / 100.0);
        text(&mut svg, (x(tick * 60.0), bottom + 16.0), "middle", &label);
        tick += minutes;
    }
    text(&mut svg, (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, bottom + 34.0), "middle", "minutes since the start");
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    for (number, fault) in FAULTS.iter().enumerate() {
        let at = LEFT + number as f64 * (WIDTH - LEFT - RIGHT) / FAULTS.len() as f64;
        let style = format!("stroke=\"{}\" stroke-width=\"3\"", colour(fault));
        line(svg, (at, 44.0), (at + 12.0, 44.0), &style);
        text(svg, (at + 16.0, 48.0), "start", fault);
    }
}

fn colour(fault: &str) -> &'static str {
    FAULTS.iter().position(|known| *known == fault).map_or("#000", |number| COLOURS[number])
}

/// Means over as many seconds as give few enough points.
fn thinned(samples: &[Sample], value: fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    samples
        .chunks(samples.len().div_ceil(POINTS).max(1))
        .map(|chunk| (chunk[0].second as f64, chunk.iter().map(value).sum::<f64>() / chunk.len() as f64))
        .collect()
}

/// A round distance between ticks: three to six of them up to `most`.
fn step(most: f64) -> f64 {
    let raw = (most / 5.0).max(0.1);
    let size = 10_f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * size).find(|step| *step >= raw).unwrap_or(raw)
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>").unwrap();
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let (x, y) = at;
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>").unwrap();
}
