//! The fleet's topics. A Thing's id and the names of its affordances are one level each: what would make more of them is written as
//! `%` and two digits in base 16.

/// The topics of one box.
#[derive(Debug, Clone)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// `root` is the configured first part, `box_id` this box's name.
    #[must_use]
    pub fn new(root: &str, box_id: &str) -> Self {
        Self {
            base: format!("{root}/{box_id}"),
        }
    }

    /// Commands to us.
    #[must_use]
    pub fn command(&self) -> String {
        format!("{}/command", self.base)
    }

    /// Results whose command names no response topic.
    #[must_use]
    pub fn result(&self) -> String {
        format!("{}/result", self.base)
    }

    /// Birth and last will.
    #[must_use]
    pub fn presence(&self) -> String {
        format!("{}/presence", self.base)
    }

    /// Events of a Thing.
    #[must_use]
    pub fn event(&self, thing: &str, name: &str) -> String {
        format!("{}/event/{}/{}", self.base, level(thing), level(name))
    }

    /// Values of a Thing's property.
    #[must_use]
    pub fn property(&self, thing: &str, name: &str) -> String {
        format!("{}/property/{}/{}", self.base, level(thing), level(name))
    }

    /// Whether a Thing can be reached.
    #[must_use]
    pub fn thing(&self, thing: &str) -> String {
        format!("{}/thing/{}", self.base, level(thing))
    }
}

/// A name as one level of a topic.
fn level(name: &str) -> String {
    let mut level = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '/' | '+' | '#' | '%' | '\0' => level.push_str(&format!("%{:02X}", u32::from(letter))),
            letter => level.push(letter),
        }
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_level_and_no_two_names_are_the_same_one() {
        let topics = Topics::new("autoglm", "box");
        assert_eq!(
            topics.event("urn:dev:1", "pressed"),
            "autoglm/box/event/urn:dev:1/pressed"
        );
        assert_eq!(
            topics.property("a/b#", "x+y%2B"),
            "autoglm/box/property/a%2Fb%23/x%2By%252B"
        );
    }
}
