//! Writes the Thing Descriptions of discovered devices: what the three ecosystems have in common.

use serde_json::{Map, Value, json};

use crate::things::binding::form::percent_encode;

/// A description being written.
#[derive(Debug)]
pub(super) struct Description {
    broker: String,
    document: Map<String, Value>,
}

impl Description {
    pub(super) fn new(broker: &str, id: &str, title: &str) -> Self {
        let mut document = Map::new();
        let context = json!(["https://www.w3.org/2022/wot/td/v1.1", {
            "edge": "https://openautoglm.org/ns/edge#", "mqv": "http://www.example.org/mqtt-binding#"
        }]);
        document.insert("@context".into(), context);
        document.insert("id".into(), json!(id));
        document.insert("title".into(), json!(title));
        document.insert(
            "securityDefinitions".into(),
            json!({"broker": {"scheme": "nosec"}}),
        );
        document.insert("security".into(), json!(["broker"]));
        Self {
            broker: broker.to_owned(),
            document,
        }
    }

    /// Sets a member of the thing itself.
    pub(super) fn set(&mut self, member: &str, value: Value) {
        self.document.insert(member.to_owned(), value);
    }

    /// Adds an affordance; a name that is taken gets a number. Returns the name.
    pub(super) fn add(&mut self, class: &str, name: &str, affordance: Value) -> String {
        let all = self.document.entry(class).or_insert_with(|| json!({}));
        let Some(all) = all.as_object_mut() else {
            return name.to_owned();
        };
        let mut free = name.to_owned();
        let mut number = 2;
        while all.contains_key(&free) {
            free = format!("{name}_{number}");
            number += 1;
        }
        all.insert(free.clone(), affordance);
        free
    }

    /// Whether it has any affordance: without one there is nothing to say about it.
    pub(super) fn is_empty(&self) -> bool {
        !["properties", "actions", "events"]
            .iter()
            .any(|class| self.document.contains_key(*class))
    }

    /// A form's target at the description's broker.
    pub(super) fn href(&self, topic: &str) -> Value {
        Value::String(format!("mqtt://{}/{}", self.broker, percent_encode(topic)))
    }

    pub(super) fn finish(self) -> Value {
        Value::Object(self.document)
    }
}

/// Puts the members of `more` into an object.
pub(super) fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// `color_temp` and `kitchen/floor_light` as people say them.
pub(super) fn spoken(name: &str) -> String {
    let words: Vec<&str> = name
        .split(['_', '/', '-', '.', ' '])
        .filter(|word| !word.is_empty())
        .collect();
    let text = words.join(" ");
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => text,
    }
}

/// A name as descriptions have them: lower case, `_` for everything else.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_alphanumeric() {
            slug.extend(letter.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('_') {
            slug.push('_');
        }
    }
    let slug = slug.trim_end_matches('_');
    if slug.is_empty() {
        "value".to_owned()
    } else {
        slug.to_owned()
    }
}
