//! Things: what a device says about itself, and what may be asked of it.
//!
//! [`description`] turns the Thing Description that a device serves into validated types;
//! [`schema`] checks a value against one of its affordances before anything is sent to the
//! device. Nothing here talks to a device or knows over which link it is reached.
//!
//! Read first: W3C Web of Things, Thing Description 1.1 (<https://www.w3.org/TR/wot-thing-description11/>).

pub mod description;
pub mod schema;

mod raw;
