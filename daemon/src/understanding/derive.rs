//! Derives the operations that a Thing Description offers: their verbs, names, values and quantities.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::things::description::{
    Action, Choice, DataSchema, DataType, Naming, Property, ThingDescription,
};

use super::phrases::{
    Name, OPPOSITES, Offer, Slot, Target, choice_words, contains, is_text, words,
};
use super::wording::{Verb, Wording, Words};

pub(super) fn names(description: &ThingDescription, wording: &Wording) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    let mut add = |words: Words, is_kind: bool| {
        if words.is_empty() || names.iter().any(|name| name.words == words) {
            return;
        }
        for plural in plurals(&words, wording) {
            names.push(Name {
                words: plural,
                is_kind,
                is_plural: true,
            });
        }
        names.push(Name {
            words,
            is_kind,
            is_plural: false,
        });
    };
    add(words(&description.title), false);
    for alias in &description.aliases {
        add(words(alias), false);
    }
    for kind in &description.kinds {
        if let Some(location) = &description.location {
            add([words(location), words(kind)].concat(), false);
        }
    }
    for kind in &description.kinds {
        add(words(kind), true);
    }
    names
}

fn plurals(singular: &[String], wording: &Wording) -> Vec<Words> {
    let Some((last, start)) = singular.split_last() else {
        return Vec::new();
    };
    let endings = &wording.grammar.plural;
    if endings.iter().any(|ending| last.ends_with(ending.as_str())) {
        return Vec::new();
    }
    endings
        .iter()
        .map(|ending| [start, &[format!("{last}{ending}")]].concat())
        .collect()
}

pub(super) fn add_action(
    offers: &mut Vec<Offer>,
    description: &ThingDescription,
    name: &str,
    action: &Action,
    wording: &Wording,
) {
    let slots = slots(action.input.as_ref(), name);
    let title = action
        .naming
        .title
        .clone()
        .unwrap_or_else(|| words(name).join(" "));
    let sets = action
        .sets
        .clone()
        .or_else(|| set_by_shape(description, name, &slots));
    let mut says: Vec<Words> = vec![words(&title), words(name)];
    says.extend(action.naming.aliases.iter().map(|alias| words(alias)));
    let mut verbs: BTreeSet<Verb> = typed_verbs(&action.naming, wording);
    let mut own = Vec::new();
    let mut names = Vec::new();
    for said in says {
        let (verb, rest) = leading_verbs(&said, wording);
        let all_verb = !verb.is_empty() && rest.is_empty();
        if slots.is_empty() && !all_verb {
            // Its own words say it; a leading common verb alone would say too much.
            push_new(&mut own, said);
            continue;
        }
        if !slots.is_empty() {
            push_new(&mut names, rest);
        }
        verbs.extend(verb);
    }
    if !slots.is_empty() {
        let shows = slots.iter().any(|slot| is_text(&slot.schema));
        verbs.insert(if shows { Verb::Show } else { Verb::Set });
        for slot in &slots {
            push_new(&mut names, words(&slot.title));
        }
    }
    if let Some(property) = sets
        .as_ref()
        .and_then(|sets| description.properties.get(sets))
    {
        let sets = sets.as_deref().unwrap_or_default();
        for said in affordance_names(&property.naming, sets) {
            push_new(&mut names, said);
        }
    }
    offers.push(Offer {
        quantities: quantities(&names, slots.first().map(|slot| &slot.schema), wording),
        target: Target::Action(name.to_owned()),
        title,
        verbs,
        own,
        names,
        slots,
        fixed: None,
        sets,
        is_setting: true,
    });
}

/// An action whose only input is called as a property is taken to set it.
fn set_by_shape(description: &ThingDescription, name: &str, slots: &[Slot]) -> Option<String> {
    let [slot] = slots else { return None };
    let named = |property: &&String| {
        slot.member.as_ref() == Some(*property)
            || words(name).ends_with(&words(property))
            || words(&slot.title) == words(property)
    };
    description.properties.keys().find(named).cloned()
}

pub(super) fn add_property(
    offers: &mut Vec<Offer>,
    name: &str,
    property: &Property,
    wording: &Wording,
) {
    let title = property
        .naming
        .title
        .clone()
        .unwrap_or_else(|| words(name).join(" "));
    let names = affordance_names(&property.naming, name);
    let quantities = quantities(&names, Some(&property.schema), wording);
    let offer = |target, verbs, slots, fixed, sets| Offer {
        target,
        title: title.clone(),
        verbs,
        own: Vec::new(),
        names: names.clone(),
        quantities: quantities.clone(),
        slots,
        fixed,
        sets,
        is_setting: !property.schema.read_only,
    };
    if !property.schema.write_only {
        let target = Target::Read(name.to_owned());
        let read = offer(
            target,
            BTreeSet::new(),
            Vec::new(),
            None,
            Some(name.to_owned()),
        );
        offers.push(read);
    }
    if property.schema.read_only {
        return;
    }
    let write = || Target::Write(name.to_owned());
    let sets = || Some(name.to_owned());
    let slots = slots(Some(&property.schema), &title);
    let verb = if is_text(&property.schema) {
        Verb::Show
    } else {
        Verb::Set
    };
    offers.push(offer(write(), [verb].into(), slots.clone(), None, sets()));
    if property.schema.data_type == Some(DataType::Boolean) {
        let says = |verb: &Verb| {
            let particles = wording.verbs.get(verb).map(|words| &words.particles);
            particles
                .is_some_and(|list| names.iter().any(|name| list.prefix_len(name) == name.len()))
        };
        for (yes, no) in OPPOSITES {
            if says(yes) {
                let value = |value: bool| Some(Value::Bool(value));
                offers.push(offer(
                    write(),
                    [*yes].into(),
                    slots.clone(),
                    value(true),
                    sets(),
                ));
                offers.push(offer(
                    write(),
                    [*no].into(),
                    slots.clone(),
                    value(false),
                    sets(),
                ));
            }
        }
    }
}

