//! The texts that stand for one operation: the wording's templates, filled.

use std::collections::BTreeSet;

use super::phrases::{Offer, choice_words, is_number, is_text};
use super::wording::Wording;

/// Adds the texts for `offer` of the thing that is called `thing`.
pub(super) fn offer_texts(
    offer: &Offer,
    thing: &str,
    wording: &Wording,
    texts: &mut BTreeSet<String>,
) {
    let templates = &wording.phrases;
    let mut add = |template: &str, places: &[(&str, &str)]| {
        let text = super::reply::fill(template, places);
        texts.insert(text.split_whitespace().collect::<Vec<_>>().join(" "));
    };
    let names: Vec<String> = offer.names.iter().map(|name| name.join(" ")).collect();
    if offer.is_read() {
        let boolean = offer.slots.is_empty() && offer.quantities.is_empty();
        for name in names.iter().take(2) {
            for template in &templates.read {
                add(template, &[("thing", thing), ("name", name)]);
            }
            for template in templates.read_boolean.iter().filter(|_| boolean) {
                add(template, &[("thing", thing), ("name", name)]);
            }
        }
        let measured = offer.quantities.iter().filter(|_| !offer.is_setting);
        for quantity in measured.filter_map(|key| wording.quantities.get(key)) {
            for adjective in quantity.adjectives.iter().take(3) {
                for template in &templates.read_adjective {
                    add(
                        template,
                        &[("thing", thing), ("adjective", &adjective.join(" "))],
                    );
                }
            }
        }
        return;
    }
    if !offer.takes_value() {
        let kinds = offer
            .verbs
            .iter()
            .filter_map(|verb| wording.verbs.get(verb));
        for verb in kinds.flat_map(|words| &words.templates) {
            for template in &templates.action {
                add(template, &[("thing", thing), ("verb", verb)]);
            }
        }
        for own in &offer.own {
            for template in &templates.titled {
                add(template, &[("thing", thing), ("title", &own.join(" "))]);
            }
        }
        return;
    }
    let name = names.first().map_or("", String::as_str);
    for slot in &offer.slots {
        if is_text(&slot.schema) {
            for template in &templates.text {
                add(template, &[("thing", thing)]);
            }
        } else if is_number(&slot.schema) {
            let code = slot.schema.unit.as_deref().unwrap_or("");
            let unit = wording
                .unit_by_code(code)
                .map_or(code, |unit| &unit.codes[0]);
            for template in &templates.number {
                add(
                    template,
                    &[("thing", thing), ("name", name), ("unit", unit)],
                );
            }
        }
        for choice in slot.schema.choices.iter().flat_map(choice_words) {
            for template in &templates.choice {
                add(
                    template,
                    &[
                        ("thing", thing),
                        ("name", name),
                        ("value", &choice.join(" ")),
                    ],
                );
            }
        }
    }
}
