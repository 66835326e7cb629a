//! Numbers in words and the units after them: "twenty one and a half degrees" is one token.

use super::text::{Amount, Token, TokenKind};
use super::wording::{Numbers, Wording};

/// Turns numbers in words into number tokens and attaches units.
pub(super) fn recognise_numbers(tokens: Vec<Token>, wording: &Wording) -> Vec<Token> {
    let mut found = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let minus = wording.numbers.minus.prefix_len(&tokens[at..]);
        let sign = if minus > 0 { -1.0 } else { 1.0 };
        let Some((amount, used)) = amount(&tokens[at + minus..], found.last(), &wording.numbers)
        else {
            found.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let amount = match amount {
            Amount::Number(value) => Amount::Number(sign * value),
            Amount::Fraction(part) => Amount::Fraction(sign * part),
        };
        let start = at;
        at += minus + used;
        let (unit, amount) = attach_unit(&tokens, &mut at, amount, wording);
        let said = tokens[start..at]
            .iter()
            .map(|token| match &token.kind {
                TokenKind::Number { said, .. } => said.as_str(),
                _ => token.text.as_str(),
            })
            .collect::<Vec<_>>()
            .join(" ");
        found.push(Token {
            text: "#".into(),
            kind: TokenKind::Number { amount, unit, said },
        });
    }
    found
}

/// The unit after a number; "half an hour" is half of that unit and not of a range.
fn attach_unit(
    tokens: &[Token],
    at: &mut usize,
    amount: Amount,
    wording: &Wording,
) -> (Option<String>, Amount) {
    let article = match (amount, tokens.get(*at)) {
        (Amount::Fraction(_), Some(t)) if wording.grammar.indefinite.has(&t.text) => 1,
        _ => 0,
    };
    let rest = tokens.get(*at + article..).unwrap_or_default();
    let best = wording
        .units
        .iter()
        .map(|(key, unit)| (unit.words.prefix_len(rest), key))
        .filter(|(length, _)| *length > 0)
        .max_by_key(|(length, _)| *length);
    let Some((length, key)) = best else {
        return (None, amount);
    };
    *at += article + length;
    let amount = match amount {
        Amount::Fraction(part) => Amount::Number(part),
        number => number,
    };
    (Some(key.clone()), amount)
}

/// A number at the start of `tokens` and how many tokens it takes.
fn amount(tokens: &[Token], before: Option<&Token>, numbers: &Numbers) -> Option<(Amount, usize)> {
    let (value, mut used) = cardinal(tokens, before, numbers)?;
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let Amount::Number(mut value) = value else {
        return Some((value, used));
    };
    // "three quarters", and "twenty one and a half"
    if let Some(part) = numbers.fractions.get(text(used)) {
        return Some((Amount::Fraction(value * part), used + 1));
    }
    if text(used) == numbers.and {
        let skip = usize::from(text(used + 1).len() == 1);
        if let Some(part) = numbers.fractions.get(text(used + 1 + skip)) {
            value += part;
            used += 2 + skip;
        }
    }
    Some((Amount::Number(value), used))
}

fn cardinal(
    tokens: &[Token],
    before: Option<&Token>,
    numbers: &Numbers,
) -> Option<(Amount, usize)> {
    let first = tokens.first()?;
    if let TokenKind::Number { amount, .. } = first.kind {
        return Some((amount, 1));
    }
    if !first.is_word() {
        return None;
    }
    let text = |i: usize| {
        tokens
            .get(i)
            .filter(|token| token.is_word())
            .map_or("", |token| token.text.as_str())
    };
    if let Some(part) = numbers.fractions.get(text(0)) {
        return Some((Amount::Fraction(*part), 1));
    }
    let article = usize::from(text(0).len() == 1);
    if article == 1
        && let Some(part) = numbers.fractions.get(text(1))
    {
        return Some((Amount::Fraction(*part), 2));
    }
    let mut used = 0;
    let mut total = 0.0;
    let mut group: Option<f64> = None;
    loop {
        let word = text(used);
        if let Some(value) = numbers.words.get(word) {
            // "twenty one" adds up; "one two" are two numbers.
            match group {
                Some(tens) if *value >= 10.0 || tens % 10.0 != 0.0 || tens == 0.0 => break,
                Some(tens) => group = Some(tens + value),
                None => group = Some(*value),
            }
        } else if let Some(times) = numbers.multipliers.get(word) {
            total = (total + group.unwrap_or(1.0)) * times;
            group = None;
            if text(used + 1) == numbers.and && numbers.words.contains_key(text(used + 2)) {
                used += 1;
            }
        } else {
            break;
        }
        used += 1;
    }
    if used == 0 {
        return None;
    }
    let lone_pronoun = used == 1 && text(0) == numbers.pronoun;
    let counts = before.is_some_and(|token| numbers.before_pronoun.has(&token.text));
    let quantified = numbers.fractions.contains_key(text(1)) || text(1) == numbers.point;
    if lone_pronoun && !counts && !quantified {
        return None;
    }
    let mut value = total + group.unwrap_or(0.0);
    if text(used) == numbers.point {
        let mut scale = 0.1;
        let mut digits = 0;
        while let Some(digit) = numbers.words.get(text(used + 1 + digits)) {
            value += digit * scale;
            scale /= 10.0;
            digits += 1;
        }
        if digits > 0 {
            used += 1 + digits;
        }
    }
    Some((Amount::Number((value * 1e9).round() / 1e9), used))
}
