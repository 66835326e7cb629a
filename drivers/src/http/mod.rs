//! A client for servers that answer over HTTP/1.1: one connection for each request, over TLS 1.3 or, where that is allowed, in clear text.
//!
//! Whoever drops a [`Response`] or its [`Events`] closes the connection, which is how a server learns that its answer is not wanted
//! any more; so there is no pool. Nothing is followed (no redirects), tried again or kept, and nothing is read from the socket
//! before somebody asks for it. What a request means is its sender's business.
//!
//! Read [`address`] and [`access`] (who is spoken to, and with what), then [`exchange`] and [`events`].

pub mod access;
pub mod address;
pub mod error;
pub mod events;
pub mod exchange;

pub use access::Access;
pub use address::{AddressError, Base};
pub use error::HttpError;
pub use events::{Events, EventsError};
pub use exchange::{Request, Response, send};
