//! A body of server-sent events, read one at a time and never ahead of its reader but for what one read of the socket brought.
//!
//! The parsing is the crate sse-stream's. It joins lines without a limit, so [`Gauge`] stands before it and counts the bytes of
//! each event.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use sse_stream::SseByteStream;
use tokio_util::task::AbortOnDropHandle;

use super::error::describe;

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, EventsError>> + Send>>;

/// The events of one response. Dropping it closes the connection.
pub struct Events {
    events: SseByteStream<Chunks>,
    _connection: AbortOnDropHandle<()>,
}

/// Why there are no more events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// An event of endless length.
    #[error("an event has more than {bytes_max} bytes")]
    TooLong {
        /// What is taken.
        bytes_max: usize,
    },
    /// Bytes that are no text.
    #[error("an event is not UTF-8")]
    NotText,
}

impl Events {
    pub(super) fn new(
        body: Incoming,
        connection: AbortOnDropHandle<()>,
        event_bytes_max: usize,
    ) -> Self {
        let mut gauge = Gauge::new(event_bytes_max);
        let chunks: Chunks = Box::pin(BodyDataStream::new(body).map(move |chunk| {
            let chunk = chunk.map_err(|error| EventsError::Broken(describe(&error)))?;
            gauge.note(&chunk)?;
            Ok(chunk)
        }));
        Self {
            events: SseByteStream::new(chunks),
            _connection: connection,
        }
    }

    /// The next event's data; `None` at the orderly end of the body. An event that the end cut short is dropped. Cancel safe.
    ///
    /// # Errors
    /// [`EventsError`], after which there is nothing more.
    pub async fn next(&mut self) -> Result<Option<String>, EventsError> {
        loop {
            match self.events.next().await {
                None => return Ok(None),
                Some(Ok(event)) => {
                    if let Some(data) = event.data {
                        return Ok(Some(data));
                    }
                }
                Some(Err(sse_stream::Error::Body(source))) => {
                    return Err(match source.downcast::<EventsError>() {
                        Ok(error) => *error,
                        Err(other) => EventsError::Broken(other.to_string()),
                    });
                }
                Some(Err(_)) => return Err(EventsError::NotText),
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// Counts the bytes since the last empty line, wherever chunks are cut. Lines end with LF, CR LF or CR (WHATWG HTML, 9.2.6).
struct Gauge {
    bytes_max: usize,
    bytes: usize,
    is_line_empty: bool,
    is_after_cr: bool,
}

impl Gauge {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            is_line_empty: true,
            is_after_cr: false,
        }
    }

    fn note(&mut self, chunk: &[u8]) -> Result<(), EventsError> {
        for &byte in chunk {
            self.bytes += 1;
            let ends_line = byte == b'\r' || (byte == b'\n' && !self.is_after_cr);
            let continues_end = byte == b'\n' && self.is_after_cr;
            self.is_after_cr = byte == b'\r';
            if ends_line {
                if self.is_line_empty {
                    self.bytes = 0;
                }
                self.is_line_empty = true;
            } else if !continues_end {
                self.is_line_empty = false;
            }
            if self.bytes > self.bytes_max {
                return Err(EventsError::TooLong {
                    bytes_max: self.bytes_max,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The longest stretch up to an empty line by another way: split by it.
    fn longest(text: &str) -> usize {
        let normal = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut longest = 0;
        let mut bytes = 0;
        for line in normal.split_inclusive('\n') {
            if line == "\n" {
                bytes = 0;
            } else {
                bytes += line.len();
                longest = longest.max(bytes);
            }
        }
        longest
    }

    proptest! {
        #[test]
        fn an_event_of_the_limit_passes_and_a_longer_one_does_not_however_it_is_cut(
            lines in prop::collection::vec("[a-zä]{0,9}", 0..20),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cut in 1_usize..7,
        ) {
            let text: String = lines.iter().map(|line| format!("{line}{end}")).collect();
            // A line end of two bytes counts as two.
            let wide = lines.len();
            let most = longest(&text) + if end == "\r\n" { wide } else { 0 };
            let feed = |limit| {
                let mut gauge = Gauge::new(limit);
                text.as_bytes().chunks(cut).try_for_each(|chunk| gauge.note(chunk))
            };
            prop_assert!(feed(most + 2).is_ok());
            if let Some(short) = longest(&text).checked_sub(1) {
                prop_assert!(feed(short).is_err());
            }
        }
    }
}
