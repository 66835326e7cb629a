//! Things: what a device says about itself, and what may be asked of it.
//!
//! [`description`] turns the Thing Description that a device serves into validated types;
//! [`schema`] checks a value against one of its affordances before anything is sent to the
//! device; [`registry`] owns the Things that are known, and [`value`] is the edge between the wire's
//! values and JSON. [`binding`] translates devices that do not speak our protocol into the same Things. Nothing here knows over which kind of link a device is reached.
//!
//! Read first: W3C Web of Things, Thing Description 1.1 (<https://www.w3.org/TR/wot-thing-description11/>).

pub mod binding;
pub mod description;
pub mod registry;
pub mod schema;
pub mod value;

mod raw;
mod value_error;
