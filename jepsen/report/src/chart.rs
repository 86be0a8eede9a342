//! The frame that all plots share: title, legend, time axis and bands, with data inside.
//!
//! Written here rather than by a plotting library, because a plot must follow the reader's light
//! or dark theme by style classes, name every mark for the pointer, and have its time axis at the
//! very pixels where the plot below has its own.

use crate::axis::{LEFT, RIGHT, TimeAxis, ValueAxis, WIDTH};
use crate::bands::{Bands, CAP};
use crate::text::{clip, escape, put};

/// Style of all plots; a page that shows plots has it in its own style.
pub(crate) const CSS: &str = include_str!("plot.css");

/// Room for a character of a label, in pixels, generously.
const CHAR: f64 = 7.0;
const TITLE_HEIGHT: f64 = 26.0;
const ROW: f64 = 18.0;
const FOOT: f64 = 40.0;

/// A plot in the making. `body` is drawn with 0 at the top of the data.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What to know of it, a line each, e.g. what was left out.
    pub notes: Vec<String>,
    /// What marks mean: a drawing within 16 by 12 pixels, and words.
    pub legend: Vec<(String, String)>,
    /// The time it covers.
    pub axis: TimeAxis,
    /// Height of its data.
    pub height: f64,
    /// Whether fault bands lie behind the data.
    pub with_bands: bool,
    /// The data.
    pub body: String,
}

impl<'a> Chart<'a> {
    /// An empty plot.
    pub fn new(title: &'a str, axis: TimeAxis, height: f64) -> Self {
        Self {
            title,
            notes: Vec::new(),
            legend: Vec::new(),
            axis,
            height,
            with_bands: true,
            body: String::new(),
        }
    }

    /// Says that there is nothing to show, and why, in little room.
    pub fn nothing(&mut self, why: &str) {
        self.height = 44.0;
        let (x, y) = ((LEFT + RIGHT) / 2.0, self.height / 2.0 + 4.0);
        let why = escape(why);
        put!(
            self.body,
            r#"<text class="note" x="{x}" y="{y}" text-anchor="middle">{why}</text>"#
        );
    }

    /// Draws the lines and texts of a value axis, `top` pixels below the top of the data.
    pub fn value_axis(&mut self, values: &ValueAxis, top: f64) {
        for (at, label) in &values.ticks {
            let y = top + values.y(*at);
            let label = escape(label);
            put!(
                self.body,
                r#"<path class="grid" d="M{LEFT},{y:.1}H{RIGHT}"/><text class="axis" x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 8.0,
                y + 4.0
            );
        }
    }

    /// The finished drawing, without style: for a page that has [`CSS`].
    pub fn render(&self, bands: &Bands<'_>) -> String {
        let mut head = String::new();
        put!(
            head,
            r#"<text class="title" x="0" y="18">{}</text>"#,
            escape(self.title)
        );
        let mut top = TITLE_HEIGHT;
        for note in &self.notes {
            put!(
                head,
                r#"<text class="note" x="0" y="{:.0}">{}</text>"#,
                top + 10.0,
                escape(note)
            );
            top += ROW;
        }
        top += legend_rows(&mut head, top, &self.legend);
        if self.with_bands {
            top += legend_rows(&mut head, top, &self.band_legend(bands));
        }
        top += 6.0;
        let shown: Vec<&str> = bands.kinds_shown(self.axis).collect();
        if self.with_bands && !shown.is_empty() {
            top += CAP * shown.len() as f64 + 2.0;
        }
        let total = top + self.height + FOOT;
        let mut out = String::with_capacity(self.body.len() + 4_096);
        put!(
            out,
            r#"<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:.0}" width="{WIDTH}" height="{total:.0}" role="img" aria-label="{}" data-from="{}" data-to="{}" data-left="{LEFT}" data-right="{RIGHT}" data-top="{top:.0}" data-bottom="{:.0}">"#,
            escape(self.title),
            self.axis.from_ns,
            self.axis.to_ns,
            top + self.height
        );
        out.push_str(&head);
        put!(out, r#"<g transform="translate(0 {top:.0})">"#);
        if self.with_bands {
            out.push_str(&bands.draw(self.axis, self.height));
        }
        self.time_axis(&mut out);
        out.push_str(&self.body);
        out.push_str("</g></svg>");
        out
    }

    fn band_legend(&self, bands: &Bands<'_>) -> Vec<(String, String)> {
        bands
            .kinds_shown(self.axis)
            .map(|kind| {
                let class = bands.class(kind);
                let mark = format!(
                    r#"<rect class="band {class}" x="0" y="0" width="16" height="12"/><path class="{class}" d="M0,.5H16"/>"#
                );
                (mark, format!("fault: {}", clip(kind, 40)))
            })
            .collect()
    }

    fn time_axis(&self, out: &mut String) {
        let height = self.height;
        put!(out, r#"<path class="grid" d="M{LEFT},{height}H{RIGHT}"/>"#);
        for (at, label) in self.axis.ticks() {
            let x = self.axis.x(at);
            put!(
                out,
                r#"<path class="grid" d="M{x:.1},0V{:.0}"/><text class="axis" x="{x:.1}" y="{:.0}" text-anchor="middle">{label}</text>"#,
                height + 5.0,
                height + 18.0
            );
        }
        put!(
            out,
            r#"<text class="axis" x="{RIGHT}" y="{:.0}" text-anchor="end">seconds since the run began</text>"#,
            height + 33.0
        );
    }
}

/// A drawing as a file of its own, with its style.
pub(crate) fn standalone(svg: &str) -> String {
    match svg.split_once('>') {
        Some((open, rest)) => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{open}><style>{CSS}</style>{PATTERNS}{rest}\n"
        ),
        None => String::new(),
    }
}

/// Stripes that tell frozen and clashing times apart from others without colour; once a page.
pub(crate) const PATTERNS: &str = concat!(
    r#"<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">"#,
    r##"<rect width="2" height="6" fill="#000" opacity=".55"/></pattern>"##,
    r#"<pattern id="clash" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">"#,
    r##"<rect width="7" height="7" fill="#e3000b"/><rect width="3" height="7" fill="#fff"/></pattern></defs>"##
);

/// Draws keys from left to right, as many rows as they need; tells their height.
fn legend_rows(out: &mut String, top: f64, keys: &[(String, String)]) -> f64 {
    if keys.is_empty() {
        return 0.0;
    }
    let (mut x, mut y) = (LEFT, top);
    for (mark, label) in keys {
        let width = 24.0 + CHAR * label.chars().count() as f64 + 14.0;
        if x + width > RIGHT && x > LEFT {
            x = LEFT;
            y += ROW;
        }
        put!(
            out,
            r#"<g transform="translate({x:.0} {y:.0})">{mark}<text x="22" y="10">{}</text></g>"#,
            escape(label)
        );
        x += width;
    }
    y + ROW - top
}

/// A key for a filled box.
pub(crate) fn box_key(class: &str) -> String {
    format!(r#"<rect class="{class}" x="0" y="0" width="16" height="12"/>"#)
}

/// A key for a line.
pub(crate) fn line_key(class: &str) -> String {
    format!(r#"<path class="line {class}" d="M0,6H16"/>"#)
}
