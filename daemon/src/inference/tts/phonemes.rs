//! From what espeak-ng prints to the ids that a voice's graph reads. Pure.
//!
//! espeak-ng prints a line of IPA for every clause, and no marks of punctuation. Piper's voices were trained with the mark behind each clause
//! (its phonemizer gets them from a patched library), so they are taken from the text, one for each clause where there are as many, else commas between and
//! the text's last mark at the end. What is built from them is as Piper has it (`phonemes_to_ids` of rhasspy/piper-phonemize): decomposed
//! (NFD), the begin, then every phoneme, all with the pad behind them, then the end; a phoneme that the voice does not know is left out.

use unicode_normalization::UnicodeNormalization as _;

use super::sentences::mark;
use crate::inference::manifest::TtsGraph;

/// Most phonemes in a run of the graph, which bounds its memory whatever a text turns into (a number of 200 digits is half a page of words). Chosen above
/// what a piece of plain text has.
pub(in super::super) const RUN_PHONEMES_MAX: usize = 240;

/// Phonemes of one clause or word, as they came, are of a voice if no more than this part (as one in so many) of them is unknown to it.
const UNKNOWN_MAX: usize = 2;

/// The ids of a piece of text, in runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Phonemes {
    /// One after the other, each with its begin and end; none for a text in which nothing is spoken.
    pub(super) runs: Vec<Vec<i64>>,
    /// Phonemes that the voice does not know, and all.
    pub(super) unknown: usize,
    pub(super) all: usize,
}

impl Phonemes {
    /// Whether it is no text of this voice.
    pub(super) fn is_foreign(&self) -> bool {
        self.unknown * UNKNOWN_MAX > self.all
    }
}

/// `spoken` is what espeak-ng made of `text`.
pub(super) fn phonemes(text: &str, spoken: &str, graph: &TtsGraph) -> Phonemes {
    let clauses: Vec<String> = spoken
        .lines()
        .map(ipa)
        .filter(|line| !line.is_empty())
        .collect();
    let marks = marks(text);
    let aligned = marks.len() == clauses.len();
    let mut line = String::new();
    let last = clauses.len().saturating_sub(1);
    for (at, clause) in clauses.iter().enumerate() {
        line.push_str(clause);
        line.push(match (at == last, aligned) {
            (_, true) => marks[at],
            (true, false) => marks.last().copied().unwrap_or('.'),
            (false, false) => ',',
        });
        if at != last {
            line.push(' ');
        }
    }
    ids(&line, graph)
}

/// A line without the marks of a change of language, `(en)`, and without what joins or parts phonemes.
fn ipa(line: &str) -> String {
    let mut ipa = String::with_capacity(line.len());
    let mut rest = line.trim();
    while let Some((before, behind)) = rest.split_once('(') {
        let Some((_, behind)) = behind.split_once(')') else {
            break;
        };
        ipa.push_str(before);
        rest = behind;
    }
    ipa.push_str(rest);
    ipa.retain(|letter| !matches!(letter, '_' | '\u{361}' | '\u{200d}'));
    ipa
}

/// The marks at the ends of a text's clauses, as voices know them; a text that ends without one ends with a full stop.
fn marks(text: &str) -> Vec<char> {
    let mut marks: Vec<char> = Vec::new();
    let mut letters = text.trim().chars().peekable();
    let mut is_open = false;
    let mut is_marked = false;
    while let Some(letter) = letters.next() {
        match mark(letter) {
            Some(mark) if is_marked => {
                // "?!" and "...": what asks or calls is heard.
                if let Some(last) = marks.last_mut().filter(|_| "?!".contains(mark)) {
                    *last = mark;
                }
            }
            Some(mark) if is_open => {
                let behind = letters.peek().copied();
                let is_wide = !letter.is_ascii() && !matches!(letter, '—' | '–');
                if is_wide || behind.is_none_or(ends_clause) {
                    marks.push(mark);
                    (is_open, is_marked) = (false, true);
                }
            }
            _ if letter.is_alphanumeric() => (is_open, is_marked) = (true, false),
            _ => {}
        }
    }
    if is_open {
        marks.push('.');
    }
    marks
}

/// Behind a mark that ends a clause: not in "3.5" and "10:30".
fn ends_clause(letter: char) -> bool {
    letter.is_whitespace() || mark(letter).is_some() || "\"'”’»)]}".contains(letter)
}

