//! Line charts as inline SVG: axes with round numbers, a legend, bands and marks.
//!
//! Pure text. Whatever the numbers are, the picture stays inside its frame: values that are not finite are
//! left out, and an empty chart says that it is empty.

use std::fmt::Write as _;

/// Of a page with charts.
pub(crate) const STYLE: &str = include_str!("chart/style.css");
/// Colours of the style sheet.
pub(crate) const COLOURS: usize = 8;
const WIDTH: f64 = 860.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
/// More points than this cannot be seen.
const POINTS_MAX: usize = 400;
const TICKS: usize = 5;

/// One curve.
pub(crate) struct Series {
    pub(crate) name: String,
    /// Which of the page's colours.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart over time.
#[derive(Default)]
pub(crate) struct Chart {
    pub(crate) y_label: &'static str,
    pub(crate) height: f64,
    pub(crate) series: Vec<Series>,
    /// A band of good values, and its name.
    pub(crate) band: Option<(f64, f64, &'static str)>,
    /// Moments worth a line.
    pub(crate) marks: Vec<(f64, String)>,
    /// Ends of the axes that must be seen; the data may widen them.
    pub(crate) x_range: (f64, f64),
    pub(crate) y_range: Option<(f64, f64)>,
}

/// Text that cannot end its element.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let (x, y) = self.axes();
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {h}\" role=\"img\" aria-label=\"{label}\">\n",
            h = self.height,
            label = escape(self.y_label)
        );
        self.draw_grid(&mut svg, &x, &y);
        if let Some((low, high, name)) = self.band {
            let (top, bottom) = (y.place(high), y.place(low));
            let _ = writeln!(
                svg,
                "<rect class=\"band\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - LEFT - RIGHT,
                (bottom - top).max(0.0),
                WIDTH - RIGHT - 4.0,
                top + 12.0,
                escape(name)
            );
        }
        for (at, label) in self.marks.iter().filter(|(at, _)| at.is_finite()) {
            let at = x.place(*at);
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                self.height - BOTTOM,
                at + 3.0,
                TOP + 10.0,
                escape(label)
            );
        }
        for series in &self.series {
            draw_series(&mut svg, series, &x, &y);
        }
        if self.series.iter().all(|series| series.points.is_empty()) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\">no samples</text>",
                WIDTH / 2.0,
                self.height / 2.0
            );
        }
        svg.push_str("</svg>\n");
        svg.push_str(&self.legend());
        svg
    }

    fn axes(&self) -> (Axis, Axis) {
        let (mut x, mut y) = (Some(self.x_range), self.y_range);
        let points = self.series.iter().flat_map(|series| &series.points);
        for &(at, value) in points.filter(|(at, value)| at.is_finite() && value.is_finite()) {
            x = Some(widen(x, at));
            y = Some(widen(y, value));
        }
        if let Some((low, high, _)) = self.band {
            y = Some(widen(Some(widen(y, low)), high));
        }
        (
            Axis::new(x.unwrap_or((0.0, 1.0)), LEFT, WIDTH - RIGHT),
            Axis::new(y.unwrap_or((0.0, 1.0)), self.height - BOTTOM, TOP),
        )
    }

    fn draw_grid(&self, svg: &mut String, x: &Axis, y: &Axis) {
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
                self.height - BOTTOM + 16.0,
                number(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"small\" transform=\"rotate(-90)\" x=\"{:.1}\" y=\"11\" text-anchor=\"middle\">{}</text>",
            -(TOP + self.height - BOTTOM) / 2.0,
            escape(self.y_label)
        );
    }

    fn legend(&self) -> String {
        let mut html = String::from("<p class=\"legend\">");
        for series in &self.series {
            let _ = write!(
                html,
                "<span><i class=\"c{}{}\"></i>{}</span> ",
                series.colour,
                if series.dashed { " dashed" } else { "" },
                escape(&series.name)
            );
        }
        html.push_str("</p>\n");
        html
    }
}

fn draw_series(svg: &mut String, series: &Series, x: &Axis, y: &Axis) {
    let every = series.points.len().div_ceil(POINTS_MAX).max(1);
    let points =
        series.points.iter().step_by(every).filter(|(at, value)| at.is_finite() && value.is_finite());
    let mut path = String::new();
    for (at, value) in points {
        let _ = write!(path, "{:.1},{:.1} ", x.place(*at), y.place(*value));
    }
    if !path.is_empty() {
        let _ = writeln!(
            svg,
            "<polyline class=\"line c{}{}\" points=\"{}\"><title>{}</title></polyline>",
            series.colour,
            if series.dashed { " dashed" } else { "" },
            path.trim_end(),
            escape(&series.name)
        );
    }
}

/// Values to pixels.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new((low, high): (f64, f64), from: f64, to: f64) -> Self {
        // A flat line still needs room above and below.
        let room = if high - low > 1e-9 { 0.0 } else { 0.5 };
        Self { low: low - room, high: high + room, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values inside the axis.
    fn ticks(&self) -> Vec<f64> {
        let step = round_step((self.high - self.low) / TICKS as f64);
        let first = (self.low / step).ceil();
        (0..=2 * TICKS)
            .map(|tick| (first + tick as f64) * step)
            .take_while(|tick| *tick <= self.high + step * 1e-6)
            .collect()
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(raw: f64) -> f64 {
    let power = 10_f64.powf(raw.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * power >= raw * 0.999);
    round.unwrap_or(10.0) * power
}

fn widen(range: Option<(f64, f64)>, value: f64) -> (f64, f64) {
    let (low, high) = range.unwrap_or((value, value));
    (low.min(value), high.max(value))
}

/// A tick's number, without the noise of binary fractions.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".into() } else { short.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::new((0.0, 32.0), 0.0, 1.0);
        assert_eq!(axis.ticks(), [0.0, 10.0, 20.0, 30.0]);
        let axis = Axis::new((-0.13, 0.31), 0.0, 1.0);
        assert_eq!(
            axis.ticks().iter().map(|tick| number(*tick)).collect::<Vec<_>>(),
            ["-0.1", "0", "0.1", "0.2", "0.3"]
        );
        assert_eq!(number(-0.000_01), "0");
    }

    #[test]
    fn odd_numbers_stay_inside_the_frame() {
        let odd = [(0.0, f64::NAN), (1.0, f64::INFINITY), (f64::NAN, 1.0), (2.0, 5.0), (3.0, 5.0)];
        let chart = Chart {
            y_label: "odd",
            height: 100.0,
            series: vec![Series { name: "<n0>".into(), colour: 0, dashed: false, points: odd.to_vec() }],
            marks: vec![(f64::INFINITY, "never".into())],
            ..Chart::default()
        };
        let svg = chart.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("<n0>"), "{svg}");
        assert!(svg.contains("&lt;n0&gt;") && svg.contains("<polyline"));
        let empty = Chart { height: 100.0, ..Chart::default() }.svg();
        assert!(empty.contains("no samples"));
    }
}
