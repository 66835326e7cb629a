//! From a text to the pieces that are spoken one after the other. Pure.
//!
//! Sentences are those of Unicode (UAX #29, by the crate `unicode-segmentation`). Very short ones go along with the next, since a voice that begins
//! anew for every "Yes." sounds clipped, and since "Dr." is a sentence to Unicode. Very long ones are cut at a mark, else between two words,
//! because the time to the first sound and the memory of a run grow with the piece. Numbers and abbreviations stay as they are: espeak-ng reads them.

use unicode_segmentation::UnicodeSegmentation as _;

/// Most characters of a text: some ten minutes of speech.
pub const TEXT_CHARS_MAX: usize = 10_000;

/// Most characters of a piece, and so of a word: some twelve seconds of speech.
pub const PIECE_CHARS_MAX: usize = 200;

/// A piece below this goes along with the next sentence.
const PIECE_CHARS_MIN: usize = 24;

/// Why a text cannot be cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// There is nothing but blanks.
    Empty,
    /// It is longer than [`TEXT_CHARS_MAX`].
    Text { chars: usize },
    /// A word is longer than [`PIECE_CHARS_MAX`].
    Word { chars: usize },
}

/// The pieces of a text, in order, none of them empty.
pub(super) fn pieces(text: &str) -> Result<Vec<String>, Unfit> {
    let chars = text.chars().count();
    if chars > TEXT_CHARS_MAX {
        return Err(Unfit::Text { chars });
    }
    let mut pieces: Vec<String> = Vec::new();
    let mut short = String::new();
    for sentence in text.split_sentence_bounds() {
        let sentence = plain(sentence);
        if sentence.is_empty() {
            continue;
        }
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(&sentence);
        if count(&short) >= PIECE_CHARS_MIN {
            cut(std::mem::take(&mut short), &mut pieces)?;
        }
    }
    if !short.is_empty() {
        // What is left at the end goes along with what is before it.
        match pieces
            .last_mut()
            .filter(|last| count(last) + 1 + count(&short) <= PIECE_CHARS_MAX)
        {
            Some(last) if count(&short) < PIECE_CHARS_MIN / 2 => {
                last.push(' ');
                last.push_str(&short);
            }
            _ => cut(short, &mut pieces)?,
        }
    }
    if pieces.is_empty() {
        Err(Unfit::Empty)
    } else {
        Ok(pieces)
    }
}

/// A text without control characters (to espeak-ng some are commands), and with one blank where there were several.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for word in text.split(|letter: char| letter.is_whitespace() || letter.is_control()) {
        if !word.is_empty() {
            if !plain.is_empty() {
                plain.push(' ');
            }
            plain.push_str(word);
        }
    }
    plain
}

fn count(text: &str) -> usize {
    text.chars().count()
}

/// Cuts what is too long: behind the last mark that leaves enough before it, else behind the last word.
fn cut(mut text: String, pieces: &mut Vec<String>) -> Result<(), Unfit> {
    while count(&text) > PIECE_CHARS_MAX {
        let limit = text
            .char_indices()
            .nth(PIECE_CHARS_MAX)
            .map_or(text.len(), |(at, _)| at);
        let head = &text[..limit];
        let marked = head
            .char_indices()
            .filter(|(_, letter)| is_mark(*letter))
            .map(|(at, letter)| at + letter.len_utf8())
            .rfind(|at| count(&text[..*at]) >= PIECE_CHARS_MIN && text[*at..].starts_with(' '));
        let between = || {
            // A word that is cut off by the limit itself is not whole.
            let bounds = text.split_word_bound_indices().map(|(at, _)| at);
            bounds
                .take_while(|at| *at <= limit)
                .filter(|at| *at > 0)
                .last()
        };
        let Some(at) = marked.or_else(between) else {
            let word = text.split_word_bounds().next().unwrap_or_default();
            return Err(Unfit::Word { chars: count(word) });
        };
        let rest = text.split_off(at);
        pieces.push(text.trim().to_owned());
        text = rest.trim().to_owned();
    }
    if !text.is_empty() {
        pieces.push(text);
    }
    Ok(())
}

/// Where a clause ends, and the mark as voices know it.
pub(super) fn mark(letter: char) -> Option<char> {
    Some(match letter {
        '.' | '…' | '。' | '．' | '।' => '.',
        ',' | '、' | '，' | '،' | '—' | '–' => ',',
        ';' | '；' | '؛' => ';',
        ':' | '：' => ':',
        '?' | '？' | '؟' => '?',
        '!' | '！' => '!',
        _ => return None,
    })
}

fn is_mark(letter: char) -> bool {
    mark(letter).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_are_pieces_and_very_short_ones_go_along() {
        let text =
            "The lamp in the hall is on now. Dr. Smith has come at 3.30 p.m. to see it.\nYes.";
        assert_eq!(
            pieces(text).unwrap(),
            [
                "The lamp in the hall is on now.",
                "Dr. Smith has come at 3.30 p.m. to see it. Yes."
            ]
        );
        assert_eq!(pieces("Yes."), Ok(vec!["Yes.".to_owned()]));
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_mark_or_between_words_and_a_word_never() {
        let clause = "and the lamp is on, ".repeat(20);
        let cut = pieces(&clause).unwrap();
        assert!(cut.iter().all(|piece| piece.ends_with(',')), "{cut:?}");
        let words = "lamp ".repeat(100);
        assert_eq!(pieces(&words).unwrap().join(" "), words.trim());
        let word = "a".repeat(PIECE_CHARS_MAX + 1);
        assert_eq!(
            pieces(&word),
            Err(Unfit::Word {
                chars: PIECE_CHARS_MAX + 1
            })
        );
        assert_eq!(
            pieces(&"a ".repeat(TEXT_CHARS_MAX)),
            Err(Unfit::Text {
                chars: 2 * TEXT_CHARS_MAX
            })
        );
        for empty in ["", " \n\t", "\u{1}\u{7f}"] {
            assert_eq!(pieces(empty), Err(Unfit::Empty), "{empty:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_added_and_every_piece_is_within_its_limits(text in "(\\PC{0,40}|[a-z]{1,9}|[.,;:?! \\n]|[一-龥]){0,400}") {
            match pieces(&text) {
                Ok(pieces) => {
                    let blank = |letter: &char| letter.is_whitespace() || letter.is_control();
                    let before: String = text.chars().filter(|letter| !blank(letter)).collect();
                    let after: String = pieces.concat().chars().filter(|letter| !blank(letter)).collect();
                    prop_assert_eq!(before, after);
                    prop_assert!(pieces.iter().all(|piece| (1..=PIECE_CHARS_MAX).contains(&count(piece))));
                    prop_assert!(pieces.iter().all(|piece| !piece.chars().any(char::is_control)));
                }
                Err(Unfit::Empty) => prop_assert!(plain(&text).is_empty()),
                Err(Unfit::Text { chars }) => prop_assert!(chars > TEXT_CHARS_MAX),
                Err(Unfit::Word { chars }) => prop_assert!(chars > PIECE_CHARS_MAX),
            }
        }
    }
}
