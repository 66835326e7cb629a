//! Whose request goes first: pure, no clock.
//!
//! Voice is before what a local person types, that before the fleet, and background work is last. Waiting raises a request by one class every
//! [`RISE`], at most to [`Class::Local`]: so nothing waits for ever behind what is typed, and nothing but a voice goes before a voice.

use std::{fmt, time::Duration};

/// How long a request waits before it counts as one of the next more urgent class. Chosen because a person who looks on gives up sooner, and
/// what nobody looks at can wait for a minute.
pub const RISE: Duration = Duration::from_secs(30);

/// Who waits for an answer, the most urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody who speaks and listens: half a second is long.
    Voice,
    /// Somebody at this box.
    #[default]
    Local,
    /// Somebody far away.
    Fleet,
    /// Nobody in particular.
    Background,
}

impl Class {
    /// All of them, the most urgent first; the position of each is `class as usize`.
    pub const ALL: [Self; 4] = [Self::Voice, Self::Local, Self::Fleet, Self::Background];

    /// Requests that may wait for one model. Few of voice: an answer that comes after eight others is one that nobody listens for any more.
    #[must_use]
    pub const fn places(self) -> usize {
        match self {
            Self::Voice => 8,
            Self::Local | Self::Fleet | Self::Background => 32,
        }
    }

    /// As what it counts after it has waited.
    #[must_use]
    pub fn risen(self, waited: Duration) -> Self {
        let steps = waited.as_secs() / RISE.as_secs();
        let at = (self as usize).saturating_sub(usize::try_from(steps).unwrap_or(usize::MAX));
        Self::ALL[at.max(Self::Local as usize).min(self as usize)]
    }

    /// Its name in options and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Local => "local",
            Self::Fleet => "fleet",
            Self::Background => "background",
        }
    }

    /// The class of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_raises_a_request_and_never_to_a_voice() {
        let after = |class: Class, seconds| class.risen(Duration::from_secs(seconds));
        assert_eq!(after(Class::Background, 29), Class::Background);
        assert_eq!(after(Class::Background, 30), Class::Fleet);
        assert_eq!(after(Class::Background, 60), Class::Local);
        assert_eq!(after(Class::Background, u64::MAX), Class::Local);
        assert_eq!(after(Class::Fleet, 30), Class::Local);
        assert_eq!(after(Class::Local, 3600), Class::Local);
        assert_eq!(after(Class::Voice, 3600), Class::Voice);
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(
                (class as usize, Class::from_name(class.name())),
                (at, Some(class))
            );
        }
    }
}
