//! A sentence as tokens: lower case, contractions expanded, numbers and quotations recognised.
//!
//! Nothing is understood here; [`super::clause`] gives the tokens their parts.

use super::wording::Wording;

/// The longest sentence that is looked at, in bytes; spoken commands have under 200.
pub(super) const UTTERANCE_BYTES_MAX: usize = 2000;
/// The most tokens of a sentence; the embedding model reads 256 word pieces.
pub(super) const TOKENS_MAX: usize = 200;

/// How much, as it was said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    /// A plain number.
    Number(f64),
    /// A part of the range, 0 to 1 ("half").
    Fraction(f64),
}

/// One piece of a sentence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    /// The normal form; `#` for numbers and quotations.
    pub text: String,
    /// What it is.
    pub kind: TokenKind,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// A word.
    Word,
    /// A number with the name of its unit in the wording.
    Number {
        /// How much.
        amount: Amount,
        /// Key of [`Wording::units`].
        unit: Option<String>,
        /// The person's words for it.
        said: String,
    },
    /// A quotation, as it was written.
    Quote(String),
    /// Punctuation that ends a clause.
    Break,
}

impl Token {
    fn word(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            kind: TokenKind::Word,
        }
    }

    /// Whether it is a word.
    pub(super) fn is_word(&self) -> bool {
        self.kind == TokenKind::Word
    }
}

