//! The fleet door: commands over MQTT 5, and what Things report.
//!
//! | topic | direction | what |
//! | --- | --- | --- |
//! | `<root>/<box>/command` | in, QoS 1 | a [`message::Request`]; correlation data or `id` identifies it, the response topic gets the answer |
//! | response topic, or `<root>/<box>/result` | out, QoS 1 | [`message`] replies: `REJECTED`, `SUCCEEDED`, `FAILED` |
//! | `<root>/<box>/event/<thing>/<name>` | out, QoS 1 | an event of a device |
//! | `<root>/<box>/property/<thing>/<name>` | out, QoS 1, retained | the value of a property |
//! | `<root>/<box>/thing/<thing>` | out, QoS 1, retained | whether a Thing can be reached |
//! | `<root>/<box>/presence` | out, QoS 1, retained | birth (`online`) and last will (`offline`), with this run's boot id |
//!
//! ```text
//! Things --reports--> reporter --put (durable)--> outbox --take--> courier --publish--> broker
//! commands --results---------------^                 ^--------clear---- PUBACK <---------'
//! ```
//! A command is acknowledged to the broker once its outcome is durable in the ledger and its answer in the outbox (or it was refused
//! for good): until then the broker delivers it again after any interruption, and the ledger sees to it that it runs once. Answers,
//! events and values carry the user property `message-id`, the same each time that they are sent. What is said over the fleet door
//! has the rights of [`Principal::Fleet`](crate::router::Principal::Fleet): the broker's access control decides who may publish.
//! Signatures over commands are not part of this first form.

pub mod courier;
pub mod message;
pub mod reporter;
pub mod service;
pub mod topic;