/// A thing that has no on and off of its own may have an enumeration with an "off" in it.
pub(super) fn add_switches(offers: &mut Vec<Offer>, wording: &Wording) {
    let has = |offers: &[Offer], verb| offers.iter().any(|offer| offer.verbs.contains(&verb));
    let Some(off_words) = wording
        .verbs
        .get(&Verb::TurnOff)
        .map(|words| &words.particles)
    else {
        return;
    };
    if has(offers, Verb::TurnOff) {
        return;
    }
    let mut switches = Vec::new();
    for offer in offers.iter().filter(|offer| offer.takes_value()) {
        let [slot] = offer.slots.as_slice() else {
            continue;
        };
        let is_off = |choice: &Choice| {
            choice_words(choice)
                .iter()
                .any(|said| off_words.prefix_len(said) == said.len())
        };
        if !slot.schema.choices.iter().any(is_off) {
            continue;
        }
        for choice in &slot.schema.choices {
            let verb = if is_off(choice) {
                Verb::TurnOff
            } else {
                Verb::TurnOn
            };
            switches.push(Offer {
                verbs: [verb].into(),
                fixed: Some(choice.value.clone()),
                ..offer.clone()
            });
        }
    }
    offers.extend(switches);
}

fn slots(input: Option<&DataSchema>, title: &str) -> Vec<Slot> {
    let Some(schema) = input else {
        return Vec::new();
    };
    if schema.data_type != Some(DataType::Object) {
        return vec![Slot {
            member: None,
            title: schema
                .naming
                .title
                .clone()
                .unwrap_or_else(|| words(title).join(" ")),
            schema: schema.clone(),
            required: true,
        }];
    }
    let slot = |(name, member): (&String, &DataSchema)| Slot {
        member: Some(name.clone()),
        title: member
            .naming
            .title
            .clone()
            .unwrap_or_else(|| words(name).join(" ")),
        schema: member.clone(),
        required: schema.required.contains(name),
    };
    schema.members.iter().map(slot).collect()
}

fn affordance_names(naming: &Naming, name: &str) -> Vec<Words> {
    let mut names = Vec::new();
    if let Some(title) = &naming.title {
        push_new(&mut names, words(title));
    }
    push_new(&mut names, words(name));
    for alias in &naming.aliases {
        push_new(&mut names, words(alias));
    }
    names
}

pub(super) fn push_new(list: &mut Vec<Words>, words: Words) {
    if !words.is_empty() && !list.contains(&words) {
        list.push(words);
    }
}

/// `@type` "edge:TurnOn" names the kind outright.
fn typed_verbs(naming: &Naming, wording: &Wording) -> BTreeSet<Verb> {
    let local = |kind: &String| words(kind.rsplit([':', '/', '#']).next().unwrap_or(kind));
    let types: Vec<Words> = naming.types.iter().map(local).collect();
    let named = |(verb, said): (&Verb, &super::wording::VerbWords)| {
        let first = words(said.templates.first()?);
        types.contains(&first).then_some(*verb)
    };
    wording.verbs.iter().filter_map(named).collect()
}

/// The kinds whose verb starts these words, and what follows it.
fn leading_verbs(said: &[String], wording: &Wording) -> (BTreeSet<Verb>, Words) {
    let longest = |verb: &super::wording::VerbWords| {
        let templates = verb.templates.iter().map(|template| words(template));
        templates
            .filter(|template| super::wording::starts_with(said, template))
            .map(|template| template.len())
            .max()
            .unwrap_or(0)
    };
    let best = wording.verbs.values().map(longest).max().unwrap_or(0);
    if best == 0 {
        return (BTreeSet::new(), said.to_vec());
    }
    let kinds = wording
        .verbs
        .iter()
        .filter(|(_, verb)| longest(verb) == best)
        .map(|(kind, _)| *kind);
    (kinds.collect(), said[best..].to_vec())
}

/// The qualities that these names speak of; the unit tells where the names do not.
fn quantities(names: &[Words], schema: Option<&DataSchema>, wording: &Wording) -> BTreeSet<String> {
    let named: BTreeSet<String> = wording
        .quantities
        .iter()
        .filter(|(_, quantity)| {
            quantity
                .names
                .iter()
                .any(|said| names.iter().any(|name| contains(name, said)))
        })
        .map(|(key, _)| key.clone())
        .collect();
    if !named.is_empty() {
        return named;
    }
    let unit = schema
        .and_then(|schema| schema.unit.as_deref())
        .and_then(|code| wording.unit_by_code(code));
    let dimensions = unit
        .map(|unit| unit.dimensions.as_slice())
        .unwrap_or_default();
    dimensions
        .iter()
        .filter(|dimension| wording.quantities.contains_key(*dimension))
        .cloned()
        .collect()
}