impl AsRef<str> for Token {
    /// Breaks and numbers match no word of a list.
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// Splits a sentence into words, raw numbers, quotations and breaks; contractions expanded,
/// possessive endings dropped. Numbers in words are still words.
pub(super) fn tokenise(utterance: &str, wording: &Wording) -> Vec<Token> {
    let mut end = utterance.len().min(UTTERANCE_BYTES_MAX);
    while !utterance.is_char_boundary(end) {
        end -= 1;
    }
    let chars: Vec<char> = utterance[..end]
        .chars()
        .map(|c| match c {
            '’' | '‘' => '\'',
            '“' | '”' | '„' | '«' | '»' => '"',
            '−' | '–' => '-',
            c => c,
        })
        .collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() && tokens.len() < TOKENS_MAX {
        at = match quotation(&chars, at) {
            Some((text, next)) => {
                tokens.push(Token {
                    text: "#".into(),
                    kind: TokenKind::Quote(text),
                });
                next
            }
            None => plain(&chars, at, wording, &mut tokens),
        };
    }
    tokens
}

/// A quotation that starts at `at`; an apostrophe inside a word starts none.
fn quotation(chars: &[char], at: usize) -> Option<(String, usize)> {
    let mark = chars[at];
    let opens = at == 0 || !chars[at - 1].is_alphanumeric();
    if !(mark == '"' || mark == '\'' && opens) {
        return None;
    }
    let length = chars[at + 1..].iter().enumerate().position(|(i, c)| {
        let next = chars.get(at + 2 + i);
        *c == mark && (mark == '"' || next.is_none_or(|c| !c.is_alphanumeric()))
    })?;
    let text: String = chars[at + 1..at + 1 + length].iter().collect();
    Some((text.trim().to_owned(), at + 2 + length))
}

fn plain(chars: &[char], at: usize, wording: &Wording, tokens: &mut Vec<Token>) -> usize {
    let c = chars[at];
    if c.is_ascii_digit() || c == '-' && chars.get(at + 1).is_some_and(char::is_ascii_digit) {
        return number(chars, at, tokens);
    }
    if c.is_alphabetic() || c == '°' {
        let mut end = at + 1;
        while end < chars.len() && in_word(chars, end) {
            end += 1;
        }
        let word: String = chars[at..end].iter().collect::<String>().to_lowercase();
        push_word(&word, wording, tokens);
        return end;
    }
    match c {
        '%' => tokens.push(Token::word("%")),
        ',' | ';' | '.' | '!' | '?' | ':' | '\n' => tokens.push(Token {
            text: c.to_string(),
            kind: TokenKind::Break,
        }),
        _ => {}
    }
    at + 1
}

/// Apostrophes and slashes belong to a word when letters stand on both sides ("mm/s").
fn in_word(chars: &[char], at: usize) -> bool {
    let c = chars[at];
    c.is_alphanumeric()
        || matches!(c, '\'' | '/') && chars.get(at + 1).is_some_and(|next| next.is_alphabetic())
}

fn number(chars: &[char], at: usize, tokens: &mut Vec<Token>) -> usize {
    let mut end = at + 1;
    let mut pointed = false;
    while let Some(c) = chars.get(end) {
        let more = chars.get(end + 1).is_some_and(char::is_ascii_digit);
        match c {
            c if c.is_ascii_digit() => {}
            '.' | ',' if more && !pointed => pointed = true,
            _ => break,
        }
        end += 1;
    }
    let said: String = chars[at..end].iter().collect();
    if let Ok(value) = said.replace(',', ".").parse::<f64>() {
        tokens.push(Token {
            text: "#".into(),
            kind: TokenKind::Number {
                amount: Amount::Number(value),
                unit: None,
                said,
            },
        });
    }
    end
}

fn push_word(word: &str, wording: &Wording, tokens: &mut Vec<Token>) {
    let grammar = &wording.grammar;
    let expanded = grammar.contractions.get(word).map_or(word, String::as_str);
    for part in expanded.split_whitespace() {
        let stem = grammar
            .possessives
            .iter()
            .find_map(|ending| part.strip_suffix(ending.as_str()))
            .filter(|stem| !stem.is_empty());
        tokens.push(Token::word(stem.unwrap_or(part)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::recognise_numbers;
    use super::*;

    fn numbers(text: &str) -> Vec<(Amount, Option<String>)> {
        let wording = Wording::english();
        recognise_numbers(tokenise(text, &wording), &wording)
            .into_iter()
            .filter_map(|token| match token.kind {
                TokenKind::Number { amount, unit, .. } => Some((amount, unit)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn numbers_are_read_in_digits_and_words() {
        let plain = |value| (Amount::Number(value), None);
        assert_eq!(numbers("to 40"), [plain(40.0)]);
        assert_eq!(numbers("to 21.5"), [plain(21.5)]);
        assert_eq!(numbers("to 21,5"), [plain(21.5)]);
        assert_eq!(numbers("to -5"), [plain(-5.0)]);
        assert_eq!(numbers("minus five"), [plain(-5.0)]);
        assert_eq!(numbers("seventy five"), [plain(75.0)]);
        assert_eq!(numbers("twenty-one and a half"), [plain(21.5)]);
        assert_eq!(numbers("nineteen point two five"), [plain(19.25)]);
        assert_eq!(numbers("one hundred and twenty"), [plain(120.0)]);
        assert_eq!(numbers("half"), [(Amount::Fraction(0.5), None)]);
        assert_eq!(numbers("a quarter"), [(Amount::Fraction(0.25), None)]);
        assert_eq!(numbers("three quarters"), [(Amount::Fraction(0.75), None)]);
    }

    #[test]
    fn units_belong_to_the_number_before_them() {
        let with = |value, unit: &str| [(Amount::Number(value), Some(unit.to_owned()))];
        assert_eq!(numbers("20%"), with(20.0, "percent"));
        assert_eq!(numbers("20 °C"), with(20.0, "celsius"));
        assert_eq!(numbers("40 mm/s"), with(40.0, "millimetre_per_second"));
        assert_eq!(numbers("half an hour"), with(0.5, "hour"));
        assert_eq!(numbers("ten minutes"), with(10.0, "minute"));
    }

    #[test]
    fn the_other_one_is_no_number() {
        assert_eq!(numbers("the other one"), []);
        assert_eq!(numbers("the desk one"), []);
        assert_eq!(numbers("set it to one"), [(Amount::Number(1.0), None)]);
    }

    #[test]
    fn quotations_are_kept_as_written() {
        let wording = Wording::english();
        for text in ["write \"Don't Panic\" now", "write 'Don't Panic' now"] {
            let quote = tokenise(text, &wording)
                .into_iter()
                .find_map(|token| match token.kind {
                    TokenKind::Quote(quote) => Some(quote),
                    _ => None,
                });
            assert_eq!(quote.as_deref(), Some("Don't Panic"), "{text}");
        }
    }

    #[test]
    fn contractions_are_expanded_and_possessives_dropped() {
        let wording = Wording::english();
        let words: Vec<String> = tokenise("Don't touch the thermostat's mode", &wording)
            .into_iter()
            .map(|token| token.text)
            .collect();
        assert_eq!(words, ["do", "not", "touch", "the", "thermostat", "mode"]);
    }
}
