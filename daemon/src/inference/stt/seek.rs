//! From the tokens of a window to segments, and to where the next window begins. Pure.
//!
//! As the model's authors do it (Radford et al. 2022, section 4.5, and their published transcription): two times in a row are the end of one segment and
//! the beginning of the next. If the window ends within a segment (behind such a pair, or with words after it that no time ends), the next window begins
//! there, so that no sentence is cut in two; otherwise all of this one was said. The end of the last window is where the sound ends, so words there need no
//! time.
//!
//! Whatever the tokens are: the next window begins later than this one, and the sound's end is reached after finitely many.

use std::ops::Range;

/// Least step from one window to the next, and least sound that is worth a window of its own at the end, in seconds. A model that claims to
/// have understood less than that goes round in circles.
const STEP_MIN_S: usize = 1;

/// What the numbers of tokens and samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) sample_rate_hz: usize,
    /// The token for the window's beginning; each further id is a time `time_samples` later.
    pub(super) first_time: u32,
    pub(super) time_samples: usize,
}

/// A window, in samples of the whole sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The sound's end.
    pub(super) total: usize,
}

/// What was said, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// In samples of the whole sound; `start <= end`, both in the window.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Which of the tokens are its words; never empty.
    pub(super) words: Range<usize>,
}

/// A window's pieces, and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) pieces: Vec<Piece>,
    /// Behind the window's start; the sound's end if there is nothing more to listen to.
    pub(super) next: usize,
}

/// What was read from a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// Without the end of text.
    pub(super) tokens: &'a [u32],
    /// Whether the model came to an end; otherwise it was stopped.
    pub(super) is_ended: bool,
}

/// Cuts what was read from a window.
pub(super) fn cut(scale: &Scale, window: Window, text: Text<'_>) -> Cut {
    let Text { tokens, is_ended } = text;
    let time = |at: usize| -> Option<usize> {
        let steps = tokens.get(at)?.checked_sub(scale.first_time)? as usize;
        let samples = steps.saturating_mul(scale.time_samples);
        Some(window.start.saturating_add(samples).min(window.end))
    };
    let step = STEP_MIN_S * scale.sample_rate_hz;
    // Where one segment ends and the next begins: behind the first of two times in a row.
    let pairs: Vec<usize> = (1..tokens.len())
        .filter(|&at| time(at - 1).is_some() && time(at).is_some())
        .collect();
    let is_last = window.end >= window.total;
    let is_open = tokens.last().is_some_and(|last| *last < scale.first_time);
    let again = pairs.last().copied().filter(|&at| {
        let is_within = at + 1 == tokens.len() || (is_open && !(is_last && is_ended));
        let reached = time(at - 1).unwrap_or(window.start);
        is_within && reached >= window.start.saturating_add(step)
    });
    let (to, reached) = match again {
        Some(at) => (at, time(at - 1).unwrap_or(window.end)),
        None => (tokens.len(), window.end),
    };
    let mut pieces = Vec::new();
    let (mut from, mut earliest) = (0, window.start);
    for to in pairs.into_iter().filter(|at| *at < to).chain([to]) {
        let words = words_of(from..to, |at| time(at).is_some());
        if !words.is_empty() {
            let start = (from..words.start).rev().find_map(time).unwrap_or(earliest);
            let start = start.max(earliest);
            let end = (words.end..to).find_map(time).unwrap_or(window.end);
            let end = end.max(start);
            earliest = end;
            pieces.push(Piece { start, end, words });
        }
        from = to;
    }
    let reached = pieces.last().map_or(reached, |last| reached.max(last.end));
    let is_done = is_last && window.total.saturating_sub(reached) < step;
    Cut {
        pieces,
        next: if is_done { window.total } else { reached },
    }
}

/// The words of a segment: what is between its first and its last one.
fn words_of(tokens: Range<usize>, is_time: impl Fn(usize) -> bool) -> Range<usize> {
    let first = tokens.clone().find(|&at| !is_time(at));
    let last = tokens.clone().rev().find(|&at| !is_time(at));
    match (first, last) {
        (Some(first), Some(last)) => first..last + 1,
        _ => tokens.start..tokens.start,
    }
}
