//! How long the texts of a message may be.

use super::{FAULT_MESSAGE_BYTES_MAX, Message};

/// The longest name of a property, action or event, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;

/// The longest log line, in bytes of UTF-8; a longer one is cut by the sender.
pub const LOG_BYTES_MAX: usize = 1024;

impl Message<'_> {
    /// Whether a peer will take the message: names, texts and values keep their bounds.
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        let value_fits = match self {
            Self::Write { value, .. }
            | Self::Invoke { input: value, .. }
            | Self::Result { value, .. }
            | Self::Progress { value, .. }
            | Self::PropertyChanged { value, .. }
            | Self::Event { data: value, .. } => value.is_encodable(),
            _ => true,
        };
        value_fits && self.text_excess().is_none()
    }

    /// The limit that a name or text breaks.
    pub(super) fn text_excess(&self) -> Option<usize> {
        let (bytes, limit) = match self {
            Self::Read { property: name, .. }
            | Self::Write { property: name, .. }
            | Self::Observe { property: name, .. }
            | Self::Unobserve { property: name, .. }
            | Self::Invoke { action: name, .. }
            | Self::PropertyChanged { property: name, .. }
            | Self::Event { name, .. }
            | Self::TransferOffer { name, .. } => (name.len(), NAME_BYTES_MAX),
            Self::Log { text, .. } => (text.len(), LOG_BYTES_MAX),
            Self::Result {
                text: Some(text), ..
            }
            | Self::TransferDone {
                text: Some(text), ..
            } => (text.len(), FAULT_MESSAGE_BYTES_MAX),
            _ => return None,
        };
        (bytes > limit).then_some(limit)
    }
}
