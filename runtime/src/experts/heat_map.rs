//! A profile as a picture: layers by experts, one map for each kind of token that there was.

use std::fmt::Write;

use sail_ir::expert_profile::{ExpertProfile, TokenKind};

/// Pixels of a cell.
const CELL: usize = 6;
/// Pixels around and between the maps, and for numbers at their left.
const MARGIN: usize = 14;
const LEFT: usize = 34;
/// Pixels of a line of text.
const LINE: usize = 16;

/// Fills by how often an expert was chosen, in times of its even share, and up to what they count.
const FILLS: [(f64, &str, &str); 7] = [
    (0.0, "#f2f2f2", "never"),
    (0.25, "#fff3c8", "to 1/4"),
    (0.5, "#fedb85", "to 1/2"),
    (1.0, "#fdb24c", "to even"),
    (2.0, "#f4742f", "to 2"),
    (4.0, "#cf2a27", "to 4"),
    (f64::INFINITY, "#6a0a2c", "above 4"),
];

/// An SVG document.
///
/// Cells of one fill are one path, runs of them one stroke: tens of kilobytes for 48 layers of 128
/// experts.
#[must_use]
pub fn heat_map(profile: &ExpertProfile) -> String {
    let experts = profile.layers.iter().map(|row| row.counts.image.len()).max().unwrap_or(0);
    let kinds = TokenKind::ALL.into_iter().filter(|kind| *profile.tokens.of(*kind) > 0);
    let kinds: Vec<TokenKind> = kinds.collect();
    let map_height = LINE + profile.layers.len() * CELL + LINE + MARGIN;
    let width = LEFT + (experts * CELL).max(FILLS.len() * 66) + MARGIN;
    let height = MARGIN + 2 * LINE + kinds.len() * map_height + LINE;
    let mut svg = Svg(String::new());
    svg.put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">"
    ));
    svg.put(format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"));
    let title = format!(
        "{}: tokens by layer (down) and expert (across), in times of an even share",
        escaped(&profile.model.family)
    );
    svg.text((MARGIN, MARGIN), &title);
    legend(&mut svg, MARGIN + LINE);
    for (index, kind) in kinds.iter().enumerate() {
        map(&mut svg, profile, *kind, MARGIN + 3 * LINE + index * map_height);
    }
    svg.put(format_args!("</svg>"));
    svg.0
}

fn legend(svg: &mut Svg, top: usize) {
    for (index, (_, fill, name)) in FILLS.iter().enumerate() {
        let left = LEFT + 66 * index;
        let y = top - 9;
        svg.put(format_args!(
            "<rect x=\"{left}\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{fill}\" stroke=\"#999\" stroke-width=\"0.5\"/>"
        ));
        svg.text((left + 14, top), name);
    }
}

/// The map of one kind of token; `top` is the base line of its heading.
fn map(svg: &mut Svg, profile: &ExpertProfile, kind: TokenKind, top: usize) {
    svg.text((LEFT, top), &format!("{} {}", profile.tokens.of(kind), kind.name()));
    let first = top + 5;
    let bottom = first + profile.layers.len() * CELL + LINE - 5;
    let experts = profile.layers.iter().map(|row| row.counts.of(kind).len()).max().unwrap_or(0);
    for expert in (0..experts).step_by(16) {
        svg.text((LEFT + expert * CELL, bottom), &expert.to_string());
    }
    let mut paths = FILLS.map(|_| String::new());
    for (line, row) in profile.layers.iter().enumerate() {
        let counts = row.counts.of(kind);
        let middle = first + line * CELL + CELL / 2;
        if line % 4 == 0 {
            svg.text((MARGIN, middle + 4), &row.layer.to_string());
        }
        let even = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let fills: Vec<usize> = counts.iter().map(|count| fill(*count, even)).collect();
        let mut expert = 0;
        for run in fills.chunk_by(|one, other| one == other) {
            let (left, length) = (LEFT + expert * CELL, run.len() * CELL);
            write!(paths[run[0]], "M{left} {middle}h{length}").expect("a string grows");
            expert += run.len();
        }
    }
    for ((_, fill, _), path) in FILLS.iter().zip(&paths).filter(|(_, path)| !path.is_empty()) {
        svg.put(format_args!("<path stroke=\"{fill}\" stroke-width=\"{CELL}\" d=\"{path}\"/>"));
    }
}

/// Which of [`FILLS`] shows a count where `even` would be each expert's share.
fn fill(count: u64, even: f64) -> usize {
    let times = if count == 0 { 0.0 } else { count as f64 / even };
    FILLS.iter().position(|(most, ..)| times <= *most).unwrap_or(FILLS.len() - 1)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A document on its way.
struct Svg(String);

impl Svg {
    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string grows");
    }

    fn text(&mut self, (x, y): (usize, usize), text: &str) {
        self.put(format_args!("<text x=\"{x}\" y=\"{y}\">{text}</text>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_says_how_many_times_the_even_share() {
        let fills = [0, 1, 25, 26, 50, 100, 101, 200, 400, 401].map(|count| fill(count, 100.0));
        assert_eq!(fills, [0, 1, 1, 2, 2, 3, 4, 4, 5, 6]);
        assert_eq!(fill(0, 0.0), 0, "a layer without tokens");
    }
}
