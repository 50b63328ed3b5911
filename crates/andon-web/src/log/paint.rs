//! A line of output with its colours. Of what a terminal would do nothing else is done: no cursor moves, no title, no link, no character that is
//! not to be seen. (Select Graphic Rendition of ECMA-48, its sixteen foreground colours and bold.)

use maud::{Markup, html};

/// The longest sequence that is read as one, in characters: what is longer is text.
const SEQUENCE: usize = 64;

/// Colours as they are at this point of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paint {
    /// 0 to 15; none: that of text.
    colour: Option<u8>,
    bold: bool,
}

impl Paint {
    /// The classes of text that looks so; none where it looks like any other.
    fn classes(self) -> Option<String> {
        let colour = self.colour.map(|colour| format!("c{colour}"));
        match (colour, self.bold) {
            (None, false) => None,
            (Some(colour), false) => Some(colour),
            (None, true) => Some("b".into()),
            (Some(colour), true) => Some(colour + " b"),
        }
    }

    /// Takes in the numbers between `[` and `m`.
    fn set(&mut self, numbers: &str) {
        let mut numbers = numbers
            .split([';', ':'])
            .map(|number| if number.is_empty() { Ok(0) } else { number.parse::<u16>() });
        while let Some(number) = numbers.next() {
            match number {
                Ok(0) => *self = Paint::default(),
                Ok(1) => self.bold = true,
                Ok(22) => self.bold = false,
                Ok(39) => self.colour = None,
                Ok(code @ 30..=37) => self.colour = Some((code - 30) as u8),
                Ok(code @ 90..=97) => self.colour = Some((code - 82) as u8),
                // Of the large palettes the first sixteen are ours.
                Ok(38 | 48) => match numbers.next() {
                    Some(Ok(5)) => {
                        let colour = numbers.next();
                        if let (Ok(38), Some(Ok(colour @ 0..=15))) = (number, colour) {
                            self.colour = Some(colour as u8);
                        }
                    }
                    Some(Ok(2)) => drop(numbers.by_ref().take(3).count()),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

/// What a line is made of.
enum Part {
    Text(String),
    Colour(String),
}

fn parts(line: &[u8]) -> Vec<Part> {
    let text = String::from_utf8_lossy(line);
    let (mut parts, mut plain) = (Vec::new(), String::new());
    let mut chars = text.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                let mut numbers = String::new();
                let end = loop {
                    match chars.next() {
                        Some(c @ '@'..='~') => break Some(c),
                        Some(c) if numbers.len() < SEQUENCE => numbers.push(c),
                        _ => break None,
                    }
                };
                if end == Some('m') {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Colour(numbers));
                }
            }
            // Of a title or a link (OSC) only its text is left out: it ends with BEL or ST.
            '\u{1b}' if chars.peek() == Some(&']') => {
                let mut before = ' ';
                for c in chars.by_ref() {
                    if c == '\u{7}' || (before == '\u{1b}' && c == '\\') {
                        break;
                    }
                    before = c;
                }
            }
            '\t' => plain.push('\t'),
            // What a progress bar wrote over: the last state of the line is what a reader would have seen.
            '\r' => {
                plain.clear();
                parts.retain(|part| matches!(part, Part::Colour(_)));
            }
            c if c.is_control() || is_invisible(c) => plain.push('\u{fffd}'),
            c => plain.push(c),
        }
    }
    parts.push(Part::Text(plain));
    parts
}

/// Characters that turn the direction of text or hide in it: with them a line reads as something that it is not.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The line with its colours, from what they are and to what it leaves them at.
pub fn line(line: &[u8], paint: &mut Paint) -> Markup {
    html! {
        @for part in parts(line) {
            @match part {
                Part::Colour(numbers) => { ({ paint.set(&numbers); "" }) }
                Part::Text(text) => @if !text.is_empty() { @match paint.classes() { Some(classes) => span class=(classes) { (text) }, None => (text) } }
            }
        }
    }
}

/// The line's text alone.
pub fn plain(line: &[u8]) -> String {
    let text = |part| match part {
        Part::Text(text) => Some(text),
        Part::Colour(_) => None,
    };
    parts(line).into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(text: &str) -> String {
        line(text.as_bytes(), &mut Paint::default()).0
    }

    #[test]
    fn colours_are_shown_and_go_on_until_they_end() {
        let mut paint = Paint::default();
        assert_eq!(
            line(b"\x1b[1;31mred\x1b[0m plain \x1b[92mgreen", &mut paint).0,
            "<span class=\"c1 b\">red</span> plain <span class=\"c10\">green</span>"
        );
        assert_eq!(line(b"still", &mut paint).0, "<span class=\"c10\">still</span>");
        assert_eq!(
            painted("\x1b[38;5;4mblue\x1b[48;5;1m \x1b[38;2;1;2;3mown\x1b[mx"),
            "<span class=\"c4\">blue</span><span class=\"c4\"> </span><span class=\"c4\">own</span>x"
        );
    }

    #[test]
    fn nothing_else_that_a_terminal_does_is_done() {
        assert_eq!(plain(b"\x1b[2J\x1b[1;1Hhome\x1b[K"), "home");
        assert_eq!(plain(b"\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"), "textlink");
        assert_eq!(plain(b"10%\r50%\r100%\r"), "100%");
        assert_eq!(plain("a\u{202e}b\u{7}c".as_bytes()), "a\u{fffd}b\u{fffd}c");
        assert_eq!(plain(b"\xff\x1b["), "\u{fffd}");
        assert_eq!(painted("<script>&"), "&lt;script&gt;&amp;");
    }
}