fn ids(line: &str, graph: &TtsGraph) -> Phonemes {
    let id = |phoneme: char| graph.phonemes.get(&phoneme).map(|id| i64::from(*id));
    let own = [graph.pad, graph.begin, graph.end];
    let mut made = Phonemes::default();
    let mut known: Vec<char> = Vec::new();
    for phoneme in line.nfd().filter(|phoneme| !own.contains(phoneme)) {
        let is_known = id(phoneme).is_some();
        // Blanks and marks are no sign of a language.
        if !phoneme.is_whitespace() && mark(phoneme).is_none() {
            made.all += 1;
            made.unknown += usize::from(!is_known);
        }
        if is_known {
            known.push(phoneme);
        }
    }
    if made.all == made.unknown {
        return made;
    }
    let mut rest = known.as_slice();
    while !rest.is_empty() {
        let at = match rest.get(..RUN_PHONEMES_MAX) {
            Some(head) if rest.len() > RUN_PHONEMES_MAX => {
                let blank = head.iter().rposition(|phoneme| *phoneme == ' ');
                blank.map_or(RUN_PHONEMES_MAX, |blank| blank + 1)
            }
            _ => rest.len(),
        };
        let (run, behind) = rest.split_at(at);
        let inner = run.iter().copied();
        let padded = std::iter::once(graph.begin)
            .chain(inner)
            .flat_map(|phoneme| [phoneme, graph.pad]);
        made.runs
            .push(padded.chain([graph.end]).filter_map(id).collect());
        rest = behind;
    }
    made
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::inference::manifest::TtsScales;

    fn voice() -> TtsGraph {
        let phonemes = "_^$ .,;:?!abcdeˈː\u{327}".chars().zip(0..).collect();
        TtsGraph {
            file: String::new(),
            sample_rate_hz: 22_050,
            hop_samples: 256,
            speakers: 1,
            espeak_voice: "en-us".into(),
            pad: '_',
            begin: '^',
            end: '$',
            symbols: 256,
            scales: TtsScales {
                noise: 0.0,
                length: 1.0,
                noise_width: 0.0,
            },
            phonemes,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }

    /// The phonemes of all runs as text, without begin, pads and end.
    fn text_of(made: &Phonemes) -> String {
        let graph = voice();
        let letter = |id: &i64| {
            let mut all = graph.phonemes.iter();
            *all.find(|(_, known)| i64::from(**known) == *id).unwrap().0
        };
        let ids = made.runs.iter().flatten().map(letter);
        ids.filter(|letter| !"_^$".contains(*letter)).collect()
    }

    #[test]
    fn ids_are_begun_padded_and_ended_as_the_voice_was_trained() {
        let made = phonemes("ab", "ab", &voice());
        // ^ _ a _ b _ . _ $
        assert_eq!(made.runs, [[1, 0, 10, 0, 11, 0, 4, 0, 2]]);
    }

    #[test]
    fn marks_come_from_the_text_where_there_is_one_for_each_clause() {
        for (text, spoken, expected) in [
            ("A, be! Ca?", "a\nb\nca\n", "a, b! ca?"),
            ("3.5 ab; \"ce\": d", "a\nb\nc", "a; b: c."),
            ("What?! Ab...", "a\nb", "a! b."),
            ("Dr. A came, b", "ab\nc", "ab, c."),
            ("ab", "a\nb", "a, b."),
            ("你好。ab？", "a\nb", "a. b?"),
        ] {
            assert_eq!(
                text_of(&phonemes(text, spoken, &voice())),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn marks_of_languages_and_what_the_voice_does_not_know_are_left_out_and_counted() {
        let made = phonemes("x", "(fr)a_bx(en-us) ç", &voice());
        assert_eq!(text_of(&made), "ab c\u{327}.");
        assert_eq!((made.unknown, made.all), (1, 5));
        assert!(!made.is_foreign());
        assert!(phonemes("x", "xyz a", &voice()).is_foreign());
        assert_eq!(phonemes("...", "\n \n", &voice()), Phonemes::default());
        assert!(phonemes("x", "xyz", &voice()).runs.is_empty());
    }

    #[test]
    fn a_long_text_is_spoken_in_runs_that_break_between_words() {
        let spoken = "abcde ".repeat(200);
        let made = phonemes("a", &spoken, &voice());
        assert!(made.runs.len() > 2);
        assert_eq!(text_of(&made), format!("{}.", spoken.trim()));
        assert!(
            made.runs
                .iter()
                .all(|run| run.len() <= 2 * RUN_PHONEMES_MAX + 3)
        );
    }

    proptest! {
        #[test]
        fn whatever_is_printed_the_ids_are_the_voices_and_runs_are_bounded(text in "\\PC{0,60}", spoken in "(\\PC|[abcde \\n().,]){0,900}") {
            let graph = voice();
            let made = phonemes(&text, &spoken, &graph);
            let known: Vec<i64> = graph.phonemes.values().map(|id| i64::from(*id)).collect();
            for run in &made.runs {
                prop_assert!(run.len() >= 5 && run.len() <= 2 * RUN_PHONEMES_MAX + 3);
                prop_assert!(run.iter().all(|id| known.contains(id)));
                prop_assert_eq!((run[0], *run.last().unwrap()), (1, 2));
                prop_assert!(run.iter().skip(1).step_by(2).all(|id| *id == 0));
            }
            prop_assert!(made.unknown <= made.all);
            prop_assert_eq!(made.runs.is_empty(), made.unknown == made.all);
        }
    }
}
