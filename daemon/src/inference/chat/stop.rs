//! Stop strings: where an answer's text ends because the caller said so.
//!
//! Pure. Text comes in pieces, a stop string may be spread over several; what could still become one is held back, everything else
//! is handed on at once.

/// Most stop strings in one request (OpenAI's API takes 4).
pub const STOPS_MAX: usize = 16;

/// Longest stop string, in bytes.
pub const STOP_BYTES_MAX: usize = 256;

/// What came of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// This much can be handed on, perhaps nothing; the answer goes on.
    On(String),
    /// The answer ends after this text; the stop string and what followed it are left out.
    Stopped(String),
}

/// Looks for the stop strings of one answer.
#[derive(Debug, Default)]
pub(super) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Empty stop strings are left out: they would stop everything at once.
    pub(super) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            held: String::new(),
        }
    }

    /// Takes the next piece of text.
    pub(super) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Passed::Stopped(std::mem::take(&mut self.held));
        }
        let kept = self.beginnings();
        let rest = self.held.split_off(self.held.len() - kept);
        Passed::On(std::mem::replace(&mut self.held, rest))
    }

    /// The answer ended in another way: what was held back belongs to it.
    pub(super) fn finish(self) -> String {
        self.held
    }

    /// Length in bytes of the longest end of the held text that is the beginning of a stop string.
    fn beginnings(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let text = &self.held;
        (text.len().saturating_sub(longest)..text.len())
            .filter(|&at| text.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&text[at..])))
            .map_or(0, |at| text.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut watch = StopStrings::new(&stops);
        let mut out = Vec::new();
        for piece in pieces {
            match watch.push(piece) {
                Passed::On(text) => out.push(text),
                Passed::Stopped(text) => {
                    out.push(text);
                    return (out, true);
                }
            }
        }
        out.push(watch.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_left_out_whole() {
        let (out, stopped) = run(&["</answer>"], &["do it</", "ans", "wer> and more"]);
        assert_eq!((out.concat().as_str(), stopped), ("do it", true));
    }

    #[test]
    fn text_that_cannot_become_a_stop_string_is_not_held_back() {
        let (out, stopped) = run(&["###"], &["a#", "b"]);
        assert_eq!(out, ["a", "#b", ""]);
        assert!(!stopped);
    }

    #[test]
    fn the_earliest_of_several_stops() {
        let (out, _) = run(&["world", "o"], &["hello world"]);
        assert_eq!(out.concat(), "hell");
    }

    proptest! {
        /// Against the plain definition: the text up to the first occurrence of any stop string.
        #[test]
        fn however_the_text_is_cut_it_ends_where_the_whole_text_would(
            text in "[abé]{0,30}", stops in prop::collection::vec("[abé]{1,4}", 0..4), cuts in prop::collection::vec(1usize..4, 30)
        ) {
            let first = stops.iter().filter_map(|stop| text.find(stop)).min();
            let chars: Vec<char> = text.chars().collect();
            let mut pieces = Vec::new();
            let mut rest = &chars[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.iter().collect::<String>());
                rest = after;
            }
            pieces.push(rest.iter().collect());
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (out, stopped) = run(&stops, &pieces);
            prop_assert_eq!(stopped, first.is_some());
            // A stop string that begins earlier may end later than another one: what was cut decides which is seen first,
            // and no text after the end of the first complete one is ever handed out.
            let first_end = stops.iter().filter_map(|stop| text.find(stop).map(|at| at + stop.len())).min();
            let got = out.concat();
            prop_assert!(text.starts_with(&got));
            match (first, first_end) {
                (Some(_), Some(end)) => prop_assert!(got.len() < end, "{got:?} of {text:?}"),
                _ => prop_assert_eq!(got, text),
            }
            prop_assert!(stops.iter().all(|stop| !out.concat().contains(stop)));
        }
    }
}
